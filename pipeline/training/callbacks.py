"""Keras callbacks of our own. Those that keep something between steps can hand it over and take it
back, so that a training that goes on after a kill knows all that it knew.
"""

import csv
import io
import math
import statistics
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipeline.training.schedules import Schedule, cosine_annealing
from serve.atomic import remove, write_text

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

Figures = dict[str, float]


class Stateful(keras.callbacks.Callback, ABC):
    """A callback that keeps something."""

    @abstractmethod
    def state(self) -> Any:
        """What of it JSON can hold."""

    def arrays(self) -> list[NDArray[Any]]:
        """The rest."""
        return []

    @abstractmethod
    def restore(self, state: Any, arrays: list[NDArray[Any]]) -> None:
        """Take both back, after `on_train_begin`."""


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


class AdaptiveCosine(Stateful):
    """Cosine annealing whose bounds adapt to how the training goes.

    After each cycle its mean training loss and mean accuracy are compared with those of the cycle
    before. If the loss rose or the accuracy fell, both bounds are multiplied by `factor` from then
    on.

    Args:
        highest, lowest: the bounds of the rate at the beginning.

    Attributes:
        decisions: one for each cycle that is over: the epoch it ended with (counted from 1), its
            mean loss and accuracy, whether it lowered the bounds and why, and the bounds from then
            on.
    """

    def __init__(self, *, highest: float, lowest: float, cycle_epochs: int, factor: float) -> None:
        super().__init__()
        self._highest, self._lowest = highest, lowest
        self._cycle_epochs, self._factor = cycle_epochs, factor
        self._epochs: list[Figures] = []
        self.decisions: list[dict[str, Any]] = []

    def on_epoch_begin(self, epoch: int, logs: Figures | None = None) -> None:
        scale = self._factor ** len(self.lowered_after)
        self.model.optimizer.learning_rate = cosine_annealing(
            len(self._epochs),
            highest=self._highest * scale,
            lowest=self._lowest * scale,
            cycle_epochs=self._cycle_epochs,
        )

    def on_epoch_end(self, epoch: int, logs: Figures | None = None) -> None:
        self._epochs.append({name: (logs or {})[name] for name in ("loss", "accuracy")})
        if len(self._epochs) == self._cycle_epochs:
            self._judge(epoch + 1)
            self._epochs = []

    @property
    def lowered_after(self) -> list[int]:
        """Epochs, counted from 1, after which the bounds fell."""
        return [cycle["epoch"] for cycle in self.decisions if cycle["lowered"]]

    def state(self) -> Any:
        return {"epochs": self._epochs, "decisions": self.decisions}

    def restore(self, state: Any, arrays: list[NDArray[Any]]) -> None:
        self._epochs, self.decisions = state["epochs"], state["decisions"]

    def _judge(self, epoch: int) -> None:
        loss, accuracy = (
            statistics.fmean(figures[name] for figures in self._epochs)
            for name in ("loss", "accuracy")
        )
        before = self.decisions[-1] if self.decisions else None
        reasons = []
        if before and loss > before["loss"]:
            reasons.append("the loss rose")
        if before and accuracy < before["accuracy"]:
            reasons.append("the accuracy fell")
        reason = " and ".join(reasons)
        scale = self._factor ** (len(self.lowered_after) + bool(reason))
        self.decisions.append(
            {
                "epoch": epoch,
                "loss": loss,
                "accuracy": accuracy,
                "lowered": bool(reason),
                "reason": reason,
                "highest": self._highest * scale,
                "lowest": self._lowest * scale,
            }
        )
        what = f"{reason}, rates x {self._factor:g}" if reason else "rates stay"
        print(
            f"           cycle of epoch {epoch}: loss {loss:.4f}, accuracy {accuracy:.4f}; {what}"
        )


