"""One level of the two-dimensional discrete wavelet transform with Haar's wavelet, as a layer."""

import keras
import numpy as np

FILTERS = np.array([
    [[1, 1], [1, 1]],
    [[1, 1], [-1, -1]],
    [[1, -1], [1, -1]],
    [[1, -1], [-1, 1]],
]) / 2  # fmt: skip
"""Approximation, then horizontal, vertical and diagonal detail (Mallat 1989); orthonormal."""


def haar(name: str) -> keras.layers.Layer:
    """A layer `[batch, height, width, c]` -> `[batch, height / 2, width / 2, 4c]`, never trained.

    The sides are even. The four results of a channel stand beside each other, in the order of
    `pywt.dwt2(channel, "haar")`, whose values they have.
    """
    kernels = FILTERS.transpose(1, 2, 0)[:, :, None, :]  # row, column, channel, filter
    return keras.layers.DepthwiseConv2D(
        2,
        strides=2,
        depth_multiplier=len(FILTERS),
        use_bias=False,
        depthwise_initializer=keras.initializers.Constant(kernels.astype(np.float32)),
        trainable=False,
        name=name,
    )
