"""ONNX classifiers that are no bundles: their answers, and what has to be said about them."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from PIL import Image
from scipy.special import softmax as exact_softmax

from serve import batch
from serve.bundle import METADATA_KEY, BundleDocument, BundleError
from serve.classifier import Classifier
from serve.command import CommandParser, LockstepError
from serve.description import Description, add_arguments, description
from serve.foreign_outputs import Outputs
from serve.image_spec import ImageSpec
from serve.images import read_image
from serve.probabilities import softmax

HEIGHT, WIDTH, CLASSES = 6, 5, 4
NAMES = ("cat", "dog", "犬, big", "none of these")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Pixels = NDArray[np.uint8]
RunModule = Callable[..., Any]


def weights(channels: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights `[pixels, classes]` and offsets of a linear classifier, with clear answers."""
    random = np.random.default_rng(channels)
    count = HEIGHT * WIDTH * channels
    return (
        random.normal(0, 0.2, (count, CLASSES)).astype(np.float32),
        random.normal(0, 0.5, CLASSES).astype(np.float32),
    )


def images(channels: int, count: int = 7) -> Pixels:
    shape = (count, HEIGHT, WIDTH, channels)
    return np.random.default_rng(count).integers(0, 256, shape, dtype=np.uint8)


def value(name: str, shape: list[Any] | None, element: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, element, shape)


