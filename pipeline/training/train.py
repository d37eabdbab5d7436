"""The stage `train`: fit the model and keep the best epoch."""

import json
from typing import Any

import keras
import tensorflow as tf

import models
from export.prepared_data import PreparedData
from export.run_directory import RunDirectory
from pipeline.config import Config
from pipeline.recipe import ConfigError
from pipeline.stopping import stop_signals
from pipeline.training.build import build_model
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.device import prepare_device
from pipeline.training.loop import NotFiniteError, Training
from pipeline.training.phases import Phase, Phases
from pipeline.training.warm_start import start_from
from serve.atomic import atomic_path, remove, write_text
from serve.rounding import share, significant


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
    _say(f"{model.count_params():,} parameters on {device}")
    if config.model.init_from:
        _say(start_from(model, config.model.init_from))

    phases = Phases(config, data, run, model, watcher)
    machine = {"device": device, "tensorflow": tf.__version__, "keras": keras.__version__}
    checkpoints = Checkpoints(run, config, images=data.manifest.fingerprint, machine=machine)
    _run(phases, checkpoints, run)

    best, history = phases.best, phases.history
    best.take(model)
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
            steps_per_epoch=phases.steps_per_epoch,
            best_epoch=best.epoch + 1,
            monitor=config.train.monitor,
            best_value=best.value,
            rate_decisions=phases.decisions,
            ended_by=phases.rules.reason,
            seconds=round(seconds, 1),
        ),
    )
    monitor, count = config.train.monitor, len(data.indices("validation"))
    shown = share(best.value, count) if monitor == "val_accuracy" else significant(best.value)
    return f"best {monitor} {shown} in epoch {best.epoch + 1}"


def _run(phases: Phases, checkpoints: Checkpoints, run: RunDirectory) -> None:
    """Every phase to its end, from where the last state was taken."""
    state = checkpoints.read()
    if state is None:
        remove(run.logs)
        remove(run.pretraining)
    for phase in phases.all:
        if state and phase.name != state.document["phase"]:
            continue
        training = phase.begin()
        if len(phases.all) > 1:
            first, end = training.plan.epochs
            _say(f"{phase.name}: epochs {first + 1} to {end}")
        if state:
            checkpoints.restore(training, state)
            _say(f"continues after {_place(training)}")
        state = None
        _run_to_the_end(training, phase, phases, checkpoints)
        if phases.rules.reason:
            _say(f"ends after epoch {len(phases.history.rows)}: {phases.rules.reason}")
            break


def _run_to_the_end(
    training: Training, phase: Phase, phases: Phases, checkpoints: Checkpoints
) -> None:
    """Train, and write the state after every epoch, every few minutes, and before a stop."""
    position = training.position

    def between() -> None:
        is_epoch_over = position.step == 0
        if is_epoch_over or checkpoints.is_due() or stop_signals.number:
            checkpoints.write(training, phase.name, is_last=phases.is_last(phase))
        if stop_signals.number:
            _say(f"saved after {_place(training)}")
            stop_signals.check()

    try:
        with stop_signals.deferred():
            training.run(between)
    except NotFiniteError as error:
        raise ConfigError(
            f"training stopped at {_place(training)}: {error}; lower "
            "--train.optimizer.learning_rate and start over with --fresh"
        ) from error


def _place(training: Training) -> str:
    position, plan = training.position, training.plan
    epochs = plan.epochs[1]
    if position.step == 0:
        return f"{plan.name}epoch {position.epoch} of {epochs}"
    step = f"step {position.step:,} of {plan.steps_in(position.epoch):,}"
    return f"{plan.name}{step} in epoch {position.epoch + 1} of {epochs}"


def _say(text: str) -> None:
    print(f"           {text}", flush=True)


def _json(**values: Any) -> str:
    return json.dumps(values, indent=2) + "\n"
