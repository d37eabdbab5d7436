"""Every architecture, exported and run for real, against Keras."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import keras
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import models
from export.saved_model import SavedModel, export_saved_model
from export.serving_function import (
    ExportError,
    load_model,
    predict_logits,
    probabilities_of,
    serving_function,
)
from export.to_onnx import (
    NEWEST_IR_VERSION,
    OPSET,
    check_graph,
    creation_time,
    export_onnx,
    tool_versions,
)
from models.options import (
    CnnOptions,
    FastOptions,
    LenetOptions,
    ModelOptions,
    PretrainedOptions,
    ResnetOptions,
    WideResnetOptions,
)
from serve.bundle import METADATA_KEY, BundleDocument
from serve.classifier import Classifier
from serve.command import LockstepError
from serve.image_spec import ImageSpec

ROOT = Path(__file__).resolve().parents[2]
RANDOM_OPERATORS = (
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
)
CLASSES = 5
TEMPERATURE = 1.7

SMALL: dict[str, ModelOptions] = {
    "cnn": CnnOptions(filters=[8, 16]),
    "fast": FastOptions(widths=[8, 16, 16]),
    "pretrained": PretrainedOptions(backbone="MobileNet", weights="none"),
    "resnet": ResnetOptions(depth=8),
    "wide-resnet": WideResnetOptions(depth=10, widening=2),
}
"""Options that take less time than the defaults."""

ARCHITECTURES: dict[str, ModelOptions] = {
    (name := form.model_fields["name"].default): SMALL.get(name) or form()
    for form in get_args(ModelOptions)
}
VARIANTS: dict[str, ModelOptions] = {
    "cnn-dropout-dense": CnnOptions(filters=[8, 16], dropout=0.3, dense_units=[12], head="flatten"),
    "cnn-average-plain": CnnOptions(
        filters=[8, 16], pooling="average", batch_normalization=False, convolutions=[1, 2]
    ),
    "cnn-strides": CnnOptions(filters=[8, 16], pooling="none", stride=2, kernel_size=5),
    "cnn-haar": CnnOptions(filters=[8, 16], stem="haar"),
    "lenet-dropout": LenetOptions(dropout=0.4),
    "resnet-14-thin": ResnetOptions(depth=14, width=5),
    "wide-resnet-dropout": WideResnetOptions(depth=10, widening=1, dropout=0.3),
}
SHAPES = [(16, 16, 1), (28, 20, 3), (16, 16, 3), (28, 20, 1)]
LARGER = [(32, 32, 1), (40, 33, 3)]
"""What every backbone takes."""

CASES = {
    **{
        f"{name}-{shape}": (options, shape)
        for name, options in ARCHITECTURES.items()
        for shape in (LARGER if name == "pretrained" else SHAPES)
    },
    **{
        f"{name}-{shape}": (options, shape)
        for name, options in VARIANTS.items()
        for shape in SHAPES[:2]
    },
}
BACKBONES = [
    ("DenseNet121", (32, 32, 1)),
    ("EfficientNetB0", (40, 33, 3)),
    ("MobileNetV3Small", (32, 32, 3)),
    ("VGG16", (32, 32, 3)),
]
"""Between them all kinds of preprocessing; ConvNeXt goes through `test_bundle_command.py`."""


def document(shape: tuple[int, int, int], temperature: float = TEMPERATURE) -> BundleDocument:
    return BundleDocument(
        class_names=tuple("abcde"),
        image=ImageSpec(*shape),
        mean=(0.5,) * shape[2],
        std=(0.25,) * shape[2],
        temperature=temperature,
        dataset_fingerprint="0" * 64,
        config_hash="1" * 64,
        metrics={"accuracy": 0.5},
        versions=tool_versions(),
        created=creation_time(),
    )


def model_after_some_training(options: ModelOptions, shape: tuple[int, int, int]) -> keras.Model:
    """Batch statistics must be away from their start, or a wrong export would agree."""
    keras.utils.set_random_seed(3)
    mean, std = [0.5, 0.4, 0.3][: shape[2]], [0.25, 0.3, 0.2][: shape[2]]
    model = models.build(options, shape, CLASSES, mean=mean, std=std)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.5  # those of a backbone are made for long trainings
    generator = np.random.default_rng(0)
    for _ in range(5):
        pixels = generator.integers(0, 200, (16, *shape)).astype(np.uint8)
        model(pixels, training=True)
    return model


def test_no_architecture_is_left_out() -> None:
    files = (ROOT / "models").glob("*.py")
    with_core = {path.stem for path in files if "def build_core(" in path.read_text("utf-8")}
    assert set(ARCHITECTURES) == {name.replace("_", "-") for name in with_core}
    assert len(ARCHITECTURES) >= 6


def assert_both_formats_answer_as_keras(
    options: ModelOptions, shape: tuple[int, int, int], folder: Path, tolerance: float
) -> None:
    model = model_after_some_training(options, shape)
    images = np.random.default_rng(1).integers(0, 256, (9, *shape)).astype(np.uint8)
    logits = predict_logits(model, images, np.arange(9))
    expected = probabilities_of(logits, TEMPERATURE)
    np.testing.assert_allclose(expected.sum(axis=1), 1, atol=1e-5)
    assert np.abs(expected - probabilities_of(logits)).max() > 1e-3, "no temperature to get wrong"

    function = serving_function(model, TEMPERATURE)
    export_onnx(function, document(shape), folder / "model.onnx")
    export_saved_model(model, folder / "saved_model", TEMPERATURE)
    classifier = Classifier(folder / "model.onnx")
    saved_model = SavedModel(folder / "saved_model")
    for predict in (classifier.predict, saved_model.predict):
        np.testing.assert_allclose(predict(images), expected, atol=tolerance)
        np.testing.assert_allclose(predict(images[:1]), expected[:1], atol=tolerance)


@pytest.mark.parametrize(("options", "shape"), CASES.values(), ids=CASES)
def test_both_formats_answer_as_keras(
    options: ModelOptions, shape: tuple[int, int, int], tmp_path: Path
) -> None:
    assert_both_formats_answer_as_keras(options, shape, tmp_path, 2e-6)
    first = onnx.load(tmp_path / "model.onnx").graph.node[0].op_type
    is_repeated = options.name == "pretrained" and shape[2] == 1  # grey to RGB comes before
    assert first in (("Cast",) if is_repeated else ("Transpose", "Reshape"))


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "shape"), BACKBONES)
def test_both_formats_of_a_backbone_answer_as_keras(
    backbone: str, shape: tuple[int, int, int], tmp_path: Path
) -> None:
    """Hundreds of layers add up to a little more of float32's rounding."""
    options = PretrainedOptions(backbone=backbone, weights="none")
    assert_both_formats_answer_as_keras(options, shape, tmp_path, 1e-5)


