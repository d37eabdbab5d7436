"""Callbacks that keep something between steps can hand it over and take it back, so that a training
that goes on after a kill knows all that it knew.
"""

from abc import ABC, abstractmethod
from typing import Any

import keras
from numpy.typing import NDArray

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
