"""How a model's answers become probabilities: in its graph, and for the reference."""

from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray


@dataclass(frozen=True)
class Head:
    """What belongs behind a model.

    Attributes:
        outputs: what the model gives: "logits", "probabilities" or "sigmoid".
        is_pair: the model has one output, the probability (or logit) of the second of two labels.
    """

    outputs: str
    is_pair: bool = False

    @property
    def task(self) -> str:
        """As in the bundle's document."""
        return "multi-label" if self.outputs == "sigmoid" and not self.is_pair else "single-label"

    def in_graph(self, answers: tf.Tensor) -> tf.Tensor:
        """float32 `[batch, outputs]` to `[batch, labels]`."""
        if self.is_pair:
            second = tf.nn.sigmoid(answers) if self.outputs == "logits" else answers
            return tf.concat([1.0 - second, second], axis=1)
        return tf.nn.softmax(answers) if self.outputs == "logits" else answers

    def in_keras(self, answers: NDArray[np.float32]) -> NDArray[np.float32]:
        """The same, by Keras: what the reference is made of."""
        if self.is_pair:
            second = keras.ops.sigmoid(answers) if self.outputs == "logits" else answers
            second = keras.ops.convert_to_numpy(second)
            return np.concatenate([1 - second, second], axis=1).astype(np.float32)
        if self.outputs != "logits":
            return answers
        return keras.ops.convert_to_numpy(keras.ops.softmax(answers))  # type: ignore[no-any-return]
