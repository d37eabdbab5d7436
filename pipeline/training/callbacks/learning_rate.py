"""Callbacks that set the learning rate."""

import math
import statistics
from collections.abc import Sequence
from typing import Any, Literal

import keras
from numpy.typing import NDArray

from pipeline.training.callbacks.stateful import Figures, Stateful
from pipeline.training.schedules import Schedule, cosine_annealing


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
        ends: epochs after which the cycles end, counted from the first that this callback sees.
        factor: what the bounds are multiplied by after a cycle that was worse.

    Attributes:
        decisions: one for each cycle that is over: the epoch it ended with (counted from 1), its
            mean loss and accuracy, whether it lowered the bounds and why, and the bounds from then
            on.
    """

    def __init__(
        self, *, highest: float, lowest: float, ends: Sequence[int], factor: float
    ) -> None:
        super().__init__()
        self._highest, self._lowest = highest, lowest
        self._ends, self._factor = ends, factor
        self._epochs: list[Figures] = []
        self.decisions: list[dict[str, Any]] = []

    def on_epoch_begin(self, epoch: int, logs: Figures | None = None) -> None:
        scale = self._factor ** self._times_lowered()
        self.model.optimizer.learning_rate = cosine_annealing(
            self._epochs_done(),
            highest=self._highest * scale,
            lowest=self._lowest * scale,
            ends=self._ends,
        )

    def on_epoch_end(self, epoch: int, logs: Figures | None = None) -> None:
        self._epochs.append({name: (logs or {})[name] for name in ("loss", "accuracy")})
        if self._epochs_done() in self._ends:
            self._judge(epoch + 1)
            self._epochs = []

    def state(self) -> Any:
        return {"epochs": self._epochs, "decisions": self.decisions}

    def restore(self, state: Any, arrays: list[NDArray[Any]]) -> None:
        self._epochs, self.decisions = state["epochs"], state["decisions"]

    def _epochs_done(self) -> int:
        cycles = len(self.decisions)
        return (self._ends[cycles - 1] if cycles else 0) + len(self._epochs)

    def _times_lowered(self) -> int:
        return sum(cycle["lowered"] for cycle in self.decisions)

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
        scale = self._factor ** (self._times_lowered() + bool(reason))
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
        decisions: one for each time it fell: the epoch after which (counted from 1), that it was
            lowered, the figure of the best epoch so far, and the rate from then on.
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
                    "lowered": True,
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
