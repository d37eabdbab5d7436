"""A small, wide network that learns within few epochs.

Source: the shape of the network in Keller Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single
GPU", 2024 (airbench94). Left out: that its first convolution whitens patches of the training images
(a model here is built from shapes and options alone), that further convolutions begin as the
identity, and its training recipe.
"""

import keras
from keras import layers

from models.checks import check_fast_size
from models.kernels import kernel
from models.options import FastOptions

STEM_FILTERS = 24


def build_core(
    image_shape: tuple[int, int, int], classes: int, options: FastOptions
) -> keras.Model:
    """Normalized float images `[batch, *image_shape]` to logits `[batch, classes]`.

    Raises:
        ValueError: the images are too small for as many poolings as `widths` has stages.
    """
    padding = _padding_of_pools(image_shape, options)

    def normalized(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        x = layers.BatchNormalization(
            scale=False, momentum=options.batch_normalization_momentum, name=f"{name}_norm"
        )(x)
        return layers.Activation("gelu", name=f"{name}_gelu")(x)

    def convolution(x: keras.KerasTensor, filters: int, name: str) -> keras.KerasTensor:
        return layers.Conv2D(
            filters, 3, padding="same", use_bias=False, name=name, **kernel(options)
        )(x)

    x = inputs = keras.Input(image_shape, name="normalized")
    x = layers.Conv2D(STEM_FILTERS, 2, name="stem", **kernel(options))(x)
    x = layers.Activation("gelu", name="stem_gelu")(x)
    for stage, width in enumerate(options.widths, 1):
        x = convolution(x, width, f"stage{stage}_conv1")
        x = layers.MaxPooling2D(2, padding=padding, name=f"stage{stage}_pool")(x)
        x = normalized(x, f"stage{stage}_conv1")
        x = convolution(x, width, f"stage{stage}_conv2")
        x = normalized(x, f"stage{stage}_conv2")
    x = layers.GlobalMaxPooling2D(name="global_max")(x)
    x = layers.Dense(classes, use_bias=False, name="logits", **kernel(options))(x)
    scaled = layers.Rescaling(options.scaling_factor, name="scaled_logits")(x)
    return keras.Model(inputs, scaled, name="core")


def _padding_of_pools(image_shape: tuple[int, int, int], options: FastOptions) -> str:
    """Whether a pooling drops an odd last row, as in the source; on small images it must not."""
    check_fast_size(image_shape[:2], options)
    side = min(image_shape[:2]) - 1  # behind the stem
    return "valid" if side >= 2 ** len(options.widths) else "same"
