"""The one function that is exported: uint8 pixels in, class probabilities out."""

import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from export.traced_graph import unsteady
from serve.bundle import INPUT, OUTPUT
from serve.command import LockstepError

BATCH = 256

# What Keras raises on damaged files, as found by damaging some (tests/export/test_onnx.py).
DAMAGED = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    NotImplementedError,
    RuntimeError,
    OSError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
)


class ExportError(LockstepError):
    """A model that cannot be exported faithfully."""

    exit_code = 1


def load_model(path: Path) -> keras.Model:
    """Load a `.keras` file without running any code in it.

    Raises:
        LockstepError: no such file, not a Keras model, or one with layers that Keras does not know
            or that are code.
    """
    if not path.is_file():
        raise LockstepError(f"{path}: no such model; expected a .keras file")
    if path.suffix != ".keras":  # older formats can carry code, and Keras would run it
        raise LockstepError(f"{path}: expected a .keras file; save the model again with Keras 3")
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except DAMAGED as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise LockstepError(f"{path}: not a readable Keras model: {first:.300}") from error


def serving_function(
    model: keras.Model, temperature: float = 1.0
) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """The serving function of a model that takes uint8 images and gives logits.

    Args:
        temperature: the logits are divided by it.

    Raises:
        ExportError: the answers depend on random numbers, or the model changes its state.
    """

    def probabilities(image: tf.Tensor) -> tf.Tensor:
        logits = tf.cast(model(image, training=False), tf.float32)
        return tf.nn.softmax(logits / temperature)

    return serving(probabilities, model.input_shape[1:], model.output_shape[-1])


def serving(
    probabilities: Callable[[tf.Tensor], tf.Tensor], image_shape: Sequence[int], classes: int
) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """A tf.function from `image` uint8 `[batch, height, width, channels]` to `probabilities`.

    Shared by SavedModel and ONNX, so that both export the same graph. A model is called with
    `training=False`: a layer must never run its training branch in an exported graph.

    Args:
        probabilities: from the image to float32 `[batch, classes]`.
        image_shape: height, width, channels.

    Raises:
        ExportError: the answers depend on random numbers, or the model changes its state.
    """

    @tf.function(input_signature=[tf.TensorSpec([None, *image_shape], tf.uint8, name=INPUT)])
    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return {OUTPUT: tf.ensure_shape(probabilities(image), [None, classes])}

    trace(serve)
    return serve  # type: ignore[no-any-return]


def trace(function: tf.types.experimental.PolymorphicFunction) -> None:
    """Trace a tf.function that has an input signature, whole, and check it.

    Keras compiles some operations, grouped convolutions for one, as functions of their own, which
    tf2onnx cannot look into. Run eagerly while the outer function is traced, they become part of
    it.

    Raises:
        ExportError: it does not answer the same every time. tf2onnx would freeze a random draw
            into a constant and say nothing.
    """
    tf.config.run_functions_eagerly(True)
    try:
        traced = function.get_concrete_function()
    finally:
        tf.config.run_functions_eagerly(False)
    changing = unsteady(traced)
    if changing:
        raise ExportError(
            "the model draws random numbers or changes its state when it answers "
            f"({', '.join(changing)}); remove the layer that does"
        )


def predict_logits(
    model: keras.Model, images: NDArray[np.uint8], indices: NDArray[np.int64]
) -> NDArray[np.float32]:
    """What Keras's own `predict` answers for some images: the root of every reference.

    Returns:
        float32 `[len(indices), classes]`.
    """
    return np.concatenate(
        [
            model.predict_on_batch(images[indices[start : start + BATCH]])
            for start in range(0, len(indices), BATCH)
        ]
    ).astype(np.float32)


def probabilities_of(logits: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float32]:
    """Keras's softmax of logits `[examples, classes]`, divided by the temperature."""
    return keras.ops.convert_to_numpy(keras.ops.softmax(logits / np.float32(temperature)))  # type: ignore[no-any-return]