def test_the_smallest_images_of_the_digits_are_exported_too(tmp_path: Path) -> None:
    shape = (8, 8, 1)
    model = model_after_some_training(CnnOptions(), shape)
    images = np.random.default_rng(1).integers(0, 256, (3, *shape)).astype(np.uint8)
    export_onnx(serving_function(model), document(shape, 1.0), tmp_path / "model.onnx")
    expected = probabilities_of(predict_logits(model, images, np.arange(3)))
    answers = Classifier(tmp_path / "model.onnx").predict(images)
    np.testing.assert_allclose(answers, expected, atol=2e-6)


def test_the_file_keeps_the_contract(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    model = model_after_some_training(LenetOptions(), (8, 8, 1))
    written = document((8, 8, 1))
    export_onnx(serving_function(model, TEMPERATURE), written, path)
    proto = onnx.load(path)
    (image,), (probabilities,) = proto.graph.input, proto.graph.output
    assert image.name == "image"
    assert image.type.tensor_type.elem_type == TensorProto.UINT8
    assert image.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert [d.dim_value for d in image.type.tensor_type.shape.dim[1:]] == [8, 8, 1]
    assert probabilities.name == "probabilities"
    assert probabilities.type.tensor_type.elem_type == TensorProto.FLOAT
    assert probabilities.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert [(item.domain, item.version) for item in proto.opset_import] == [("", 18)]
    assert proto.ir_version <= 10
    assert [item.key for item in proto.metadata_props] == [METADATA_KEY]
    assert Classifier(path).document == written


def test_a_layer_that_is_random_at_inference_is_refused() -> None:
    inputs = keras.Input((8, 8, 1), dtype="uint8")
    noisy = keras.layers.Lambda(lambda x: x + keras.random.uniform((8, 8, 1)))(
        keras.layers.Rescaling(1 / 255)(inputs)
    )
    logits = keras.layers.Dense(CLASSES)(keras.layers.Flatten()(noisy))
    with pytest.raises(ExportError, match=r"draws random numbers .*StatelessRandomUniformV2"):
        serving_function(keras.Model(inputs, logits))


def test_batch_normalization_in_training_mode_is_refused() -> None:
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
        serving_function(keras.Model(inputs, logits))


def test_an_operation_that_onnx_does_not_have_is_one_clear_error(tmp_path: Path) -> None:
    inputs = keras.Input((8, 8, 1), dtype="uint8")
    x = keras.layers.Lambda(lambda x: keras.ops.erfinv(x))(keras.layers.Rescaling(1 / 256)(inputs))
    logits = keras.layers.Dense(CLASSES)(keras.layers.Flatten()(x))
    with pytest.raises(ExportError, match="not valid ONNX: No Op registered for Erfinv"):
        export_onnx(
            serving_function(keras.Model(inputs, logits)),
            document((8, 8, 1)),
            tmp_path / "model.onnx",
        )
    assert list(tmp_path.iterdir()) == []


def graph_with(
    *nodes: onnx.NodeProto,
    inputs: tuple[str, ...] = ("image",),
    output: str = "probabilities",
    opset: int = OPSET,
    ir_version: int = NEWEST_IR_VERSION,
    domain: str = "",
) -> onnx.ModelProto:
    """A cast of the input to the output, after some other nodes."""
    values = [helper.make_tensor_value_info(name, TensorProto.UINT8, ["batch"]) for name in inputs]
    result = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch"])
    cast = helper.make_node("Cast", ["image"], [output], to=TensorProto.FLOAT)
    return helper.make_model(
        helper.make_graph([*nodes, cast], "graph", values, [result]),
        opset_imports=[helper.make_opsetid(domain, opset)],
        ir_version=ir_version,
    )


def random_node(operator: str = "RandomNormal") -> onnx.NodeProto:
    return helper.make_node(operator, [], ["noise"])


def nested(node: onnx.NodeProto, depth: int = 1) -> onnx.NodeProto:
    """The node in a branch of a branch … that is `depth` deep."""
    for _ in range(depth):
        output = helper.make_tensor_value_info("noise", TensorProto.FLOAT, ["batch"])
        branch = helper.make_graph([node], "branch", [], [output])
        node = helper.make_node(
            "If", ["condition"], ["noise"], then_branch=branch, else_branch=branch
        )
    return node


def looped(node: onnx.NodeProto) -> onnx.NodeProto:
    output = helper.make_tensor_value_info("noise", TensorProto.FLOAT, ["batch"])
    body = helper.make_graph([node], "body", [], [output])
    return helper.make_node("Loop", ["count", "condition"], ["noise"], body=body)


def dropout(*inputs: str) -> onnx.NodeProto:
    return helper.make_node("Dropout", list(inputs), ["kept"], name="drop")


TRAINING_NORM = helper.make_node("BatchNormalization", [], [], name="norm", training_mode=1)


def test_a_plain_graph_is_within_the_contract() -> None:
    check_graph(graph_with())


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (graph_with(inputs=("image", "mean")), r"got \['image', 'mean'\]"),
        (graph_with(output="logits"), r"expected image -> probabilities, got .*'logits'"),
        (
            graph_with(helper.make_node("Fancy", ["image"], ["noise"], domain="com.x")),
            "outside the ONNX standard: com.x.Fancy",
        ),
        (
            graph_with(nested(helper.make_node("Fancy", [], ["noise"], domain="com.x"))),
            "outside the ONNX standard: com.x.Fancy",
        ),
        (graph_with(TRAINING_NORM), "training mode: norm"),
        (graph_with(nested(TRAINING_NORM)), "training mode: norm"),
        (graph_with(dropout("image", "ratio", "training")), "training mode: drop"),
        (graph_with(nested(dropout("image", "ratio", "training"))), "training mode: drop"),
        (graph_with(opset=OPSET + 1), "expected opset 18 .* got 19 and 10"),
        (graph_with(ir_version=NEWEST_IR_VERSION + 1), "IR version 10 at most, got 18 and 11"),
        (graph_with(opset=OPSET + 1, domain="ai.onnx"), "expected opset 18 .* got 19 and 10"),
        (graph_with(helper.make_node("Cast", ["image"], ["y"])), "not valid ONNX: .*'to'"),
        (graph_with(helper.make_node("Relu", ["nothing"], ["y"])), "not valid ONNX: .*nothing"),
        *((graph_with(random_node(name)), name) for name in RANDOM_OPERATORS),
        (graph_with(nested(random_node())), "random operators, .*: .*RandomNormal"),
        (graph_with(nested(random_node(), depth=4)), "random operators, .*: .*RandomNormal"),
        (graph_with(looped(nested(random_node()))), "random operators, .*: .*RandomNormal"),
    ],
)
def test_graphs_that_break_the_contract_are_refused(graph: onnx.ModelProto, message: str) -> None:
    with pytest.raises(ExportError, match=message) as caught:
        check_graph(graph)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("inputs", [("x",), ("x", "ratio"), ("x", "ratio", "")])
