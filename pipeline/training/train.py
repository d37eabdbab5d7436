"""The stage `train`: fit the model and keep the best epoch."""

import json
import sys
from typing import Any

import keras
import tensorflow as tf

import models
from export.prepared_data import PreparedData
from export.run_directory import RunDirectory
from pipeline.config import MONITORS, Config
from pipeline.input.batches import (
    Examples,
    evaluation_batches,
    steps_per_epoch,
    training_batches,
)
from pipeline.options.schedules import AdaptiveCosineOptions, PlateauOptions
from pipeline.recipe import ConfigError
from pipeline.stopping import stop_signals
from pipeline.training.callbacks import (
    AdaptiveCosine,
    Best,
    HistoryFile,
    LearningRate,
    Plateau,
    TensorBoardLogs,
    WeightAverage,
)
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.device import prepare_device
from pipeline.training.loop import NotFiniteError, Plan, Position, Training
from pipeline.training.losses import build_loss
from pipeline.training.optimizers import build_optimizer
from pipeline.training.schedules import build_schedule
from serve.atomic import atomic_path, remove, write_text


def train(
    config: Config, run: RunDirectory, watcher: keras.callbacks.Callback | None = None
) -> str:
    """Train on the training split, select on the validation split; returns a one-line summary.

    Goes on from `run.checkpoints` if there is the state of this training. Writes `run.model` (the
    best epoch), `run.history`, `run.logs` and `run.training`.

    Args:
        watcher: called after all other callbacks; what it raises ends the training.

    Raises:
        ConfigError: the model cannot be built for these images, the loss became infinite, or
            another training is unfinished here.
        Stopped: a signal asked for it; the state is written.
    """
    device = prepare_device(deterministic=config.deterministic)
    keras.utils.set_random_seed(config.seed)
    data = PreparedData.open(run.data)
    model = build_model(config, data)
    compile_model(model, config, data)
    build_variables(model, len(data.manifest.class_names))
    print(f"           {model.count_params():,} parameters on {device}", flush=True)

    plan = make_plan(config, data)
    average = weight_average(model, config, data)
    judged = average.model_of_averages if average else model
    best = Best(
        judged, config.train.monitor, MONITORS[config.train.monitor], config.train.early_stopping
    )
    history = HistoryFile(run.history, len(data.indices("train")))
    rate = learning_rate(config, plan)
    callbacks = [rate, best, history, TensorBoardLogs(run.logs)]
    if average:
        callbacks.insert(1, average)  # before others look at the averages
    if watcher:
        callbacks.append(watcher)
    training = Training(
        model, plan, callbacks, judged=judged, verbose=1 if sys.stdout.isatty() else 2
    )
    machine = {"device": device, "tensorflow": tf.__version__, "keras": keras.__version__}
    checkpoints = Checkpoints(run, config, images=data.manifest.fingerprint, machine=machine)
    if checkpoints.restore(training):
        print(f"           continues after {_place(training.position, plan)}", flush=True)
    else:
        remove(run.logs)
    _run_to_the_end(training, plan, checkpoints)

    best.take()
    selected = keras.Model(model.inputs, model.outputs, name=model.name)  # without the optimizer
    with atomic_path(run.model) as temporary:
        selected.save(temporary)
    seconds = sum(row["seconds"] for row in history.rows)
    mean, std = models.normalization(config.model, data.manifest.mean, data.manifest.std)
    write_text(
        run.training,
        _json(
            device=device,
            parameters=model.count_params(),
            mean=mean,
            std=std,
            epochs=len(history.rows),
            best_epoch=best.epoch + 1,
            monitor=config.train.monitor,
            best_value=best.value,
            rate_lowered_after=[] if isinstance(rate, LearningRate) else rate.lowered_after,
            seconds=round(seconds, 1),
        ),
    )
    return f"best {config.train.monitor} {best.value:.4f} in epoch {best.epoch + 1}"


