"""history.csv, the training by epoch."""

import csv
import io
import time
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pipeline.history import HISTORY_COLUMNS
from pipeline.training.callbacks.stateful import Figures, Stateful
from serve.atomic import write_text


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
