"""What a model from elsewhere answers with: one choice, one of two, or several labels at once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from scipy.special import expit
from scipy.special import softmax as exact_softmax

from serve.bundle import BundleError
from serve.classifier import Classifier
from serve.description import Description
from serve.graph_head import LINEAR, OTHER, SIGMOID, SOFTMAX, head
from serve.onnx_file import outline
from serve.probabilities import sigmoid

SIDE = 4
NAMES = ("cat", "dog", "owl")
TWO = ("no", "yes")

Pixels = NDArray[np.uint8]


def node(operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(operator, inputs, [output], **attributes)


def model(
    path: Path, end: Sequence[NodeProto] = (), *, outputs: int = 3, shape: Any = None
) -> Path:
    """A layer with weights from uint8 pixels to `logits`, then `end`, the last of which makes `y`.

    The logits are clear: about -8 to 8.
    """
    random = np.random.default_rng(outputs)
    weights = random.normal(0, 0.01, (SIDE * SIDE, outputs)).astype(np.float32)
    nodes = [
        node("Cast", ["pixels"], "numbers", to=TensorProto.FLOAT),
        node("Flatten", ["numbers"], "flat"),
        node("Gemm", ["flat", "weights", "biases"], "logits" if end else "y"),
        *end,
    ]
    constants = {
        "weights": weights,
        "biases": random.normal(0, 1, outputs).astype(np.float32),
        "half": np.float32(0.5),
        "one": np.float32(1),
        "flat shape": np.array([-1, outputs], np.int64),
        "column": np.array([1], np.int64),
        "mixing": np.full((outputs, outputs), 1 / outputs, np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", SIDE, SIDE, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape or ["n", outputs])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, path)
    return path


SIGMOIDS = [node("Sigmoid", ["logits"], "y")]
HIDDEN: dict[str, list[NodeProto]] = {
    "identity": [node("Sigmoid", ["logits"], "p"), node("Identity", ["p"], "y")],
    "cast": [
        node("Sigmoid", ["logits"], "p"),
        node("Cast", ["p"], "y", to=TensorProto.FLOAT),
    ],
    "reshape": [node("Sigmoid", ["logits"], "p"), node("Reshape", ["p", "flat shape"], "y")],
    "average": [
        node("Sigmoid", ["logits"], "p"),
        node("Mul", ["logits", "half"], "weaker"),
        node("Sigmoid", ["weaker"], "q"),
        node("Add", ["p", "q"], "sum"),
        node("Mul", ["sum", "half"], "y"),
    ],
    "in steps": [  # 1 / (1 + exp(-x))
        node("Neg", ["logits"], "n"),
        node("Exp", ["n"], "e"),
        node("Add", ["e", "one"], "d"),
        node("Div", ["one", "d"], "y"),
    ],
    "mixed by weights": [
        node("Sigmoid", ["logits"], "p"),
        node("MatMul", ["p", "mixing"], "y"),
    ],
}  # fmt: skip
BENT = [node("Relu", ["logits"], "y")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


def images(count: int = 9) -> Pixels:
    shape = (count, SIDE, SIDE, 1)
    return np.random.default_rng(count).integers(0, 256, shape, dtype=np.uint8)


def raw(path: Path, pixels: Pixels) -> NDArray[np.float64]:
    """What the layer with weights answers, computed here."""
    stored = {item.name: numpy_helper.to_array(item) for item in onnx.load(path).graph.initializer}
    flat = pixels.reshape(len(pixels), -1).astype(np.float64)
    logits: NDArray[np.float64] = flat @ stored["weights"] + stored["biases"]
    return logits


def opened(path: Path, names: tuple[str, ...] = NAMES, **said: Any) -> Classifier:
    return Classifier(path, threads=1, description=Description(names, **said))


def answers(path: Path, names: tuple[str, ...] = NAMES, **said: Any) -> NDArray[np.float32]:
    return opened(path, names, **said).predict(images())


def refusal(path: Path, names: tuple[str, ...] = NAMES, **said: Any) -> str:
    with pytest.raises(BundleError) as caught:
        answers(path, names, **said)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path}: ")


# What a graph ends in


@pytest.mark.parametrize(
    ("end", "found"),
    [
        ([], LINEAR),
        ([node("Identity", ["logits"], "y")], LINEAR),
        ([node("Mul", ["logits", "half"], "y")], LINEAR),
        ([node("Softmax", ["logits"], "y")], SOFTMAX),
        ([node("Softmax", ["logits"], "p"), node("Identity", ["p"], "y")], OTHER),
        (BENT, OTHER),
        (SIGMOIDS, SIGMOID),
        (HIDDEN["identity"], SIGMOID),
        (HIDDEN["cast"], SIGMOID),
        (HIDDEN["reshape"], SIGMOID),
        (HIDDEN["average"], SIGMOID),
        (HIDDEN["in steps"], OTHER),
        ([node("Sigmoid", ["logits"], "p"), node("MatMul", ["p", "mixing"], "y")], LINEAR),
    ],
)  # fmt: skip
def test_the_head_of_a_graph(path: Path, end: list[NodeProto], found: str) -> None:
    assert head(outline(model(path, end).read_bytes())) == found


def test_numbers_straight_from_the_pixels_went_through_no_layer(path: Path) -> None:
    end = [node("ReduceMean", ["numbers"], "m", axes=[1, 2], keepdims=0),
           node("Mul", ["m", "half"], "y")]  # fmt: skip
    assert head(outline(model(path, end, outputs=1).read_bytes())) == OTHER


# Several labels at once


@pytest.mark.parametrize("end", [SIGMOIDS, HIDDEN["identity"], HIDDEN["reshape"],
                                 HIDDEN["in steps"], []])  # fmt: skip
def test_independent_sigmoids_are_a_multi_label_model(path: Path, end: list[NodeProto]) -> None:
    classifier = opened(model(path, end), outputs="sigmoid")
    got = classifier.predict(images())
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expit(raw(path, images())), atol=1e-6)
    assert classifier.document.task == "multi-label"
    assert classifier.document.thresholds == (0.5, 0.5, 0.5)


def test_sigmoids_of_two_labels_are_multi_label_too(path: Path) -> None:
    classifier = opened(model(path, SIGMOIDS, outputs=2), TWO, outputs="sigmoid")
    assert classifier.document.task == "multi-label"
    np.testing.assert_allclose(classifier.predict(images()), expit(raw(path, images())), atol=1e-6)


def test_an_output_of_open_size_is_counted(path: Path) -> None:
    model(path, SIGMOIDS, outputs=2, shape=["n", "labels"])
    assert opened(path, TWO, outputs="sigmoid").document.task == "multi-label"
    model(path, SIGMOIDS, outputs=1, shape=["n", "labels"])
    assert opened(path, TWO, outputs="sigmoid").document.task == "single-label"


@pytest.mark.parametrize(
    ("thresholds", "each"), [((0.3,), (0.3, 0.3, 0.3)), ((0.1, 0.2, 0.3), (0.1, 0.2, 0.3))]
)
def test_thresholds_that_were_said_are_in_the_document(
    path: Path, thresholds: tuple[float, ...], each: tuple[float, ...]
) -> None:
    model(path, SIGMOIDS)
    assert opened(path, outputs="sigmoid", thresholds=thresholds).document.thresholds == each


def test_thresholds_that_fit_nothing_are_refused(path: Path) -> None:
    model(path, SIGMOIDS)
    assert refusal(path, outputs="sigmoid", thresholds=(0.5, 0.5)) == (
        "--threshold: expected 1 or 3 numbers, one for each label, got 2"
    )
    model(path)
    assert refusal(path, thresholds=(0.5,)).startswith(
        "--threshold: expected a model with a sigmoid for each label, got one whose answer is"
    )


def test_answers_that_are_no_probabilities_are_no_sigmoids(path: Path) -> None:
    reason = refusal(model(path, BENT), outputs="sigmoid")
    assert reason.startswith("expected probabilities between 0 and 1, got answers from 0 to ")
    assert reason.endswith("; add a sigmoid to the end of the graph")


def test_a_softmax_is_not_multi_label(path: Path) -> None:
    reason = refusal(model(path, [node("Softmax", ["logits"], "y")]), outputs="sigmoid")
    assert reason == (
        "--outputs sigmoid: the graph ends in a Softmax, whose labels exclude each other; "
        "leave the option out"
    )


# One output, two labels


@pytest.mark.parametrize("shape", [["n", 1], ["n"], ["n", "open"]], ids=str)
@pytest.mark.parametrize(
    ("end", "said"),
    [
        *((SIGMOIDS, said) for said in ("auto", "probabilities", "sigmoid")),
        *((HIDDEN["identity"], said) for said in ("auto", "probabilities", "sigmoid")),
        *((HIDDEN["in steps"], said) for said in ("probabilities", "sigmoid")),
        *(([], said) for said in ("auto", "logits", "sigmoid")),
    ],
)
def test_one_output_is_the_probability_of_the_second_of_two_labels(
    path: Path, shape: list[Any], end: list[NodeProto], said: str
) -> None:
    if shape == ["n"]:  # the same without the dimension of one
        end = [*_renamed(end), node("Squeeze", ["column of one", "column"], "y")]
    model(path, end, outputs=1, shape=shape)
    classifier = opened(path, TWO, outputs=said)
    got = classifier.predict(images())
    second = expit(raw(path, images())[:, 0])
    np.testing.assert_allclose(got, np.stack([1 - second, second], axis=1), atol=1e-6)
    assert got.dtype == np.float32
    assert (classifier.document.task, classifier.document.thresholds) == ("single-label", ())


def _renamed(end: list[NodeProto]) -> list[NodeProto]:
    """The same nodes, with another name for what they make."""
    if not end:
        return [node("Identity", ["logits"], "column of one")]
    last = NodeProto()
    last.CopyFrom(end[-1])
    last.output[0] = "column of one"
    return [*end[:-1], last]


@pytest.mark.parametrize(
    ("end", "said", "reason"),
    [
        (BENT, "auto", "the graph has one output for two labels and ends in Relu: say --outputs "
         "probabilities if the output is the probability of the second label, or --outputs logits "
         "if a sigmoid belongs behind the model"),
        (HIDDEN["in steps"], "auto", "the graph has one output for two labels and ends in Div: "),
        ([], "probabilities", "expected probabilities between 0 and 1, got answers from "),
        (BENT, "sigmoid", "expected probabilities between 0 and 1, got answers from "),
        ([node("Softmax", ["logits"], "y")], "auto",
         "the graph ends in a Softmax over one output, which is always 1; export the model with a "
         "sigmoid or with its logit"),
    ],
)  # fmt: skip
def test_one_output_that_is_no_probability_is_refused(
    path: Path, end: list[NodeProto], said: str, reason: str
) -> None:
    assert refusal(model(path, end, outputs=1), TWO, outputs=said).startswith(reason)


def test_one_output_for_three_labels_is_refused(path: Path) -> None:
    for said in ("auto", "sigmoid", "logits", "probabilities"):
        reason = refusal(model(path, SIGMOIDS, outputs=1), outputs=said)
        assert reason == "expected 1 labels, one for each output, got 3"


# What nobody said is asked


@pytest.mark.parametrize("end", [SIGMOIDS, *HIDDEN.values()], ids=["bare", *HIDDEN])
@pytest.mark.parametrize("count", [1, 9])
def test_a_sigmoid_is_never_taken_for_logits(path: Path, end: list[NodeProto], count: int) -> None:
    model(path, end)
    with pytest.raises(BundleError) as caught:
        opened(path).predict(images(count))
    for choice in ("sigmoid", "probabilities", "logits"):
        assert f"--outputs {choice} if" in str(caught.value)


def test_logits_need_no_question(path: Path) -> None:
    np.testing.assert_allclose(
        answers(model(path)), exact_softmax(raw(path, images()), axis=1), atol=1e-6
    )


def test_logits_that_were_seen_outside_of_0_to_1_are_not_doubted_again(path: Path) -> None:
    """The second batch alone would be asked about."""
    scaled = [node("Mul", ["logits", "one"], "y")]
    made = onnx.load(model(path, scaled))
    for item in made.graph.initializer:
        if item.name == "biases":
            item.CopyFrom(numpy_helper.from_array(np.array([0.1, 0.5, 0.9], np.float32), "biases"))
    onnx.save(made, path)
    black = np.zeros((2, SIDE, SIDE, 1), np.uint8)
    with pytest.raises(BundleError, match="lie between 0 and 1 and do not sum to 1"):
        opened(path).predict(black)
    classifier = opened(path)
    classifier.predict(images())
    np.testing.assert_allclose(
        classifier.predict(black), exact_softmax(raw(path, black), axis=1), atol=1e-6
    )


def test_zeros_tell_nothing(path: Path) -> None:
    made = onnx.load(model(path))
    for item in made.graph.initializer:
        if item.name == "biases":
            item.CopyFrom(numpy_helper.from_array(np.zeros(3, np.float32), "biases"))
    onnx.save(made, path)
    np.testing.assert_allclose(
        opened(path).predict(np.zeros((2, SIDE, SIDE, 1), np.uint8)), 1 / 3, atol=1e-6
    )


# The sigmoid


@pytest.mark.parametrize("scale", [0.0, 1.0, 80.0, 1e4, 1e30])
def test_the_sigmoid_is_exact_and_never_overflows(scale: float) -> None:
    logits = np.random.default_rng(1).normal(0, scale, (50, 6)).astype(np.float32)
    got = sigmoid(logits)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expit(logits.astype(np.float64)), atol=1e-7)
