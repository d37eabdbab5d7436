"""Keras model to the ONNX bundle.

The route is tf2onnx from our own serving function; `model.export(format="onnx")` of Keras reports
success on files that are wrong (see docs/architecture.md). What comes out is checked here for form
and by the parity gate for its answers.
"""

import importlib.metadata
from pathlib import Path

import keras
import onnx
import tensorflow as tf
import tf2onnx

from export.serving_function import ExportError, serving_function
from serve.atomic import atomic_path
from serve.bundle import INPUT, METADATA_KEY, OUTPUT, BundleDocument

OPSET = 18
"""The newest that tf2onnx writes."""

RANDOM_OPERATORS = {
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}


def export_onnx(model: keras.Model, document: BundleDocument, path: Path) -> None:
    """Convert the model and write one ONNX file with its document in the metadata.

    Raises:
        ExportError: the converted graph has other inputs or outputs than a bundle, random
            operators, operators outside the standard, or tensors in other files.
    """
    function = serving_function(model)
    signature = [tf.TensorSpec([None, *model.input_shape[1:]], tf.uint8, name=INPUT)]
    converted, _ = tf2onnx.convert.from_function(function, signature, opset=OPSET)
    _name_batch(converted)
    check_graph(converted)
    _drop_unused_opsets(converted)
    entry = converted.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, document.to_json()
    converted.producer_name = "lockstep"
    onnx.checker.check_model(converted, full_check=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(converted.SerializeToString(deterministic=True))


def tool_versions() -> dict[str, str]:
    """Versions of what makes a bundle, for its document."""
    names = ("tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime", "numpy", "pillow")
    return {name: importlib.metadata.version(name) for name in names}


def check_graph(model: onnx.ModelProto) -> None:
    """Hold a converted graph to the contract of the bundle; raises `ExportError`."""
    graph = model.graph
    inputs, outputs = ([value.name for value in values] for values in (graph.input, graph.output))
    if inputs != [INPUT] or outputs != [OUTPUT]:
        raise ExportError(
            f"converted graph: expected {INPUT} -> {OUTPUT}, got {inputs} -> {outputs}; "
            "a layer of the model cannot be exported"
        )
    operators = {(node.domain, node.op_type) for node in graph.node}
    random = sorted(name for _, name in operators if name in RANDOM_OPERATORS)
    foreign = sorted(
        f"{domain}.{name}" for domain, name in operators if domain not in ("", "ai.onnx")
    )
    training = [
        node.name
        for node in graph.node
        if node.op_type == "BatchNormalization"
        and any(item.name == "training_mode" and item.i for item in node.attribute)
    ]
    external = [
        tensor.name
        for tensor in graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    ]
    for found, meaning in (
        (random, "random operators"),
        (foreign, "operators outside the ONNX standard"),
        (training, "batch normalization in training mode"),
        (external, "tensors in other files"),
    ):
        if found:
            raise ExportError(f"converted graph: {meaning}: {', '.join(found)}")


def _drop_unused_opsets(model: onnx.ModelProto) -> None:
    """tf2onnx declares `ai.onnx.ml` although no node needs it; a reader need not know it."""
    kept = [item for item in model.opset_import if item.domain == ""]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _name_batch(model: onnx.ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        dimension = value.type.tensor_type.shape.dim[0]
        dimension.Clear()
        dimension.dim_param = "batch"
