"""The stage `train`: fit the model and keep the best epoch."""

import json
import math
import shutil
import sys
import time
from typing import Any

import keras

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
from pipeline.recipe import ConfigError
from pipeline.training.callbacks import HistoryFile, LearningRate
from pipeline.training.device import prepare_device
from pipeline.training.optimizers import build_optimizer
from pipeline.training.schedules import build_schedule
from serve.atomic import atomic_path, remove, write_text


def train(config: Config, run: RunDirectory) -> str:
    """Train on the training split, select on the validation split; returns a one-line summary.

    Writes `run.model` (the best epoch), `run.history`, `run.logs` and `run.training`.

    Raises:
        ConfigError: the model cannot be built for these images, or the loss became infinite.
    """
    device = prepare_device()
    keras.utils.set_random_seed(config.seed)
    data = PreparedData.open(run.data)
    classes = len(data.manifest.class_names)
    training, validation = (
        Examples(data.images, data.labels, data.indices(split), classes)
        for split in ("train", "validation")
    )
    model = build_model(config, data)
    compile_model(model, config)
    print(f"           {model.count_params():,} parameters on {device}", flush=True)

    for leftover in (run.logs, run.checkpoints):
        remove(leftover)
    run.checkpoints.mkdir(parents=True)
    best = run.checkpoints / "best.keras"
    history = HistoryFile(run.history, len(training))
    started = time.perf_counter()
    model.fit(
        training_batches(
            training,
            batch_size=config.train.batch_size,
            epochs=config.train.epochs,
            seed=config.seed,
            augmentation=config.augment,
        ),
        epochs=config.train.epochs,
        steps_per_epoch=steps_per_epoch(len(training), config.train.batch_size),
        validation_data=evaluation_batches(validation, batch_size=256),
        callbacks=[*_callbacks(config, run, len(training)), history],
        shuffle=False,  # the batches already are
        verbose=1 if sys.stdout.isatty() else 2,
    )
    seconds = time.perf_counter() - started
    last = history.rows[-1]
    if not math.isfinite(last["loss"]):
        raise ConfigError(
            f"training stopped in epoch {last['epoch']}, step {last['step']}: the loss is no "
            f"longer a finite number, at a learning rate of {last['learning_rate']:.3g}; "
            "lower --train.optimizer.learning_rate"
        )
    with atomic_path(run.model) as temporary:
        shutil.copyfile(best, temporary)

    monitor = config.train.monitor
    choose = max if MONITORS[monitor] == "max" else min
    best_row = choose(history.rows, key=lambda row: row[monitor])
    write_text(
        run.training,
        _json(
            device=device,
            parameters=model.count_params(),
            epochs=len(history.rows),
            best_epoch=int(best_row["epoch"]),
            monitor=monitor,
            best_value=best_row[monitor],
            seconds=round(seconds, 1),
        ),
    )
    return f"best {monitor} {best_row[monitor]:.4f} in epoch {best_row['epoch']}"


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


def compile_model(model: keras.Model, config: Config) -> None:
    """Attach optimizer, loss and metrics. Targets are one-hot: label smoothing needs them so."""
    model.compile(
        optimizer=build_optimizer(config.train.optimizer),
        loss=keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=config.train.label_smoothing
        ),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )


def _callbacks(config: Config, run: RunDirectory, examples: int) -> list[keras.callbacks.Callback]:
    monitor, mode = config.train.monitor, MONITORS[config.train.monitor]
    schedule = build_schedule(
        config.train.schedule,
        peak=config.train.optimizer.learning_rate,
        steps_per_epoch=steps_per_epoch(examples, config.train.batch_size),
        epochs=config.train.epochs,
    )
    callbacks = [
        LearningRate(schedule),
        keras.callbacks.ModelCheckpoint(
            run.checkpoints / "best.keras", monitor=monitor, mode=mode, save_best_only=True
        ),
        keras.callbacks.TensorBoard(run.logs, write_graph=False),
        keras.callbacks.TerminateOnNaN(),
    ]
    if config.train.early_stopping:
        callbacks.append(
            keras.callbacks.EarlyStopping(
                monitor=monitor, mode=mode, patience=config.train.early_stopping
            )
        )
    return callbacks


def _json(**values: Any) -> str:
    return json.dumps(values, indent=2) + "\n"
