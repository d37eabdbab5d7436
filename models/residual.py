"""What residual networks of three stages share, after He et al. 2015, section 4.2."""

from collections.abc import Callable

import keras
from keras import layers

from models.checks import blocks as blocks_of
from models.kernels import kernel
from models.options import ResidualOptions

Block = Callable[[keras.KerasTensor, int, int, float, str], keras.KerasTensor]
"""A block, by input, filters, stride, share of images that skip it, and name."""


def stages(
    x: keras.KerasTensor, options: ResidualOptions, *, width: int, block: Block
) -> keras.KerasTensor:
    """Three stages of n blocks, by the depth.

    The second and the third halve the sides of the feature maps and double the filters. The share
    of images that skip a block rises from one to the next, up to `options.stochastic_depth`.

    Args:
        width: filters of the first stage.

    Raises:
        ValueError: the depth is none of such a network.
    """
    blocks = blocks_of(options)
    for stage in (1, 2, 3):
        for number in range(1, blocks + 1):
            stride = 2 if stage > 1 and number == 1 else 1
            skipped = options.stochastic_depth * ((stage - 1) * blocks + number) / (3 * blocks)
            name = f"stage{stage}_block{number}"
            x = block(x, width * 2 ** (stage - 1), stride, skipped, name)
    return x


def convolution(
    x: keras.KerasTensor,
    filters: int,
    stride: int,
    options: ResidualOptions,
    name: str,
    *,
    side: int = 3,
) -> keras.KerasTensor:
    """A convolution without a bias: batch normalization, before or behind it, has one."""
    return layers.Conv2D(
        filters,
        side,
        strides=stride,
        padding="same",
        use_bias=False,
        name=name,
        **kernel(options),
    )(x)


def batch_normalization(
    x: keras.KerasTensor, options: ResidualOptions, name: str
) -> keras.KerasTensor:
    """With the momentum of the options."""
    return layers.BatchNormalization(momentum=options.batch_normalization_momentum, name=name)(x)


def add(
    x: keras.KerasTensor, shortcut: keras.KerasTensor, skipped: float, name: str
) -> keras.KerasTensor:
    """`x + shortcut`, without `x` for a share of the images in training (Huang et al. 2016)."""
    if skipped:
        # One draw for each image; the others are scaled up, so that nothing changes at rest.
        x = layers.Dropout(skipped, noise_shape=(None, 1, 1, 1), name=f"{name}_depth")(x)
    return layers.Add(name=f"{name}_add")([x, shortcut])