class Plateau(Stateful):
    """Lowers the rate when for too long no epoch was better than the best one.

    Args:
        peak, lowest: the rate at the beginning, and below which it never falls.
        factor: what it is multiplied by each time.
        patience: epochs without a better one; they are counted anew after each time.
        monitor, mode: which of the epoch's figures, and whether more of it is better, or less.

    Attributes:
        decisions: one for each time it fell: the epoch after which (counted from 1), the figure of
            the best epoch so far, and the rate from then on.
    """

    def __init__(
        self,
        *,
        peak: float,
        lowest: float,
        factor: float,
        patience: int,
        monitor: str,
        mode: Literal["max", "min"],
    ) -> None:
        super().__init__()
        self._peak, self._lowest, self._factor = peak, lowest, factor
        self._patience, self._monitor, self._sign = patience, monitor, 1 if mode == "max" else -1
        self._best = -math.inf
        self._waited = 0
        self.decisions: list[dict[str, Any]] = []

    @property
    def lowered_after(self) -> list[int]:
        """Epochs, counted from 1, after which the rate fell."""
        return [decision["epoch"] for decision in self.decisions]

    def on_epoch_begin(self, epoch: int, logs: Figures | None = None) -> None:
        self.model.optimizer.learning_rate = self._rate(len(self.decisions))

    def on_epoch_end(self, epoch: int, logs: Figures | None = None) -> None:
        value = self._sign * (logs or {})[self._monitor]
        self._waited = 0 if value > self._best else self._waited + 1
        self._best = max(value, self._best)
        if self._waited == self._patience:
            self.decisions.append(
                {
                    "epoch": epoch + 1,
                    "best": self._sign * self._best,
                    "rate": self._rate(len(self.decisions) + 1),
                }
            )
            self._waited = 0
            print(
                f"           no better {self._monitor} for {self._patience} epochs: "
                f"rate x {self._factor:g}"
            )

    def state(self) -> Any:
        return {"best": self._best, "waited": self._waited, "decisions": self.decisions}

    def restore(self, state: Any, arrays: list[NDArray[Any]]) -> None:
        self._best, self._waited = state["best"], state["waited"]
        self.decisions = state["decisions"]

    def _rate(self, lowered: int) -> float:
        return max(self._peak * self._factor**lowered, self._lowest)


class HistoryFile(Stateful):
    """Writes history.csv anew after every epoch, so that it is whole at any instant.

    `step` counts updates so far, `learning_rate` is that of the epoch's last step, `seconds` is the
    whole epoch with validation, `images_per_second` is training alone.

    Attributes:
        rows: one for every epoch; keys are those of `HISTORY_COLUMNS` that there are.

    Args:
        examples, batch_size: of the training split.
    """

    def __init__(self, path: Path, examples: int, batch_size: int) -> None:
        super().__init__()
        self._path = path
        self._examples, self._batch_size = examples, batch_size
        self._steps = self._steps_before = 0
        self._start = 0.0
        self._elapsed = 0.0
        self._trained: float | None = None
        self.rows: list[Figures] = []

    def on_epoch_begin(self, epoch: int, logs: Figures | None = None) -> None:
        self._start = time.perf_counter() - self._elapsed

    def on_train_batch_end(self, batch: int, logs: Figures | None = None) -> None:
        self._steps += 1

    def on_test_begin(self, logs: Figures | None = None) -> None:
        self._trained = self._trained or time.perf_counter() - self._start

    def on_epoch_end(self, epoch: int, logs: Figures | None = None) -> None:
        seconds = time.perf_counter() - self._start
        images = min(self._examples, (self._steps - self._steps_before) * self._batch_size)
        row = {
            **(logs or {}),
            "epoch": epoch + 1,
            "step": self._steps,
            "learning_rate": float(self.model.optimizer.learning_rate),
            "seconds": round(seconds, 3),
            "images_per_second": round(images / (self._trained or seconds), 1),
        }
        self.rows.append({key: row[key] for key in HISTORY_COLUMNS if key in row})
        self._steps_before = self._steps
        self._start, self._elapsed, self._trained = time.perf_counter(), 0.0, None
        self._write()

    def state(self) -> Any:
        elapsed = time.perf_counter() - self._start
        return {
            "rows": self.rows,
            "elapsed": elapsed,
            "trained": self._trained,
            "steps": [self._steps, self._steps_before],
        }

    def restore(self, state: Any, arrays: list[NDArray[Any]]) -> None:
        self.rows, self._elapsed, self._trained = state["rows"], state["elapsed"], state["trained"]
        self._steps, self._steps_before = state["steps"]
        self._write()

    def _write(self) -> None:
        text = io.StringIO()
        columns = [key for key in HISTORY_COLUMNS if not self.rows or key in self.rows[0]]
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self._path, text.getvalue())


