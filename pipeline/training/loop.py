"""The training loop: every step once and in order, in one process or in several.

`keras.Model.fit` begins every epoch anew, and its callbacks with it. This loop calls the same
compiled step and the same callbacks, but it can begin after any step of any epoch, with all that
was known there.
"""

import math
import sys
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

Step = Callable[[Iterator[Any]], dict[str, Any]]
"""Takes what it needs from the batches and returns the figures of the epoch so far."""


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        batches: from the first step wanted, counted over all epochs, to the batches from there on.
        validation: the batches that every epoch ends with.
        epochs: the first one to train, counted from 0, and the one before which the training ends.
        most_steps: counted over all epochs; the last epoch ends with them. None sets no limit.
        name: what it is called where one training follows another.
    """

    batches: Callable[[int], tf.data.Dataset]
    validation: tf.data.Dataset
    epochs: tuple[int, int]
    steps_per_epoch: int
    most_steps: int | None = None
    name: str = ""

    @property
    def steps(self) -> int:
        """Steps in all its epochs."""
        first, end = self.epochs
        return min((end - first) * self.steps_per_epoch, self._left(first))

    def steps_in(self, epoch: int) -> int:
        """Steps of one epoch."""
        return min(self.steps_per_epoch, self._left(epoch))

    def _left(self, epoch: int) -> int:
        if self.most_steps is None:
            return sys.maxsize
        return max(0, self.most_steps - epoch * self.steps_per_epoch)


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
    """The loss, or a weight, is no number any more.

    Args:
        what: which of them, as a sentence.
        learning_rate: that of the step.
    """

    def __init__(self, what: str, learning_rate: float) -> None:
        super().__init__(f"{what}, at a learning rate of {learning_rate:.3g}")


class Training:
    """A training that can be left after any step.

    Args:
        model: compiled and built, with an optimizer that is built too, and metrics used once.
        callbacks: the stateful ones among them are part of the state.
        judged: the model that is validated, compiled likewise; None for the one that is trained.
        step: takes the next batch and trains on it; None is that of Keras.
        verbose: as in `keras.Model.fit`.

    Attributes:
        plan: what is to be done.
        position: how far it is.
    """

    def __init__(
        self,
        model: keras.Model,
        plan: Plan,
        callbacks: Sequence[keras.callbacks.Callback],
        *,
        judged: keras.Model | None = None,
        step: Step | None = None,
        verbose: int = 0,
    ) -> None:
        self.plan, self.position = plan, Position(plan.epochs[0])
        self._model, self._judged, self._step = model, judged or model, step
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
            epochs=plan.epochs[1],
            steps=plan.steps_per_epoch,
        )
        model.stop_training = False
        self._callbacks.on_train_begin()

    def state(self) -> State:
        """All that the steps to come depend on.

        Raises:
            NotFiniteError: a weight is no number any more: nothing could come of such a state.
        """
        arrays = {
            f"{group}/{number:05}": np.asarray(variable)
            for group, variables in self._variables().items()
            for number, variable in enumerate(variables)
        }
        if not all(np.isfinite(weight).all() for weight in self._model.get_weights()):
            raise NotFiniteError("the weights are no longer finite numbers", self._learning_rate())
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
            NotFiniteError: the loss, or a weight, is no number any more.
        """
        position, plan = self.position, self.plan
        self._validated.call = between
        self._model.make_train_function()
        step = self._step or self._model.train_function
        batches = iter(plan.batches(position.epoch * plan.steps_per_epoch + position.step))
        while not position.finished:
            self._callbacks.on_epoch_begin(position.epoch)
            if position.figures is None:
                self._train_epoch(step, batches, between)
            figures = self._judged.evaluate(
                plan.validation, callbacks=self._callbacks, verbose=0, return_dict=True
            )
            self._check(figures["loss"])
            figures = {f"val_{name}": float(value) for name, value in figures.items()}
            self._callbacks.on_epoch_end(position.epoch, {**(position.figures or {}), **figures})
            position.epoch, position.step, position.figures = position.epoch + 1, 0, None
            position.finished = self._model.stop_training or not self._is_more()
            between()
        self._callbacks.on_train_end()

    def _is_more(self) -> bool:
        epoch = self.position.epoch
        return epoch < self.plan.epochs[1] and self.plan.steps_in(epoch) > 0

    def _train_epoch(self, step: Step, batches: Iterator[Any], between: Callable[[], None]) -> None:
        position, model = self.position, self._model
        steps = self.plan.steps_in(position.epoch)
        if position.step == 0:
            model.reset_metrics()
        while position.step < steps and not model.stop_training:
            self._callbacks.on_train_batch_begin(position.step)
            logs = step(batches)
            position.step += 1
            self._callbacks.on_train_batch_end(position.step - 1, logs)
            self._check(logs["loss"])
            if position.step < steps:
                between()
        results = model.get_metrics_result()
        position.figures = {name: float(value) for name, value in results.items()}
        between()

    def _check(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise NotFiniteError("the loss is no longer a finite number", self._learning_rate())

    def _learning_rate(self) -> float:
        return float(self._model.optimizer.learning_rate)

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
