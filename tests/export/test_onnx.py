"""Every architecture, exported and run for real, against Keras."""

from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import models
from export.saved_model import SavedModel, export_saved_model
from export.serving_function import ExportError, load_model, reference_probabilities
from export.to_onnx import check_graph, export_onnx, tool_versions
from models.options import CnnOptions, LenetOptions, ModelOptions, ResnetOptions
from serve.bundle import METADATA_KEY, BundleDocument
from serve.classifier import Classifier
from serve.command import LockstepError
from serve.images import ImageSpec

CLASSES = 5


def document(shape: tuple[int, int, int]) -> BundleDocument:
    return BundleDocument(
        class_names=tuple("abcde"),
        image=ImageSpec(*shape),
        mean=(0.5,) * shape[2],
        std=(0.25,) * shape[2],
        dataset_fingerprint="0" * 64,
        config_hash="1" * 64,
        metrics={"accuracy": 0.5},
        versions=tool_versions(),
    )


def model_after_some_training(options: ModelOptions, shape: tuple[int, int, int]) -> keras.Model:
    """Batch statistics must be away from their start, or a wrong export would agree."""
    keras.utils.set_random_seed(3)
    model = models.build(options, shape, CLASSES, mean=[0.5] * shape[2], std=[0.25] * shape[2])
    generator = np.random.default_rng(0)
    for _ in range(5):
        pixels = generator.integers(0, 200, (16, *shape)).astype(np.uint8)
        model(pixels, training=True)
    return model


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 3)])
@pytest.mark.parametrize(
    "options", [CnnOptions(dropout=0.3), LenetOptions(), ResnetOptions(depth=8)]
)
def test_both_formats_answer_as_keras(
    options: ModelOptions, shape: tuple[int, int, int], tmp_path: Path
) -> None:
    model = model_after_some_training(options, shape)
    images = np.random.default_rng(1).integers(0, 256, (9, *shape)).astype(np.uint8)
    expected = reference_probabilities(model, images, np.arange(9))
    np.testing.assert_allclose(expected.sum(axis=1), 1, atol=1e-5)

    export_onnx(model, document(shape), tmp_path / "model.onnx")
    export_saved_model(model, tmp_path / "saved_model")
    classifier = Classifier(tmp_path / "model.onnx")
    saved_model = SavedModel(tmp_path / "saved_model")
    for predict in (classifier.predict, saved_model.predict):
        np.testing.assert_allclose(predict(images), expected, atol=2e-6)
        np.testing.assert_allclose(predict(images[:1]), expected[:1], atol=2e-6)


def test_the_file_keeps_the_contract(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    model = model_after_some_training(LenetOptions(), (8, 8, 1))
    export_onnx(model, document((8, 8, 1)), path)
    proto = onnx.load(path)
    (image,), (probabilities,) = proto.graph.input, proto.graph.output
    assert image.name == "image"
    assert image.type.tensor_type.elem_type == TensorProto.UINT8
    assert image.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert [d.dim_value for d in image.type.tensor_type.shape.dim[1:]] == [8, 8, 1]
    assert probabilities.name == "probabilities"
    assert probabilities.type.tensor_type.elem_type == TensorProto.FLOAT
    assert [(item.domain, item.version) for item in proto.opset_import] == [("", 18)]
    assert [item.key for item in proto.metadata_props] == [METADATA_KEY]
    assert Classifier(path).document == document((8, 8, 1))


def test_a_layer_that_is_random_at_inference_is_refused(tmp_path: Path) -> None:
    inputs = keras.Input((8, 8, 1), dtype="uint8")
    noisy = keras.layers.Lambda(lambda x: x + keras.random.uniform((8, 8, 1)))(
        keras.layers.Rescaling(1 / 255)(inputs)
    )
    logits = keras.layers.Dense(CLASSES)(keras.layers.Flatten()(noisy))
    with pytest.raises(ExportError, match=r"draws random numbers .*StatelessRandomUniformV2"):
        export_onnx(keras.Model(inputs, logits), document((8, 8, 1)), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_batch_normalization_in_training_mode_is_refused(tmp_path: Path) -> None:
    """What a Keras resizing layer silently does to every BatchNormalization behind it."""

    class Training(keras.layers.Layer):
        def build(self, shape: tuple[int, ...]) -> None:
            self.norm = keras.layers.BatchNormalization()
            self.norm.build(shape)

        def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
            return self.norm(inputs, training=True)

    inputs = keras.Input((8, 8, 1), dtype="uint8")
    x = Training()(keras.layers.Rescaling(1 / 255)(inputs))
    logits = keras.layers.Dense(CLASSES)(keras.layers.Flatten()(x))
    with pytest.raises(ExportError, match=r"changes its state .*Assign"):
        export_onnx(keras.Model(inputs, logits), document((8, 8, 1)), tmp_path / "model.onnx")


def graph_with(*nodes: onnx.NodeProto, inputs: tuple[str, ...] = ("image",)) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, TensorProto.UINT8, ["batch"]) for name in inputs]
    output = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch"])
    return helper.make_model(helper.make_graph(list(nodes), "graph", values, [output]))


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (graph_with(inputs=("image", "mean")), r"got \['image', 'mean'\]"),
        (
            graph_with(helper.make_node("Fancy", ["image"], ["probabilities"], domain="com.x")),
            "outside the ONNX standard: com.x.Fancy",
        ),
        (
            graph_with(
                helper.make_node("BatchNormalization", [], [], name="norm", training_mode=1)
            ),
            "training mode: norm",
        ),
    ],
)
def test_graphs_that_break_the_contract_are_refused(graph: onnx.ModelProto, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        check_graph(graph)


def test_external_tensors_are_refused() -> None:
    graph = graph_with()
    tensor = graph.graph.initializer.add()
    tensor.name, tensor.data_location = "kernel", TensorProto.EXTERNAL
    with pytest.raises(ExportError, match="tensors in other files: kernel"):
        check_graph(graph)


@pytest.mark.parametrize("content", [b"", b"not a zip archive"])
def test_a_damaged_keras_file_is_one_clear_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(content)
    with pytest.raises(LockstepError, match="not a readable Keras model"):
        load_model(path)


def test_a_keras_file_with_code_in_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    inputs = keras.Input((2,))
    keras.Model(inputs, keras.layers.Lambda(lambda x: x * 2)(inputs)).save(path)
    with pytest.raises(LockstepError, match="not a readable Keras model"):
        load_model(path)
