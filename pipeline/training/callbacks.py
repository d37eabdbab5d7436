"""Keras callbacks of our own: the learning rate by step, and history.csv."""

import csv
import io
import time
from pathlib import Path
from typing import Any

import keras

from pipeline.training.schedules import Schedule
from serve.atomic import write_text

HISTORY_COLUMNS = (
    "epoch",
    "step",
    "learning_rate",
    "loss",
    "accuracy",
    "val_loss",
    "val_accuracy",
    "seconds",
    "images_per_second",
)


class LearningRate(keras.callbacks.Callback):
    """Sets the optimizer's learning rate before every step.

    The rate is computed from `optimizer.iterations`, the count of updates made, and never from the
    current rate or from a counter of its own: nothing is lost when a run continues.
    """

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self._schedule = schedule

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        optimizer = self.model.optimizer
        step = int(keras.ops.convert_to_numpy(optimizer.iterations))
        optimizer.learning_rate = self._schedule(step)


class HistoryFile(keras.callbacks.Callback):
    """Writes history.csv anew after every epoch, so that it is whole at any instant.

    `step` counts updates so far, `learning_rate` is that of the epoch's last step, `seconds` is the
    whole epoch with validation, `images_per_second` is training alone.
    """

    def __init__(self, path: Path, examples: int) -> None:
        super().__init__()
        self._path = path
        self._examples = examples
        self.rows: list[dict[str, float]] = []

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._start = time.perf_counter()
        self._trained: float | None = None

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        self._trained = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        end = time.perf_counter()
        optimizer = self.model.optimizer
        figures = {key: float(value) for key, value in (logs or {}).items()}
        row = {
            **figures,
            "epoch": epoch + 1,
            "step": int(keras.ops.convert_to_numpy(optimizer.iterations)),
            "learning_rate": float(keras.ops.convert_to_numpy(optimizer.learning_rate)),
            "seconds": round(end - self._start, 3),
            "images_per_second": round(self._examples / ((self._trained or end) - self._start), 1),
        }
        self.rows.append(row)
        text = io.StringIO()
        writer = csv.DictWriter(text, HISTORY_COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self._path, text.getvalue())
