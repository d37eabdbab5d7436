"""The best epoch."""

import math
from typing import Any, Literal

import keras
import numpy as np
from numpy.typing import NDArray

from pipeline.options.training import TIES
from pipeline.training.callbacks.stateful import Figures, Stateful


class Best(Stateful):
    """Keeps the weights of the best epoch, and stops when for too long none was better.

    Of epochs with the same accuracy, that with the lower loss on the same images is better.

    Args:
        monitor: key of the epoch's figures.
        mode: whether more of it is better, or less.
        patience: epochs without a better one after which the training stops; None never stops it.

    Attributes:
        judged: the model whose weights they are.
        epoch: the best one, counted from 0; -1 before the first.
        value: its figure; nan before the first.
        tie_breaker: its loss, where the figure is an accuracy; else, and before the first, nan.
    """

    judged: keras.Model

    def __init__(self, monitor: str, mode: Literal["max", "min"], patience: int | None) -> None:
        super().__init__()
        self._monitor, self._sign, self._patience = monitor, 1 if mode == "max" else -1, patience
        self.epoch = -1
        self.value = self.tie_breaker = math.nan
        self._waited = 0
        self._weights: list[NDArray[Any]] = []

    def on_train_begin(self, logs: Figures | None = None) -> None:
        self._waited = 0

    def on_epoch_end(self, epoch: int, logs: Figures | None = None) -> None:
        value = (logs or {})[self._monitor]
        tie_breaker = (logs or {}).get(TIES.get(self._monitor, ""), math.nan)
        self._waited += 1
        if self._is_better(value, tie_breaker):
            self.epoch, self.value, self.tie_breaker, self._waited = epoch, value, tie_breaker, 0
            self._weights = [np.array(weight) for weight in self.judged.get_weights()]
        elif self._waited == self._patience:
            self.model.stop_training = True

    def _is_better(self, value: float, tie_breaker: float) -> bool:
        if math.isnan(self.value):
            return True
        if value == self.value:
            return tie_breaker < self.tie_breaker
        return self._sign * value > self._sign * self.value

    def take(self, model: keras.Model) -> None:
        """Give a model the weights of the best epoch."""
        model.set_weights(self._weights)

    def state(self) -> Any:
        return {
            "epoch": self.epoch,
            "value": self.value,
            "tie_breaker": self.tie_breaker,
            "waited": self._waited,
        }

    def arrays(self) -> list[NDArray[Any]]:
        return self._weights

    def restore(self, state: Any, arrays: list[NDArray[Any]]) -> None:
        self.epoch, self.value, self._weights = state["epoch"], state["value"], arrays
        self.tie_breaker = state["tie_breaker"]
        self._waited = state["waited"]