def test_a_dropout_that_does_not_drop_is_no_fault(inputs: tuple[str, ...]) -> None:
    graph = graph_with(
        helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT), dropout(*inputs)
    )
    graph.graph.initializer.append(helper.make_tensor("ratio", TensorProto.FLOAT, [], [0.5]))
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


def test_a_keras_file_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(LockstepError, match="no such model"):
        load_model(tmp_path / "model.keras")


def test_a_keras_file_with_code_in_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    inputs = keras.Input((2,))
    keras.Model(inputs, keras.layers.Lambda(lambda x: x * 2)(inputs)).save(path)
    with pytest.raises(LockstepError, match="not a readable Keras model"):
        load_model(path)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [("0", "1970-01-01T00:00:00+00:00"), ("1700000000", "2023-11-14T22:13:20+00:00")],
)
def test_the_time_of_creation_can_be_given(
    seconds: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", seconds)
    assert creation_time() == expected


@pytest.mark.parametrize("value", [None, ""])
def test_the_time_of_creation_is_now_in_utc(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    if value is not None:
        monkeypatch.setenv("SOURCE_DATE_EPOCH", value)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", creation_time())


# The stage `export` of a run, as a process of its own.
EXPORT_AGAIN = """
import sys
from pathlib import Path
from export.run_directory import RunDirectory
from pipeline.config import Config
from pipeline.export_stage import export

export(Config(), RunDirectory(Path(sys.argv[1])))
"""


@pytest.mark.slow
def test_two_exports_of_one_moment_are_equal_byte_for_byte(run_copy: Path) -> None:
    contents = []
    for seed in ("1", "2"):
        environment = {
            **os.environ,
            "SOURCE_DATE_EPOCH": "1700000000",
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": str(ROOT),
        }
        done = subprocess.run(
            [sys.executable, "-c", EXPORT_AGAIN, str(run_copy)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        contents.append((run_copy / "model.unverified.onnx").read_bytes())
    assert contents[0] == contents[1]
    document = Classifier(run_copy / "model.unverified.onnx").document
    assert document.created == "2023-11-14T22:13:20+00:00"
