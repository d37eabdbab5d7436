"""A model that computes in 16 bits, rebuilt in float32."""

from typing import Any

import keras

from serve.command import LockstepError

SIXTEEN_BITS = ("float16", "bfloat16", "mixed_float16", "mixed_bfloat16")


def in_float32(model: keras.Model) -> keras.Model:
    """The model itself, or where it computes in 16 bits, the same weights in float32.

    onnxruntime has no CPU kernels for most of bfloat16, and none gives the same roundings.
    """
    if not _computes_in_16_bits(model):
        return model
    rebuilt = model.__class__.from_config(_with_float32(model.get_config()))
    rebuilt.set_weights(model.get_weights())
    if _computes_in_16_bits(rebuilt):
        raise LockstepError("a layer computes in 16 bits whatever it is told; rebuild the model")
    return rebuilt


def _computes_in_16_bits(model: keras.Model) -> bool:
    layers = model._flatten_layers(include_self=False)
    return any(layer.compute_dtype in ("float16", "bfloat16") for layer in layers)


def _with_float32(config: Any) -> Any:
    """A layer's config, and those within it, with 16-bit types and policies replaced."""
    if isinstance(config, dict):
        return {key: _with_float32(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return type(config)(_with_float32(value) for value in config)
    return "float32" if isinstance(config, str) and config in SIXTEEN_BITS else config
