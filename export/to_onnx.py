"""Keras model to the ONNX bundle.

The route is tf2onnx from our own serving function; `model.export(format="onnx")` of Keras reports
success on files that are wrong (see docs/architecture.md). What comes out is checked here for form
and by the parity gate for its answers.
"""

import datetime
import importlib.metadata
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
import tf2onnx.handler

import serve
from export.channels_first import put_channels_first
from export.serving_function import ExportError
from serve.atomic import atomic_path
from serve.bundle import INPUT, OUTPUT, UNFIT_OPERATORS, BundleDocument, seal
from serve.command import LockstepError

OPSET = 18
"""The newest that tf2onnx writes."""

NEWEST_IR_VERSION = 10
"""The newest file format that the oldest supported onnxruntime (1.20) reads."""


def export_onnx(
    function: Callable[[tf.Tensor], dict[str, tf.Tensor]], document: BundleDocument, path: Path
) -> None:
    """Convert a serving function and write one ONNX file with its document in the metadata.

    Raises:
        ExportError: the function has operations that ONNX has not, or the converted graph breaks
            the contract of a bundle; see `check_graph`.
    """
    write_bundle(convert(function, document.image.shape), document, path)


def convert(
    function: Callable[[tf.Tensor], dict[str, tf.Tensor]], image_shape: tuple[int, int, int]
) -> onnx.ModelProto:
    """The ONNX model of a serving function, held to the contract."""
    model = from_function(function, [tf.TensorSpec([None, *image_shape], tf.uint8, name=INPUT)])
    _name_batch(model)
    _drop_unused_opsets(model)
    put_channels_first(model.graph, image_shape)
    model.producer_name = "lockstep"
    model.graph.name = "classifier"  # both said how many functions the process had traced before
    model.graph.ClearField("doc_string")
    check_graph(model)
    return model


def from_function(function: Callable[..., Any], signature: list[tf.TensorSpec]) -> onnx.ModelProto:
    """What tf2onnx makes of a traced tf.function, with nothing left open.

    Raises:
        ExportError: an operation has no form in ONNX.
    """
    previous = logging.root.manager.disable
    logging.disable(logging.ERROR)  # it logs every operation it cannot convert, and goes on
    try:
        model, _ = tf2onnx.convert.from_function(function, signature, opset=OPSET)
    except (ValueError, NotImplementedError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise ExportError(f"tf2onnx cannot convert the model: {first:.300}") from error
    finally:
        logging.disable(previous)
    _fill_in_constants(model, function.get_concrete_function())  # type: ignore[attr-defined]
    return model


def _fill_in_constants(
    model: onnx.ModelProto, traced: tf.types.experimental.ConcreteFunction
) -> None:
    """Give the tensors that the function captured their values.

    A Keras layer that holds a tensor which is no variable, as Normalization does, makes it an input
    of the traced function; tf2onnx would leave it an input of the model, one more than a caller
    knows of.
    """
    values = {
        inner.name: outer.numpy()
        for outer, inner in traced.graph.captures
        if outer.dtype != tf.resource
    }
    used = {name for node in _nodes(model.graph) for name in node.input}
    for value in list(model.graph.input):
        if value.name in values:
            model.graph.input.remove(value)
            if value.name in used:
                tensor = onnx.numpy_helper.from_array(values[value.name], value.name)
                model.graph.initializer.append(tensor)


@tf2onnx.handler.tf_op("Erfc")
class _ComplementaryErrorFunction:
    """`erfc(x) = 1 - erf(x)`, of which exact GELU is made in Keras 3.15; tf2onnx knows only erf."""

    @classmethod
    def version_9(cls, context: Any, node: Any, **options: Any) -> None:
        shapes, types = node.output_shapes, node.output_dtypes
        context.remove_node(node.name)
        erf = context.make_node("Erf", [node.input[0]])
        one = context.make_const(tf2onnx.utils.make_name("one"), np.array(1, np.float32))
        context.make_node(
            "Sub",
            [one.output[0], erf.output[0]],
            name=node.name,
            outputs=node.output,
            shapes=shapes,
            dtypes=types,
        )


def write_bundle(model: onnx.ModelProto, document: BundleDocument, path: Path) -> None:
    """Write a model with its document, in place of one that it may have."""
    content = seal(model.SerializeToString(deterministic=True), document.to_json())
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def tool_versions() -> dict[str, str]:
    """Versions of what makes a bundle, for its document."""
    names = ("tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime", "numpy", "pillow")
    versions = {name: importlib.metadata.version(name) for name in names}
    return {"lockstep": serve.__version__, **versions}


def creation_time() -> str:
    """Now, in UTC; or what SOURCE_DATE_EPOCH says, for files that are equal byte for byte.

    https://reproducible-builds.org/specs/source-date-epoch/
    """
    now = datetime.datetime.now(datetime.UTC)
    seconds = os.environ.get("SOURCE_DATE_EPOCH")
    if seconds:
        try:
            now = datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)
        except (ValueError, OverflowError, OSError):
            raise LockstepError(
                f"SOURCE_DATE_EPOCH: expected seconds since 1970, got {seconds!r:.80}"
            ) from None
    return now.isoformat(timespec="seconds")