def linear(
    path: Path,
    shape: list[Any],
    *,
    element: int = TensorProto.FLOAT,
    end: list[NodeProto] | None = None,
    output: list[Any] | None = None,
    output_element: int = TensorProto.FLOAT,
    tensors: list[TensorProto] | None = None,
    channels: int = 3,
) -> Path:
    """A model `Flatten, MatMul, Add` with an input `pixels` and an output `scores`.

    Args:
        end: what follows, from `sum` to `scores`.
        output: its shape; one column per class if not given.
    """
    matrix, offset = weights(channels)
    nodes = [
        helper.make_node("Cast", ["pixels"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["numbers"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["product"]),
        helper.make_node("Add", ["product", "offset"], ["sum" if end else "scores"]),
        *(end or []),
    ]
    return save(
        path,
        nodes,
        [value("pixels", shape, element)],
        [value("scores", output or [shape[0], CLASSES], output_element)],
        [
            numpy_helper.from_array(matrix, "matrix"),
            numpy_helper.from_array(offset, "offset"),
            *(tensors or []),
        ],
    )


def save(
    path: Path,
    nodes: list[NodeProto],
    inputs: list[Any],
    outputs: list[Any],
    tensors: list[TensorProto] | None = None,
) -> Path:
    model = helper.make_model(
        helper.make_graph(nodes, "graph", inputs, outputs, initializer=tensors or []),
        opset_imports=[helper.make_opsetid("", 17)],
        producer_name="a test",
        ir_version=8,
    )
    onnx.save(model, path)
    return path


def ending(*operators: str) -> list[NodeProto]:
    """Operators in a row between `sum` and `scores`."""
    names = ["sum", *(f"end{number}" for number in range(1, len(operators))), "scores"]
    return [
        helper.make_node(operator, [names[number]], [names[number + 1]])
        for number, operator in enumerate(operators)
    ]


def expected(
    pixels: Pixels, *, mean: Any = 0, std: Any = 1 / 255, channels_first: bool = False
) -> NDArray[np.float64]:
    """The probabilities in double precision."""
    matrix, offset = weights(pixels.shape[3])
    numbers = (pixels / 255 - np.asarray(mean)) / np.asarray(std)
    if channels_first:
        numbers = numbers.transpose(0, 3, 1, 2)
    scores = numbers.reshape(len(pixels), -1) @ matrix.astype(np.float64) + offset
    return np.asarray(exact_softmax(scores, axis=1))


def assert_same(got: NDArray[np.float32], wanted: NDArray[np.float64]) -> None:
    assert got.dtype == np.float32
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, atol=2e-5)
    assert np.ptp(wanted, axis=0).max() > 0.1


@pytest.fixture
def any_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a model pass its input on as its answer, to see what it was given."""
    monkeypatch.setattr(Outputs, "probabilities", lambda outputs, numbers: numbers)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "foreign.onnx"


def opened(path: Path, **said: Any) -> Classifier:
    return Classifier(path, threads=1, description=Description(NAMES, **said))


def refusal(path: Path, names: tuple[str, ...] = NAMES, **said: Any) -> str:
    """Why the model cannot be used as it is described: one line, without the path before it."""
    with pytest.raises(BundleError) as caught:
        Classifier(path, description=Description(names, **said))
    reason = str(caught.value)
    assert "\n" not in reason
    assert reason.startswith(f"{path}: ")
    return reason.removeprefix(f"{path}: ")


# Answers

SIZE = (HEIGHT, WIDTH)
RGB = {"mean": MEAN, "std": STD}
ONE = {"mean": (0.5,), "std": (0.25,)}
LAST: list[Any] = [HEIGHT, WIDTH, 3]
FIRST: list[Any] = [3, HEIGHT, WIDTH]


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (["n", *LAST], {}),
        (["n", *FIRST], {}),
        ([None, *LAST], {}),
        ([1, *LAST], {}),
        ([1, *FIRST], {}),
        (["n", *LAST], {"image_size": SIZE, "channels": 3, "outputs": "logits"}),
        (["n", "h", "w", 3], {"image_size": SIZE}),
        (["n", 3, "h", "w"], {"image_size": SIZE}),
        (["n", None, None, 3], {"image_size": SIZE}),
        (["n", HEIGHT, "w", 3], {"image_size": SIZE}),
        (["n", "h", "w", "c"], {"image_size": SIZE, "channels": 3}),
        ([1, "h", "w", "c"], {"image_size": SIZE, "channels": 3}),
        (["n", HEIGHT, WIDTH, "c"], {"channels": 3}),
    ],
    ids=str,
)
@pytest.mark.parametrize("element", [TensorProto.UINT8, TensorProto.FLOAT])
def test_every_layout_gives_the_expected_probabilities(
    path: Path, shape: list[Any], said: dict[str, Any], element: int
) -> None:
    linear(path, shape, element=element)
    normalization = RGB if element == TensorProto.FLOAT else {}
    model = opened(path, **said, **normalization)
    pixels, channels_first = images(3), shape[1] == 3
    assert_same(
        model.predict(pixels), expected(pixels, channels_first=channels_first, **normalization)
    )
    assert model.document.image.shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("shape", [["n", HEIGHT, WIDTH, 1], ["n", 1, HEIGHT, WIDTH]], ids=str)
def test_grey_images_and_a_softmax_at_the_end(path: Path, shape: list[Any]) -> None:
    linear(path, shape, end=ending("Softmax"), channels=1)
    model = opened(path, **ONE)
    assert_same(model.predict(images(1)), expected(images(1), **ONE))
    assert model.document.image.shape == (HEIGHT, WIDTH, 1)


@pytest.mark.parametrize("said", [ONE, {"mean": (0.5,) * 3, "std": (0.25,)}])
def test_one_number_counts_for_all_channels(path: Path, said: dict[str, Any]) -> None:
    model = opened(linear(path, ["n", *FIRST]), **said)
    assert_same(model.predict(images(3)), expected(images(3), channels_first=True, **ONE))
    assert (model.document.mean, model.document.std) == ((0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize(
    ("operators", "outputs", "applied"),
    [
        ([], "auto", True),
        (["Identity"], "auto", True),
        (["LogSoftmax"], "auto", True),
        (["Softmax"], "auto", False),
        (["Softmax"], "probabilities", False),
        (["Softmax", "Identity"], "probabilities", False),
        (["Softmax", "Log"], "logits", True),
    ],
)
def test_a_softmax_is_applied_to_logits_only(
    path: Path, operators: list[str], outputs: str, applied: bool
) -> None:
    linear(path, ["n", *LAST], element=TensorProto.UINT8, end=ending(*operators) or None)
    model = opened(path, outputs=outputs)
    small = (images(3) // 64).astype(np.uint8)
    assert_same(model.predict(small), expected(small))
    if operators == ["Softmax"]:
        twice = opened(path, outputs="logits").predict(small)
        np.testing.assert_allclose(twice, exact_softmax(expected(small), axis=1), atol=1e-5)


@pytest.mark.parametrize("element", [TensorProto.DOUBLE, TensorProto.FLOAT16])
def test_outputs_of_another_precision_become_float32(path: Path, element: int) -> None:
    cast = [helper.make_node("Cast", ["sum"], ["scores"], to=element)]
    linear(path, ["n", *LAST], end=cast, output_element=element)
    got = opened(path, **RGB).predict(images(3))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected(images(3), **RGB), atol=5e-3)


@pytest.mark.parametrize("batch_size", ["n", 1])
@pytest.mark.parametrize("count", [1, 2, 40])
def test_a_batch_of_any_size_is_answered(path: Path, batch_size: Any, count: int) -> None:
    linear(path, [batch_size, *LAST], element=TensorProto.UINT8)
    small = (images(3, count) // 64).astype(np.uint8)
    np.testing.assert_allclose(opened(path).predict(small), expected(small), atol=2e-5)


@pytest.mark.parametrize("batch_size", ["n", 1])
def test_no_images_no_answers(path: Path, batch_size: Any) -> None:
    linear(path, [batch_size, *LAST], element=TensorProto.UINT8)
    assert opened(path).predict(images(3, 0)).shape == (0, CLASSES)


def test_other_arrays_are_refused(path: Path) -> None:
    model = opened(linear(path, ["n", *FIRST]), **RGB)
    for wrong in (images(3).astype(np.float32), images(1), images(3).transpose(0, 3, 1, 2)):
        with pytest.raises(ValueError, match=r"expected uint8 images of shape \[batch, 6, 5, 3\]"):
            model.predict(wrong)


def test_weights_that_are_listed_as_inputs_are_none(path: Path) -> None:
    linear(path, ["n", *LAST], element=TensorProto.UINT8)
    model = onnx.load(path)
    model.graph.input.insert(0, value("offset", [CLASSES]))
    onnx.save(model, path)
    small = (images(3) // 64).astype(np.uint8)
    assert_same(opened(path).predict(small), expected(small))


def test_the_document_says_what_was_said(path: Path) -> None:
    linear(path, ["n", *FIRST])
    model = opened(path, resize="pad", resample="lanczos", background=7, scaled_decode=False, **RGB)
    assert model.document == BundleDocument(
        class_names=NAMES,
        image=ImageSpec(HEIGHT, WIDTH, 3, "pad", "lanczos", 7, scaled_decode=False),
        mean=MEAN,
        std=STD,
        dataset_fingerprint="",
        config_hash="",
        metrics={},
        versions={"producer": "a test"},
        created="",
    )
    assert BundleDocument.from_json(model.document.to_json()) == model.document


def test_the_image_is_fitted_as_a_photo_unless_told() -> None:
    spec = Description(NAMES).image_spec((3, 4), 3)
    assert spec == ImageSpec(3, 4, 3, "crop", "bilinear", 255)


def mirror(path: Path, element: int = TensorProto.FLOAT) -> Path:
    """A model whose outputs are the three numbers that it gets for one pixel."""
    return save(
        path,
        [helper.make_node("Cast", ["pixels"], ["numbers"], to=TensorProto.FLOAT),
         helper.make_node("Flatten", ["numbers"], ["scores"])],
        [value("pixels", ["n", 1, 1, 3], element)],
        [value("scores", ["n", 3])],
    )  # fmt: skip


ALL_PIXELS = np.stack([np.arange(256), np.arange(256)[::-1], np.full(256, 9)], 1).astype(np.uint8)


def numbers_seen(path: Path, *words: str) -> NDArray[np.float32]:
    """What a model gets for `ALL_PIXELS` with these options."""
    (path.parent / "labels.txt").write_text("a\nb\nc\n")
    options = ["--labels", str(path.parent / "labels.txt"), "--outputs", "probabilities", *words]
    parser = CommandParser(prog="thing", description="", epilog="")
    add_arguments(parser)
    model = Classifier(path, threads=1, description=description(parser.parse_args(options)))
    return model.predict(ALL_PIXELS[:, None, None])


@pytest.mark.usefixtures("any_numbers")
@pytest.mark.parametrize(
    ("words", "low", "high"),
    [
        (["--input-range", "0,255"], 0, 255),
        (["--input-range", "0,1"], 0, 1),
        (["--input-range=-1,1"], -1, 1),
        (["--input-range=-2.5,-0.5"], -2.5, -0.5),
        (["--input-range", "3,4"], 3, 4),
        (["--mean", "0.5", "--std", "0.5"], -1, 1),
        (["--mean=-0.25,-0.25,-0.25", "--std", "0.5"], 0.5, 2.5),
    ],
)
def test_black_and_white_become_the_numbers_asked_for(
    path: Path, words: list[str], low: float, high: float
) -> None:
    got = numbers_seen(mirror(path), *words)
    np.testing.assert_allclose(got, low + ALL_PIXELS / 255 * (high - low), atol=3e-5, rtol=1e-6)


@pytest.mark.usefixtures("any_numbers")
def test_each_channel_has_its_own_numbers(path: Path) -> None:
    got = numbers_seen(mirror(path), "--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225")
    np.testing.assert_allclose(got, (ALL_PIXELS / 255 - MEAN) / STD, atol=1e-5)


@pytest.mark.usefixtures("any_numbers")
def test_uint8_pixels_are_passed_on_as_they_are(path: Path) -> None:
    np.testing.assert_array_equal(numbers_seen(mirror(path, TensorProto.UINT8)), ALL_PIXELS)


@pytest.mark.parametrize("scale", [0.0, 1.0, 80.0, 1e4, 1e30])
def test_the_softmax_is_exact_and_never_overflows(scale: float) -> None:
    logits = np.random.default_rng(1).normal(0, scale, (50, 6)).astype(np.float32)
    got = softmax(logits)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, exact_softmax(logits.astype(np.float64), axis=1), atol=1e-6)


def test_the_softmax_of_nothing_is_nothing() -> None:
    assert softmax(np.zeros((0, 6), np.float32)).shape == (0, 6)


# Refusals of the graph


NUMBERS = "the model takes floating-point numbers: say which with --input-range LOW,HIGH or with "


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({}, f"{NUMBERS}--mean and --std"),
        ({"mean": MEAN}, f"{NUMBERS}--mean and --std"),
        ({"std": STD}, f"{NUMBERS}--mean and --std"),
        ({"mean": (1, 2), "std": STD}, "--mean: expected 1 or 3 numbers, got 2"),
        ({"mean": MEAN, "std": (1,) * 4}, "--std: expected 1 or 3 numbers, got 4"),
        ({**RGB, "channels": 1}, "--channels: the graph takes 3, got 1"),
        ({**RGB, "image_size": (5, 6)}, "--image-size: the graph takes 6x5, got 5x6"),
        ({**RGB, "image_size": (6, 6)}, "--image-size: the graph takes 6x5, got 6x6"),
        ({**RGB, "background": 256}, "image spec: expected background in 0..255, got 256"),
        ({**RGB, "resize": "squeeze"}, "image spec: expected resize to be one of crop, stretch, "
         "pad, got 'squeeze'"),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("shape", [["n", *FIRST], ["n", *LAST]], ids=str)
def test_what_contradicts_the_graph_is_refused(
    path: Path, shape: list[Any], said: dict[str, Any], reason: str
) -> None:
    assert refusal(linear(path, shape), **said) == reason


@pytest.mark.parametrize("said", [RGB, ONE])
def test_pixels_are_not_normalized_for_a_model_of_pixels(path: Path, said: dict[str, Any]) -> None:
    linear(path, ["n", *LAST], element=TensorProto.UINT8)
    assert refusal(path, **said) == (
        "the model takes uint8 pixels: leave out --input-range, --mean and --std"
    )


@pytest.mark.parametrize(
    ("element", "name"),
    [(TensorProto.FLOAT16, "float16"), (TensorProto.INT8, "int8"), (TensorProto.DOUBLE, "float64"),
     (TensorProto.INT64, "int64")],
)  # fmt: skip
def test_other_types_of_numbers_are_refused(path: Path, element: int, name: str) -> None:
    linear(path, ["n", *LAST], element=element)
    assert refusal(path, **RGB) == f"expected an input of uint8 or float32, got {name}"


@pytest.mark.parametrize("names", [NAMES[:3], (*NAMES, "more"), ("only", "two")])
def test_another_number_of_labels_than_outputs_is_refused(
    path: Path, names: tuple[str, ...]
) -> None:
    reason = refusal(linear(path, ["n", *LAST]), names, **RGB)
    assert reason == f"expected 4 labels, one for each output, got {len(names)}"


@pytest.mark.parametrize("names", [NAMES[:3], (*NAMES, "more")])
def test_another_number_of_labels_than_an_open_output_has_is_refused(
    path: Path, names: tuple[str, ...]
) -> None:
    linear(path, ["n", *LAST], output=["n", "classes"])
    with pytest.raises(BundleError) as caught:
        Classifier(path, threads=1, description=Description(names, **RGB)).predict(images(3))
    assert f"expected 4 labels, one for each output, got {len(names)}" in str(caught.value)


def test_an_output_of_open_size_is_answered(path: Path) -> None:
    linear(path, ["n", *LAST], output=["n", "classes"])
    assert_same(opened(path, **RGB).predict(images(3)), expected(images(3), **RGB))


@pytest.mark.parametrize("count", [2, 8, 0])
def test_a_fixed_batch_of_several_is_refused(path: Path, count: int) -> None:
    linear(path, [count, *LAST])
    assert refusal(path, **RGB) == f"expected a batch of any size or of 1, got a graph for {count}"


@pytest.mark.parametrize(
    ("shape", "said", "reason"),
    [
        (["n", 4, HEIGHT, WIDTH], {}, "expected images of 1 or 3 channels, got input [4, 6, 5]"),
        (["n", HEIGHT, WIDTH, 2], {}, "expected images of 1 or 3 channels, got input [6, 5, 2]"),
        (["n", HEIGHT, WIDTH, 2], {"channels": 3},
         "expected images of 1 or 3 channels, got input [6, 5, 2]"),
        (["n", "c", HEIGHT, WIDTH], {},
         "expected images of 1 or 3 channels, got input ['c', 6, 5]"),
        *((["n", *sides, "c"], {}, "the graph leaves the channels open: say --channels 1 or 3")
          for sides in ((HEIGHT, WIDTH), ("h", "w"))),
        (["n", "h", "w", 3], {}, "the graph leaves the image size open: say --image-size"),
        (["n", 3, "h", WIDTH], {}, "the graph leaves the image size open: say --image-size"),
        (["n", "h", "w", "c"], {"channels": 3},
         "the graph leaves the image size open: say --image-size"),
        (["n", "h", WIDTH, 3], {"image_size": (9, 9)},
         "--image-size: the graph takes hx5, got 9x9"),
        (["n", "h", "w", 3], {"image_size": (0, 5)},
         "image spec: expected height to be an integer of at least 1, got 0"),
        (["n", "h", "w", 3], {"image_size": (5, 5000)},
         "image spec: expected height and width of at most 4096, got 5x5000"),
        (["n", HEIGHT, WIDTH], {}, "expected input 'pixels' to have 4 dimensions, got ['n', 6, 5]"),
        (["n", 1, *LAST], {},
         "expected input 'pixels' to have 4 dimensions, got ['n', 1, 6, 5, 3]"),
    ],
)  # fmt: skip
def test_inputs_that_are_no_images_are_refused(
    path: Path, shape: list[Any], said: dict[str, Any], reason: str
) -> None:
    one = numpy_helper.from_array(np.ones((1, CLASSES), np.float32), "one")
    nodes = [helper.make_node("Identity", ["one"], ["scores"])]
    save(path, nodes, [value("pixels", shape)], [value("scores", [1, CLASSES])], [one])
    assert refusal(path, **RGB, **said) == reason


@pytest.mark.parametrize(
    ("inputs", "outputs", "reason"),
    [
        ([], ["y"], "expected one input, got 0: "),
        (["a", "b"], ["y"], "expected one input, got 2: a, b"),
        (["a"], ["y", "z"], "expected one output, got 2: y, z"),
    ],
)
def test_only_one_input_and_one_output_are_known(
    path: Path, inputs: list[str], outputs: list[str], reason: str
) -> None:
    one = numpy_helper.from_array(np.ones((1, 4), np.float32), "one")
    nodes = [helper.make_node("Identity", ["one"], [name]) for name in outputs]
    save(
        path,
        nodes,
        [value(name, ["n", *LAST]) for name in inputs],
        [value(name, [1, 4]) for name in outputs],
        [one],
    )
    assert refusal(path, **RGB) == reason


def test_an_output_that_is_no_list_of_scores_is_refused(path: Path) -> None:
    end = [helper.make_node("ArgMax", ["sum"], ["scores"], axis=1, keepdims=0)]
    linear(path, ["n", *LAST], end=end, output=["n"], output_element=TensorProto.INT64)
    assert refusal(path, **RGB) == "expected output 'scores' to have 2 dimensions, got ['n']"


def test_an_output_that_is_no_number_is_refused(path: Path) -> None:
    save(
        path,
        [helper.make_node("Identity", ["words"], ["scores"])],
        [value("pixels", ["n", *LAST])],
        [value("scores", [1, CLASSES], TensorProto.STRING)],
        [helper.make_tensor("words", TensorProto.STRING, [1, CLASSES], [b"cat"] * CLASSES)],
    )
    with pytest.raises(BundleError):
        opened(path, **RGB).predict(images(3, 1))


@pytest.mark.parametrize("shape", [[], [-1], [1, -1, 1], [4, -1]], ids=str)
def test_an_output_of_another_shape_than_the_graph_says_is_refused(
    path: Path, shape: list[int]
) -> None:
    sizes = numpy_helper.from_array(np.array(shape, np.int64), "shape")
    total = helper.make_node("ReduceSum", ["sum"], ["total"], keepdims=0)
    end = [helper.make_node("Reshape", ["sum" if shape else "total", "shape"], ["scores"])]
    linear(path, ["n", *LAST], end=end if shape else [total, *end], tensors=[sizes])
    model = opened(path, **RGB)
    with pytest.raises(BundleError):
        model.predict(images(3))


@pytest.mark.parametrize("operators", [["Softmax", "Identity"], ["Softmax", "Log"]])
def test_a_softmax_that_is_not_the_last_must_be_explained(path: Path, operators: list[str]) -> None:
    linear(path, ["n", *LAST], end=ending(*operators))
    assert refusal(path, **RGB) == (
        f"the graph has a Softmax and ends in {operators[-1]}: say --outputs logits or "
        "--outputs probabilities"
    )


def test_a_damaged_model_is_refused_before_it_is_described(path: Path) -> None:
    linear(path, ["n", *LAST])
    path.write_bytes(path.read_bytes()[:-50])
    assert refusal(path).startswith("cut off: ")


def test_a_bundle_needs_no_description(trained_run: Path) -> None:
    reason = refusal(trained_run / "model.onnx")
    assert reason == "the bundle says itself what it is: leave out --labels and the like"


def test_a_model_without_a_description_says_what_to_do(path: Path) -> None:
    with pytest.raises(BundleError) as caught:
        Classifier(linear(path, ["n", *LAST]))
    assert str(caught.value) == (
        f"{path}: no bundle: its metadata has no entry '{METADATA_KEY}'; export it with Lockstep, "
        "or give --labels to use it as it is"
    )


def test_a_model_that_fails_while_it_runs_is_one_line(path: Path) -> None:
    linear(path, ["n", "h", "w", 3])
    model = opened(path, image_size=(9, 9), **RGB)
    with pytest.raises(BundleError) as caught:
        model.predict(np.zeros((1, 9, 9, 3), np.uint8))
    assert str(caught.value).startswith(f"{path}: onnxruntime cannot run it: ")
    assert "\n" not in str(caught.value)


# The batch command


@pytest.fixture
def labels(tmp_path: Path) -> str:
    path = tmp_path / "labels.txt"
    path.write_text("\n".join(NAMES) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    """Images of other sizes than the model takes, one of them unreadable."""
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(3)
    for index in range(6):
        pixels = random.integers(0, 256, (HEIGHT + 3 * index, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.{('png', 'jpg')[index % 2]}")
    (folder / "6.png").touch()
    return sorted(map(str, folder.iterdir()))


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_batch_labels_with_a_foreign_model(
    path: Path, labels: str, photos: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    linear(path, ["n", 3, "h", "w"])
    code = batch.main(
        [str(path), str(Path(photos[0]).parent), "--probabilities", "--quiet", "--labels", labels,
         "--image-size", f"{HEIGHT},{WIDTH}", "--mean", "0.485,0.456,0.406",
         "--std", "0.229,0.224,0.225", "--resize", "stretch", "--resample", "bicubic"]
    )  # fmt: skip
    assert code == 0
    rows = rows_of(capsys.readouterr().out)
    assert [row["path"] for row in rows] == photos
    assert rows.pop()["error"] == "empty: 0 bytes"
    spec = ImageSpec(HEIGHT, WIDTH, 3, "stretch", "bicubic")
    pixels = np.stack([read_image(photo, spec) for photo in photos[:-1]])
    got = np.array([[row[f"p({name})"] for name in NAMES] for row in rows], np.float32)
    wanted = expected(pixels, channels_first=True, **RGB)
    assert_same(got, wanted)
    assert [row["label"] for row in rows] == [NAMES[best] for best in wanted.argmax(axis=1)]


@pytest.mark.parametrize("batch_size", ["1", "4"])
def test_batch_takes_models_for_one_image_at_a_time(
    path: Path,
    labels: str,
    photos: list[str],
    capsys: pytest.CaptureFixture[str],
    batch_size: str,
) -> None:
    linear(path, [1, HEIGHT, WIDTH, 1], channels=1, end=ending("Softmax"))
    arguments = [str(path), *photos, "--quiet", "--labels", labels, "--input-range", "0,1",
                 "--format", "jsonl", "--probabilities", "--batch-size", batch_size,
                 "--uncertain-below", "0.5"]  # fmt: skip
    assert batch.main(arguments) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["error"] for row in rows] == [None] * 6 + ["empty: 0 bytes"]
    spec = ImageSpec(HEIGHT, WIDTH, 1)
    pixels = np.stack([read_image(photo, spec) for photo in photos[:-1]])
    wanted = expected(pixels, mean=0, std=1)
    got = np.array([list(row["probabilities"].values()) for row in rows[:-1]], np.float32)
    np.testing.assert_allclose(got, wanted, atol=2e-5)
    assert [row["uncertain"] for row in rows[:-1]] == (wanted.max(axis=1) < 0.5).tolist()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "no bundle: its metadata has no entry 'lockstep.bundle'; export it with Lockstep, or "
             "give --labels to use it as it is"),
        (["--labels", "LABELS"], f"{NUMBERS}--mean and --std"),
        (["--labels", "nowhere.txt"], "nowhere.txt: No such file or directory"),
        (["--input-range", "0,1"], "a model is described by its labels first: give --labels FILE"),
        (["--labels", "LABELS", "--input-range", "0,1", "--uncertain-below", "bundle"],
         "has no threshold of its own; give a number"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_batch_says_in_one_line_what_is_missing(
    path: Path,
    labels: str,
    photos: list[str],
    run_module: RunModule,
    words: list[str],
    reason: str,
) -> None:
    linear(path, ["n", *LAST])
    words = [{"LABELS": labels}.get(word, word) for word in words]
    done = run_module("serve.batch", path, *photos, *words, folder=path.parent)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert reason in done.stderr


def test_batch_refuses_labels_for_a_bundle(
    trained_run: Path, labels: str, photos: list[str]
) -> None:
    bundle = trained_run / "model.onnx"
    with pytest.raises(LockstepError) as caught:
        batch.main([str(bundle), *photos, "--labels", labels])
    assert str(caught.value) == (
        f"{bundle}: the bundle says itself what it is: leave out --labels and the like"
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_answers_that_are_no_numbers_are_refused(bad: float, path: Path) -> None:
    constant = numpy_helper.from_array(np.full(4, bad, np.float32), "bad")
    end = [helper.make_node("Add", ["sum", "bad"], ["scores"])]
    linear(path, ["n", *LAST], end=end, tensors=[constant])
    with pytest.raises(BundleError, match="no finite numbers"):
        opened(path, **RGB).predict(images(3))


def test_logits_that_are_called_probabilities_are_refused(path: Path) -> None:
    linear(path, ["n", *LAST])
    with pytest.raises(BundleError, match="say --outputs logits"):
        opened(path, outputs="probabilities", **RGB).predict(images(3))
