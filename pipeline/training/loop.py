"""The training loop: every step once and in order, in one process or in several.

`keras.Model.fit` begins every epoch anew, and its callbacks with it. This loop calls the same
compiled step and the same callbacks, but it can begin after any step of any epoch, with all that
was known there.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipeline.training.callbacks import Figures, Stateful
from pipeline.training.state_file import State, StateError


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        batches: from the first step wanted, counted over all epochs, to the batches from there on.
        validation: the batches that every epoch ends with.
    """

    batches: Callable[[int], tf.data.Dataset]
    validation: tf.data.Dataset
    epochs: int
    steps_per_epoch: int


@dataclass
class Position:
    """How far a training is.

    Attributes:
        epoch: the one under way, counted from 0.
        step: steps done in it.
        figures: of its training, once all its steps are done.
        finished: there is nothing left to do.
    """

    epoch: int = 0
    step: int = 0
    figures: Figures | None = None
    finished: bool = False


class NotFiniteError(Exception):
    """The loss is no number any more.

    Attributes:
        learning_rate: that of the step.
    """

    def __init__(self, learning_rate: float) -> None:
        super().__init__(f"the loss is not finite, at a learning rate of {learning_rate:.3g}")
        self.learning_rate = learning_rate


class Training:
    """A training that can be left after any step.

    Args:
        model: compiled and built, with an optimizer that is built too, and metrics used once.
        callbacks: the stateful ones among them are part of the state.
        judged: the model that is validated, compiled likewise; None for the one that is trained.
        verbose: as in `keras.Model.fit`.

    Attributes:
        position: how far it is.
    """

    def __init__(
        self,
        model: keras.Model,
        plan: Plan,
        callbacks: Sequence[keras.callbacks.Callback],
        judged: keras.Model | None = None,
        verbose: int = 0,
    ) -> None:
        self.position = Position()
        self._model, self._plan, self._judged = model, plan, judged or model
        self._stateful = {
            type(callback).__name__: callback
            for callback in callbacks
            if isinstance(callback, Stateful)
        }
        self._validated = _AfterValidationBatch()
        self._callbacks = keras.callbacks.CallbackList(
            [*callbacks, self._validated],
            model=model,
            add_progbar=verbose != 0,
            verbose=verbose,
            epochs=plan.epochs,
            steps=plan.steps_per_epoch,
        )
        model.stop_training = False
        self._callbacks.on_train_begin()

    def state(self) -> State:
        """All that the steps to come depend on."""
        arrays = {
            f"{group}/{number:05}": np.asarray(variable)
            for group, variables in self._variables().items()
            for number, variable in enumerate(variables)
        }
        for name, callback in self._stateful.items():
            for number, array in enumerate(callback.arrays()):
                arrays[f"{name}/{number:05}"] = array
        document = {
            "position": asdict(self.position),
            "callbacks": {name: callback.state() for name, callback in self._stateful.items()},
        }
        return State(arrays, document)

    def restore(self, state: State) -> None:
        """Go on from a state.

        Raises:
            StateError: it is that of another model.
        """
        groups: dict[str, list[NDArray[Any]]] = defaultdict(list)
        for name in sorted(state.arrays):
            groups[name.partition("/")[0]].append(state.arrays[name])
        for name, variables in self._variables().items():
            if [array.shape for array in groups[name]] != [tuple(v.shape) for v in variables]:
                raise StateError(f"expected the state of this model, got other shapes of {name}")
            for variable, array in zip(variables, groups[name], strict=True):
                variable.assign(array)
        for name, callback in self._stateful.items():
            callback.restore(state.document["callbacks"][name], groups[name])
        self.position = Position(**state.document["position"])

    def run(self, between: Callable[[], None]) -> None:
        """Train to the end.

        Args:
            between: called after every step, every batch of validation and every epoch, when the
                state may be taken. What it raises ends the loop.

        Raises:
            NotFiniteError: the loss is no number any more.
        """
        position, plan = self.position, self._plan
        self._validated.call = between
        self._model.make_train_function()
        batches = iter(plan.batches(position.epoch * plan.steps_per_epoch + position.step))
        while not position.finished:
            self._callbacks.on_epoch_begin(position.epoch)
            if position.figures is None:
                self._train_epoch(batches, between)
            figures = self._judged.evaluate(
                plan.validation, callbacks=self._callbacks, verbose=0, return_dict=True
            )
            figures = {f"val_{name}": float(value) for name, value in figures.items()}
            self._callbacks.on_epoch_end(position.epoch, {**(position.figures or {}), **figures})
            position.epoch, position.step, position.figures = position.epoch + 1, 0, None
            position.finished = self._model.stop_training or position.epoch == plan.epochs
            between()
        self._callbacks.on_train_end()

    def _train_epoch(self, batches: Iterator[Any], between: Callable[[], None]) -> None:
        position, model = self.position, self._model
        if position.step == 0:
            model.reset_metrics()
        while position.step < self._plan.steps_per_epoch:
            self._callbacks.on_train_batch_begin(position.step)
            logs = model.train_function(batches)
            self._callbacks.on_train_batch_end(position.step, logs)
            position.step += 1
            if not math.isfinite(logs["loss"]):
                raise NotFiniteError(float(model.optimizer.learning_rate))
            if position.step < self._plan.steps_per_epoch:
                between()
        results = model.get_metrics_result()
        position.figures = {name: float(value) for name, value in results.items()}
        between()

    def _variables(self) -> dict[str, list[keras.Variable]]:
        model = self._model
        return {
            "model": model.variables,
            "optimizer": model.optimizer.variables,
            "metrics": model.metrics_variables,
        }


class _AfterValidationBatch(keras.callbacks.Callback):
    """Lets a long validation be stopped, too."""

    call: Callable[[], None]

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.call()