def check_graph(model: onnx.ModelProto) -> None:
    """Hold a graph to the contract of the bundle.

    Raises:
        ExportError: other inputs or outputs than a bundle's, operators that are random, in training
            mode or outside the standard, tensors in other files, or versions of the format or of
            the operators that supported releases of onnxruntime do not read.
    """
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in constants]
    outputs = [value.name for value in graph.output]
    if inputs != [INPUT] or outputs != [OUTPUT]:
        raise ExportError(
            f"converted graph: expected {INPUT} -> {OUTPUT}, got {inputs} -> {outputs}; "
            "a layer of the model cannot be exported"
        )
    opset = max(
        (item.version for item in model.opset_import if item.domain in _STANDARD), default=0
    )
    if opset > OPSET or model.ir_version > NEWEST_IR_VERSION:
        raise ExportError(
            f"converted graph: expected opset {OPSET} and IR version {NEWEST_IR_VERSION} at most, "
            f"got {opset} and {model.ir_version}"
        )
    check_operators(graph)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        first = str(error).strip().splitlines()[0]
        raise ExportError(f"converted graph: not valid ONNX: {first:.300}") from error


def check_operators(graph: onnx.GraphProto) -> None:
    """Refuse operators that no bundle may have; raises `ExportError`."""
    nodes = list(_nodes(graph))
    for found, meaning in (
        (
            [node.op_type for node in nodes if node.op_type.startswith(UNFIT_OPERATORS)],
            "random operators, or such that run or grow without bound",
        ),
        (
            [f"{node.domain}.{node.op_type}" for node in nodes if node.domain not in _STANDARD],
            "operators outside the ONNX standard",
        ),
        (
            [node.name for node in nodes if _trains(node)],
            "batch normalization or dropout in training mode",
        ),
        (
            [tensor.name for tensor in graph.initializer if _is_external(tensor)],
            "tensors in other files",
        ),
    ):
        if found:
            raise ExportError(f"converted graph: {meaning}: {', '.join(sorted(set(found)))}")


_STANDARD = ("", "ai.onnx")


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node, those of branches and loops too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _trains(node: onnx.NodeProto) -> bool:
    attributes: dict[str, Any] = {item.name: item.i for item in node.attribute}
    if node.op_type == "BatchNormalization":
        return bool(attributes.get("training_mode"))
    # The third input of Dropout says whether it drops; without it, it does not.
    return node.op_type == "Dropout" and len(node.input) > 2 and bool(node.input[2])


def _is_external(tensor: onnx.TensorProto) -> bool:
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


def _drop_unused_opsets(model: onnx.ModelProto) -> None:
    """tf2onnx declares `ai.onnx.ml` although no node needs it; a reader need not know it."""
    used = {node.domain for node in _nodes(model.graph)} | {""}
    kept = [item for item in model.opset_import if item.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _name_batch(model: onnx.ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        dimension = value.type.tensor_type.shape.dim[0]
        dimension.Clear()
        dimension.dim_param = "batch"
