"""A moving average of all weights."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipeline.training.callbacks.stateful import Figures, Stateful


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