def _run_to_the_end(training: Training, plan: Plan, checkpoints: Checkpoints) -> None:
    """Train, and write the state after every epoch, every few minutes, and before a stop."""
    position = training.position

    def between() -> None:
        is_epoch_over = position.step == 0
        if is_epoch_over or checkpoints.is_due() or stop_signals.number:
            checkpoints.write(training)
        if stop_signals.number:
            print(f"           saved after {_place(position, plan)}", flush=True)
            stop_signals.check()

    try:
        with stop_signals.deferred():
            training.run(between)
    except NotFiniteError as error:
        raise ConfigError(
            f"training stopped at {_place(position, plan)}: the loss is no longer a finite number, "
            f"at a learning rate of {error.learning_rate:.3g}; lower "
            "--train.optimizer.learning_rate and start over with --fresh"
        ) from error


def _place(position: Position, plan: Plan) -> str:
    if position.step == 0:
        return f"epoch {position.epoch} of {plan.epochs}"
    step = f"step {position.step:,} of {plan.steps_per_epoch:,}"
    return f"{step} in epoch {position.epoch + 1} of {plan.epochs}"


def make_plan(config: Config, data: PreparedData) -> Plan:
    """Batches, epochs and steps."""
    options = config.train
    training, validation = (
        Examples(data.images, data.labels, data.indices(split), len(data.manifest.class_names))
        for split in ("train", "validation")
    )
    return Plan(
        batches=lambda first_step: training_batches(
            training,
            batch_size=options.batch_size,
            epochs=options.epochs,
            seed=config.seed,
            augmentation=config.augment,
            first_step=first_step,
        ),
        validation=evaluation_batches(validation, batch_size=256),
        epochs=options.epochs,
        steps_per_epoch=steps_per_epoch(len(training), options.batch_size),
    )


def build_model(config: Config, data: PreparedData) -> keras.Model:
    """The untrained model for this data set, normalization included."""
    manifest = data.manifest
    try:
        return models.build(
            config.model,
            manifest.image_spec().shape,
            len(manifest.class_names),
            mean=manifest.mean,
            std=manifest.std,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error


def compile_model(model: keras.Model, config: Config, data: PreparedData) -> None:
    """Attach optimizer, loss and metrics."""
    counts = data.manifest.counts["train"]
    model.compile(
        optimizer=build_optimizer(config.train.optimizer),
        loss=build_loss(config.train.loss, [counts[name] for name in data.manifest.class_names]),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )


def weight_average(model: keras.Model, config: Config, data: PreparedData) -> WeightAverage | None:
    """The callback that averages weights, if `config` asks for it."""
    if not config.train.weight_average:
        return None
    average = WeightAverage(model, config.train.weight_average)
    compile_model(average.model_of_averages, config, data)
    return average


def build_variables(model: keras.Model, classes: int) -> None:
    """Make every variable that the first step would: the optimizer's, and the metrics'."""
    model.optimizer.build(model.trainable_variables)
    nothing = tf.zeros([1, classes])
    model.compute_metrics(None, nothing, nothing)
    model.reset_metrics()


def learning_rate(config: Config, plan: Plan) -> LearningRate | AdaptiveCosine | Plateau:
    """The callback that sets the rate as `config` has it."""
    options, peak = config.train.schedule, config.train.optimizer.learning_rate
    match options:
        case AdaptiveCosineOptions():
            return AdaptiveCosine(
                highest=peak,
                lowest=peak * options.floor,
                cycle_epochs=options.cycle_epochs,
                factor=options.factor,
            )
        case PlateauOptions():
            return Plateau(
                peak=peak,
                lowest=peak * options.floor,
                factor=options.factor,
                patience=options.patience,
                monitor=config.train.monitor,
                mode=MONITORS[config.train.monitor],
            )
        case _:
            schedule = build_schedule(
                options, peak=peak, steps_per_epoch=plan.steps_per_epoch, epochs=plan.epochs
            )
            return LearningRate(schedule)


def _json(**values: Any) -> str:
    return json.dumps(values, indent=2) + "\n"
