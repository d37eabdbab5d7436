"""Keras architectures: functions of (image shape, classes, options) that return logits.

`build(options, ...)` picks the architecture by `options.name` and puts the normalization in front,
so that every model takes raw uint8 pixels and no caller can normalize differently.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from models.keras_settings import isolate_keras
from models.options import ModelOptions, PretrainedOptions

if TYPE_CHECKING:
    import keras

__all__ = ["build", "normalization"]

isolate_keras()  # before any file of this package imports it


def normalization(
    options: ModelOptions, mean: Sequence[float], std: Sequence[float]
) -> tuple[Sequence[float], Sequence[float]]:
    """What `build` subtracts and divides by, for each channel, in units of pixel / 255.

    The statistics of the training split, or for a model that has a preprocessing of its own, what
    leaves pixels from 0 to 255 as they are.
    """
    if isinstance(options, PretrainedOptions):
        return [0.0] * len(mean), [1 / 255] * len(std)
    return mean, std


def build(
    options: ModelOptions,
    image_shape: tuple[int, int, int],
    classes: int,
    *,
    mean: Sequence[float],
    std: Sequence[float],
) -> keras.Model:
    """A Keras model from uint8 `[batch, height, width, channels]` to logits `[batch, classes]`.

    The architecture lives in `models/NAME.py` (dashes as underscores) as `build_core`. Weights are
    drawn from Keras's global seed.

    Args:
        mean, std: per-channel statistics of the training split, in units of pixel / 255.

    Raises:
        ValueError: the images do not fit the options, these contradict each other, the weights that
            they name cannot be had, or there are fewer than two classes.
    """
    import keras

    if classes < 2:
        raise ValueError(f"expected at least 2 classes, got {classes}")
    mean, std = normalization(options, mean, std)
    architecture = importlib.import_module(f"models.{options.name.replace('-', '_')}")
    core = architecture.build_core(image_shape, classes, options)
    image = keras.Input(image_shape, dtype="uint8", name="image")
    normalized = keras.layers.Rescaling(
        scale=[1 / (255 * value) for value in std],
        offset=[-m / s for m, s in zip(mean, std, strict=True)],
        name="normalize",
    )(image)
    return keras.Model(image, core(normalized), name=options.name.replace("-", "_"))
