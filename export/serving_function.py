"""The one function that is exported: uint8 pixels in, class probabilities out."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from serve.bundle import INPUT, OUTPUT
from serve.command import LockstepError

BATCH = 256


class ExportError(LockstepError):
    """A model that cannot be exported faithfully."""

    exit_code = 1


def load_model(path: Path) -> keras.Model:
    """Load a `.keras` file without running any code in it.

    Raises:
        LockstepError: no such file, or not a Keras model.
    """
    if not path.is_file():
        raise LockstepError(f"{path}: no such model; expected a finished training")
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except (ValueError, TypeError, KeyError) as error:
        raise LockstepError(f"{path}: not a readable Keras model: {error}") from error


def serving_function(model: keras.Model) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """A tf.function from `image` uint8 `[batch, height, width, channels]` to `probabilities`.

    Shared by SavedModel and ONNX, so that both export the same graph. `training=False` is explicit:
    a layer must never run its training branch in an exported graph.

    Raises:
        ExportError: the model draws random numbers or changes its state when it answers.
    """
    signature = tf.TensorSpec([None, *model.input_shape[1:]], tf.uint8, name=INPUT)

    @tf.function(input_signature=[signature])
    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = model(image, training=False)
        return {OUTPUT: tf.nn.softmax(logits)}

    _check(serve)
    return serve  # type: ignore[no-any-return]


def _check(function: tf.types.experimental.PolymorphicFunction) -> None:
    """Refuse a function that does not answer the same every time.

    tf2onnx would freeze a random draw into a constant and say nothing, and a batch normalization
    that updates its statistics is one in training mode.
    """
    graph = function.get_concrete_function().graph.as_graph_def()
    nodes = [*graph.node, *(node for item in graph.library.function for node in item.node_def)]
    changing = {node.op for node in nodes if "Random" in node.op or node.op.startswith("Assign")}
    if changing:
        raise ExportError(
            "the model draws random numbers or changes its state when it answers "
            f"({', '.join(sorted(changing))}); remove the layer that does"
        )


def reference_probabilities(
    model: keras.Model, images: NDArray[np.uint8], indices: NDArray[np.int64]
) -> NDArray[np.float32]:
    """What Keras's own `predict` answers for some images: the reference of every proof.

    Returns:
        float32 `[len(indices), classes]`.
    """
    logits = [
        model.predict_on_batch(images[indices[start : start + BATCH]])
        for start in range(0, len(indices), BATCH)
    ]
    return keras.ops.convert_to_numpy(keras.ops.softmax(np.concatenate(logits)))  # type: ignore[no-any-return]