class WeightAverage(Stateful):
    """A moving average of all weights, which is what is validated, selected and exported.

    After each step, `average <- d * average + (1 - d) * weight` with `d = min(decay, (1 + step) /
    (10 + step))`, so that a short training is not held back by where it began. The moving
    statistics of batch normalization are averaged likewise: they belong to the averaged kernels and
    not to the last ones.

    Source: Polyak and Juditsky 1992; the growing decay is that of TensorFlow's
    ExponentialMovingAverage.

    Args:
        model: the one that is trained.

    Attributes:
        model_of_averages: a model of its own, whose weights are the averages.
    """

    def __init__(self, model: keras.Model, decay: float) -> None:
        super().__init__()
        self._decay = decay
        self.model_of_averages = keras.models.clone_model(model)
        self.model_of_averages.set_weights(model.get_weights())
        pairs = list(zip(self.model_of_averages.weights, model.weights, strict=True))

        @tf.function
        def update(keep: tf.Tensor) -> None:
            for average, weight in pairs:
                average.assign(keep * average + (1 - keep) * weight)

        self._update = update

    def on_train_batch_end(self, batch: int, logs: Figures | None = None) -> None:
        step = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
        self._update(tf.constant(min(self._decay, (1 + step) / (10 + step)), tf.float32))

    def state(self) -> Any:
        return None

    def arrays(self) -> list[NDArray[Any]]:
        return [np.array(weight) for weight in self.model_of_averages.get_weights()]

    def restore(self, state: Any, arrays: list[NDArray[Any]]) -> None:
        self.model_of_averages.set_weights(arrays)


class Best(Stateful):
    """Keeps the weights of the best epoch, and stops when for too long none was better.

    Args:
        monitor: key of the epoch's figures.
        mode: whether more of it is better, or less.
        patience: epochs without a better one after which the training stops; None never stops it.

    Attributes:
        judged: the model whose weights they are.
        epoch: the best one, counted from 0; -1 before the first.
        value: its figure; nan before the first.
    """

    judged: keras.Model

    def __init__(self, monitor: str, mode: Literal["max", "min"], patience: int | None) -> None:
        super().__init__()
        self._monitor, self._sign, self._patience = monitor, 1 if mode == "max" else -1, patience
        self.epoch = -1
        self.value = math.nan
        self._waited = 0
        self._weights: list[NDArray[Any]] = []

    def on_train_begin(self, logs: Figures | None = None) -> None:
        self._waited = 0

    def on_epoch_end(self, epoch: int, logs: Figures | None = None) -> None:
        value = (logs or {})[self._monitor]
        self._waited += 1
        if math.isnan(self.value) or self._sign * value > self._sign * self.value:
            self.epoch, self.value, self._waited = epoch, value, 0
            self._weights = [np.array(weight) for weight in self.judged.get_weights()]
        elif self._waited == self._patience:
            self.model.stop_training = True

    def take(self, model: keras.Model) -> None:
        """Give a model the weights of the best epoch."""
        model.set_weights(self._weights)

    def state(self) -> Any:
        return {"epoch": self.epoch, "value": self.value, "waited": self._waited}

    def arrays(self) -> list[NDArray[Any]]:
        return self._weights

    def restore(self, state: Any, arrays: list[NDArray[Any]]) -> None:
        self.epoch, self.value, self._weights = state["epoch"], state["value"], arrays
        self._waited = state["waited"]


class TensorBoardLogs(Stateful):
    """Loss, accuracy and learning rate by epoch, for `tensorboard --logdir`.

    A training that goes on cuts its files off where they were, so that no epoch is in them twice.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._writers: dict[str, tf.summary.SummaryWriter] = {}

    def on_train_begin(self, logs: Figures | None = None) -> None:
        self._writers = {}

    def on_epoch_end(self, epoch: int, logs: Figures | None = None) -> None:
        try:
            self._write(epoch, logs or {})
        except tf.errors.OpError as error:
            raise OSError(f"{self._folder}: {error.message}") from error

    def on_train_end(self, logs: Figures | None = None) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def state(self) -> Any:
        return {str(file.relative_to(self._folder)): file.stat().st_size for file in self._files()}

    def restore(self, state: Any, arrays: list[NDArray[Any]]) -> None:
        for file in self._files():
            size = state.get(str(file.relative_to(self._folder)))
            if size is None:
                remove(file)
            elif file.stat().st_size > size:
                with open(file, "r+b") as stream:
                    stream.truncate(size)

    def _files(self) -> list[Path]:
        return [file for file in sorted(self._folder.rglob("*")) if file.is_file()]

    def _write(self, epoch: int, figures: Figures) -> None:
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        for split, prefix, more in (
            ("train", "", {"learning_rate": rate}),
            ("validation", "val_", {}),
        ):
            if split not in self._writers:
                self._writers[split] = tf.summary.create_file_writer(str(self._folder / split))
            with self._writers[split].as_default(step=epoch + 1):
                for name in ("loss", "accuracy"):
                    if prefix + name in figures:
                        tf.summary.scalar(name, figures[prefix + name])
                for name, value in more.items():
                    tf.summary.scalar(name, value)
            self._writers[split].flush()
