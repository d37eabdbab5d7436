"""When a training ends before its last epoch."""

import time
from typing import Any

from numpy.typing import NDArray

from pipeline.training.callbacks.stateful import Figures, Stateful


class StopRules(Stateful):
    """Ends a training whose time is over, whose loss is low enough, or that no longer moves.

    When the time is over, the epoch under way is cut short; it is validated like any other. What
    depends on the clock is not the same in two runs.

    Args:
        minutes: of training and validation, those before a kill included.
        loss: the training loss below which an epoch is the last one.
        change: share of the loss of the epoch before; an epoch that changes less is the last one.

    Attributes:
        reason: why the training ended, once it has; None before.
    """

    def __init__(self, minutes: float | None, loss: float | None, change: float | None) -> None:
        super().__init__()
        self._minutes, self._loss, self._change = minutes, loss, change
        self._before, self._since = 0.0, time.monotonic()
        self._last_loss: float | None = None
        self.reason: str | None = None

    def on_train_batch_end(self, batch: int, logs: Figures | None = None) -> None:
        if self._minutes and self._seconds() >= 60 * self._minutes:
            self._stop(f"{self._minutes:g} minutes are over")

    def on_epoch_end(self, epoch: int, logs: Figures | None = None) -> None:
        loss, last = (logs or {})["loss"], self._last_loss
        self._last_loss = loss
        if self._loss and loss < self._loss:
            self._stop(f"the training loss {loss:.4g} is below {self._loss:g}")
        elif self._change and last and abs(loss - last) < self._change * abs(last):
            share = abs(loss - last) / abs(last)
            self._stop(f"the training loss changed by {share:.2g} of itself in epoch {epoch + 1}")
        elif self.reason:  # found before a kill
            self.model.stop_training = True

    def state(self) -> Any:
        return {"seconds": self._seconds(), "last_loss": self._last_loss, "reason": self.reason}

    def restore(self, state: Any, arrays: list[NDArray[Any]]) -> None:
        self._before, self._since = state["seconds"], time.monotonic()
        self._last_loss, self.reason = state["last_loss"], state["reason"]

    def _seconds(self) -> float:
        return self._before + time.monotonic() - self._since

    def _stop(self, reason: str) -> None:
        self.reason = reason
        self.model.stop_training = True
