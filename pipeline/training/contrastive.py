"""Supervised contrastive learning: features first, the classifier later.

Source: Khosla et al., "Supervised Contrastive Learning", 2020.
"""

from typing import Any

import keras
from keras import layers, ops


def contrastive_model(model: keras.Model, units: int) -> keras.Model:
    """From images to points on a sphere, `[batch, units]`, by the layers below the logits.

    They are the classifier's own: what is learned here, it has. Upon them come a dense layer with
    ReLU and the projection, both of which are for this alone.
    """
    core = model.get_layer("core")
    features = keras.Model(core.input, core.get_layer("logits").input, name="features")
    x = features(model.get_layer("normalize").output)
    x = layers.Dense(x.shape[-1], activation="relu", name="projection1")(x)
    x = layers.Dense(units, name="projection2")(x)
    return keras.Model(model.input, layers.UnitNormalization(name="sphere")(x), name="contrastive")


class SupervisedContrastive(keras.losses.Loss):
    """Of each image: how far it is from the others of its class, among all others.

    `-mean over p in P(i) of log(exp(z_i z_p / t) / sum over a != i of exp(z_i z_a / t))`, equation
    2 of the source, where P(i) are the other images of i's class; 0 where there are none.

    Args:
        temperature: t.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self._temperature = temperature

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """One-hot targets `[batch, classes]` and unit vectors `[batch, units]` to `[batch]`."""
        others = 1 - ops.eye(ops.shape(y_pred)[0], dtype="float32")
        positives = others * ops.matmul(y_true, ops.transpose(y_true))
        similarities = ops.matmul(y_pred, ops.transpose(y_pred)) / self._temperature
        # An image is not compared with itself: far below all others, it has no part in the sum.
        compared = similarities - 1e9 * (1 - others)
        logs = similarities - ops.logsumexp(compared, axis=1, keepdims=True)
        count = ops.sum(positives, axis=1)
        return -ops.sum(positives * logs, axis=1) / ops.maximum(count, 1)
