"""Which layer is it? Exports a model's beginnings, until one answers otherwise than Keras."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import onnxruntime
import tensorflow as tf
from numpy.typing import NDArray

from export.serving_function import trace
from export.to_onnx import check_operators, from_function
from serve.classifier import runtime_errors
from serve.command import LockstepError

RELATIVE = 1e-3
CANNOT_BE_EXPORTED: tuple[type[Exception], ...] = (LockstepError, ValueError, *runtime_errors())


def first_unfaithful_layer(model: keras.Model, images: NDArray[np.float32]) -> str | None:
    """The first layer, in the order of computation, whose export does not answer as Keras does.

    Every tensor of the model's graph becomes an output. The more of the graph, the more can be
    wrong, so bisection finds the first node that makes it so. Of a model within the model, the
    layer within it is named.

    Args:
        model: a functional or sequential model.
        images: float32 `[batch, height, width, channels]`, as the model takes them.

    Returns:
        Name and class of the layer, or None if every single one is faithful: then only whole
        batches, or the bundle's own rules, show what is wrong.
    """
    tf.get_logger().setLevel("ERROR")  # it warns that many functions are traced: they are
    nodes = _nodes(model)
    good, bad = 0, len(nodes)
    if _is_faithful(model, nodes, images):
        return None
    while bad - good > 1:
        middle = (good + bad) // 2
        if _is_faithful(model, nodes[:middle], images):
            good = middle
        else:
            bad = middle
    node = nodes[bad - 1]
    within = None
    if isinstance(node.operation, keras.Model) and len(node.input_tensors) == 1:
        before = keras.Model(model.inputs, node.input_tensors[0])
        values = np.asarray(before.predict_on_batch(images), np.float32)
        within = first_unfaithful_layer(node.operation, values)
    return within or f"{node.operation.name!r} ({type(node.operation).__name__})"


def _nodes(model: keras.Model) -> list[Any]:
    """Every call of a layer or an operation in the model's graph, inputs before what uses them."""
    functional = model._functional if isinstance(model, keras.Sequential) else model
    by_depth = functional._nodes_by_depth
    nodes = [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]
    return [node for node in nodes if not node.is_input]


def _is_faithful(model: keras.Model, nodes: Sequence[Any], images: NDArray[np.float32]) -> bool:
    beginning = keras.Model(model.inputs, [value for node in nodes for value in node.outputs])
    expected = [np.asarray(value) for value in tf.nest.flatten(beginning.predict_on_batch(images))]
    signature = [tf.TensorSpec([None, *images.shape[1:]], tf.float32, name="image")]

    @tf.function(input_signature=signature)
    def serve(image: tf.Tensor) -> list[tf.Tensor]:
        answers = tf.nest.flatten(beginning(image, training=False))
        return [tf.cast(value, tf.float32) for value in answers]

    try:
        trace(serve)
        converted = from_function(serve, signature)
        check_operators(converted.graph)
        session = onnxruntime.InferenceSession(
            converted.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        answers = session.run(None, {session.get_inputs()[0].name: images})
    except CANNOT_BE_EXPORTED:
        return False
    return all(
        np.allclose(answer, value, rtol=RELATIVE, atol=RELATIVE * (np.abs(value).max() + 1e-6))
        for answer, value in zip(answers, expected, strict=True)
    )
