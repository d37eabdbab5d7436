"""Models that tell three colours apart, made to be misunderstood."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

LABELS = ("blue", "green", "red")
SIDE = 20

Tensors = Callable[[keras.KerasTensor], Any]


def colours(
    end: Tensors = lambda x: x,
    *,
    activation: str | None = "softmax",
    before: Tensors | None = None,
    inputs: keras.KerasTensor | None = None,
    outputs: int = 3,
) -> keras.Model:
    """A model that knows red from blue, of pixels from 0 to 1 before its convolution.

    Args:
        end: what is behind its head.
        before: makes numbers of the pixels; left out, they are divided by 255.
        outputs: 3, or 1 for a model that says how red an image is.
    """
    keras.utils.set_random_seed(1)
    inputs = keras.Input((SIDE, SIDE, 3)) if inputs is None else inputs
    x = (before or layers.Rescaling(1 / 255))(inputs)
    x = layers.Conv2D(3, 1, use_bias=False, name="eye")(x)
    head = layers.Dense(outputs, activation=activation, name="head")
    model = keras.Model(inputs, end(head(layers.GlobalAveragePooling2D()(x))))
    model.get_layer("eye").set_weights([np.eye(3, dtype=np.float32)[None, None]])
    kernel = 16 * np.fliplr(np.eye(3)).astype(np.float32)[:, -outputs:]  # red is the last label
    head.set_weights([kernel, np.full(outputs, -8.5, np.float32)])
    return model
