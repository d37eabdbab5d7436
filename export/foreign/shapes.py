"""A model from elsewhere, made one that takes a batch of any size and gives one array."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from serve.command import LockstepError

NOISE = 0
"""Seed of the images on which a rebuilt model is compared with the one it was made from."""


def one_array_to_one_array(model: keras.Model) -> keras.Model:
    """A model of the same layers and weights whose input and output are single tensors.

    A subclassed model becomes a functional one around it; dictionaries and lists of one tensor are
    taken off; a batch dimension that is fixed becomes open.

    Raises:
        LockstepError: several inputs or outputs, or a model that works with its own batch size
            alone.
    """
    if not getattr(model, "inputs", None):
        model = _functional(model)
    for kind, tensors in (("input", model.inputs), ("output", model.outputs)):
        if len(tensors) != 1:
            listed = ", ".join(
                f"{name} {shape}" for name, shape in _described(model, kind, tensors)
            )
            raise LockstepError(
                f"expected one {kind}, got {len(tensors)}: {listed:.300}; make a model of the one "
                f"that counts: keras.Model(model.inputs, model.outputs[0])"
            )
    if isinstance(model.inputs[0].shape[0], int):
        model = _with_open_batch(model)
    if isinstance(model, keras.Sequential) or not _is_wrapped(model):
        return model
    return keras.Model(model.inputs[0], model.outputs[0])


def _is_wrapped(model: keras.Model) -> bool:
    """Whether a functional model takes or gives a dictionary or a list."""
    return bool(tf.nest.is_nested(model._inputs_struct) or tf.nest.is_nested(model._outputs_struct))


def _described(model: keras.Model, kind: str, tensors: Any) -> list[tuple[str, tuple[Any, ...]]]:
    names = getattr(model, f"{kind}_names", None) or [value.name for value in tensors]
    return [(name, tuple(value.shape)) for name, value in zip(names, tensors, strict=True)]


def _functional(model: keras.Model) -> keras.Model:
    """A functional model around a subclassed one, by the shape that it was built with."""
    shape = (model.get_build_config() or {}).get("input_shape")
    if not shape or not all(side is None or isinstance(side, int) for side in shape):
        raise LockstepError(
            "expected a model that was built with one input: call it once on images, then save it"
        )
    inputs = keras.Input(batch_shape=(None, *shape[1:]))
    return keras.Model(inputs, model(inputs, training=False))


def _with_open_batch(model: keras.Model) -> keras.Model:
    """The same layers and weights for batches of any size, compared on noise with the original."""
    batch = int(model.inputs[0].shape[0])
    refusal = LockstepError(
        f"the model takes batches of {batch} images alone, and gives other answers or none when "
        "rebuilt for any size; build it with keras.Input(shape=...) and load its weights"
    )
    try:
        opened = model.__class__.from_config(_opened(model.get_config()))
        opened.set_weights(model.get_weights())
        if opened.inputs[0].shape[0] is not None or opened.outputs[0].shape[0] is not None:
            raise refusal
        shape = [side or 64 for side in model.inputs[0].shape[1:]]
        noise = np.random.default_rng(NOISE).uniform(0, 255, (batch, *shape)).astype(np.float32)
        before, after = (_answers(item, noise) for item in (model, opened))
        alone = np.concatenate([_answers(opened, noise[i : i + 1]) for i in range(min(batch, 3))])
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise refusal from error
    if not (_agree(before, after) and _agree(before[: len(alone)], alone)):
        raise refusal
    return opened


def _agree(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    near = 1e-4 * max(1.0, float(np.abs(one).max()))
    return one.shape == other.shape and np.allclose(one, other, rtol=1e-3, atol=near)


def _answers(model: keras.Model, images: NDArray[np.float32]) -> NDArray[np.float64]:
    (answers,) = tf.nest.flatten(model.predict_on_batch(images))
    return np.asarray(answers, np.float64)


def _opened(config: Any) -> Any:
    """A model's config, and those within it, with the batch sizes of their inputs left open."""
    if isinstance(config, list | tuple):
        return type(config)(_opened(value) for value in config)
    if not isinstance(config, dict):
        return config
    opened = {key: _opened(value) for key, value in config.items()}
    for key in ("batch_shape", "build_input_shape", "input_shape"):
        shape = opened.get(key)
        if isinstance(shape, list | tuple) and shape and isinstance(shape[0], int):
            opened[key] = type(shape)((None, *shape[1:]))
    return opened
