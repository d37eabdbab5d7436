"""How the kernels of a layer begin, and what keeps them small."""

from typing import Any

import keras

from models.options import KernelOptions

VARIANCE_SCALING = {
    "glorot_normal": (1.0, "fan_avg", "truncated_normal"),
    "glorot_uniform": (1.0, "fan_avg", "uniform"),
    "he_normal": (2.0, "fan_in", "truncated_normal"),
    "he_uniform": (2.0, "fan_in", "uniform"),
    "lecun_normal": (1.0, "fan_in", "truncated_normal"),
    "lecun_uniform": (1.0, "fan_in", "uniform"),
}
"""Variance times fan, which fan, and the distribution.

Glorot and Bengio 2010; He et al. 2015; LeCun et al. 1998.
"""


def kernel(options: KernelOptions) -> dict[str, Any]:
    """Arguments of one layer. An initializer that two layers share would begin both alike."""
    return {
        "kernel_initializer": _initializer(options),
        "kernel_regularizer": regularizer(options),
    }


def _initializer(options: KernelOptions) -> keras.initializers.Initializer:
    name, scale = options.initializer, options.initializer_scale
    if name == "normal":
        return keras.initializers.RandomNormal(stddev=scale or 0.05)
    if name == "uniform":
        bound = scale or 0.05
        return keras.initializers.RandomUniform(-bound, bound)
    if name == "orthogonal":
        return keras.initializers.Orthogonal(gain=scale or 1.0)
    variance, mode, distribution = VARIANCE_SCALING[name]
    return keras.initializers.VarianceScaling(variance * (scale or 1.0) ** 2, mode, distribution)


def regularizer(options: KernelOptions) -> keras.regularizers.Regularizer | None:
    """The penalty on a kernel."""
    if options.l1 or options.l2:
        return keras.regularizers.L1L2(options.l1, options.l2)
    return None
