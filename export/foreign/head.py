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
        outputs: what the model gives: "logits", "probabilities" or "sigmoid" (each label for
            itself).
        activation: what makes them probabilities: "softmax", "sigmoid", or "" for nothing.
        is_pair: the model has one output, about the second of two labels.
    """

    outputs: str
    activation: str = ""
    is_pair: bool = False

    @property
    def task(self) -> str:
        """As in the bundle's document."""
        return "multi-label" if self.outputs == "sigmoid" and not self.is_pair else "single-label"

    def in_graph(self, answers: tf.Tensor) -> tf.Tensor:
        """float32 `[batch, outputs]` to probabilities `[batch, labels]`."""
        if self.activation:
            answers = {"softmax": tf.nn.softmax, "sigmoid": tf.nn.sigmoid}[self.activation](answers)
        return tf.concat([1.0 - answers, answers], axis=1) if self.is_pair else answers

    def in_keras(self, answers: NDArray[np.float32]) -> NDArray[np.float32]:
        """The same, by Keras: what the reference is made of."""
        if self.activation:
            activate = {"softmax": keras.ops.softmax, "sigmoid": keras.ops.sigmoid}[self.activation]
            answers = keras.ops.convert_to_numpy(activate(answers))
        return np.concatenate([1 - answers, answers], axis=1) if self.is_pair else answers


def logits_of(outputs: int) -> Head:
    """The head of a model that gives logits: of one choice of several, or of two labels."""
    return Head("logits", "sigmoid", is_pair=True) if outputs == 1 else Head("logits", "softmax")
