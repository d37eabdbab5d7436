"""What a model gives is read from the end of its graph and from its answers, or asked."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from numpy.typing import NDArray

from export.foreign.outputs import OutputsError, decide
from export.foreign.tail import LOGARITHM, MIXED, RAW, SIGMOID, SOFTMAX
from tests.export.foreign.colours import Tensors, colours
from tests.export.foreign.conftest import Adopt

SIGMOIDS = np.array([[0.98, 0.95, 0.02], [0.5, 0.1, 0.2]], np.float32)
SHARES = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], np.float32)
ONE_HOT = np.array([[1, 0, 0], [0, 0, 1]], np.float32)
LOGITS = np.array([[3, -2, 0.5], [1, 2, -7]], np.float32)


@pytest.mark.parametrize(
    ("answers", "kind", "stated", "outputs", "activation"),
    [
        (SHARES, SOFTMAX, "auto", "probabilities", ""),
        (SHARES, MIXED, "auto", "probabilities", ""),
        (SHARES, RAW, "auto", "probabilities", ""),
        (SIGMOIDS, SIGMOID, "auto", "sigmoid", ""),
        (ONE_HOT, SIGMOID, "auto", "sigmoid", ""),
        (LOGITS, RAW, "auto", "logits", "softmax"),
        (np.log(SHARES), LOGARITHM, "auto", "logits", "softmax"),
        (SIGMOIDS, MIXED, "sigmoid", "sigmoid", ""),
        (LOGITS, RAW, "sigmoid", "sigmoid", "sigmoid"),
        (LOGITS, RAW, "logits", "logits", "softmax"),
        (SHARES, RAW, "probabilities", "probabilities", ""),
        (SIGMOIDS[:, :1], SIGMOID, "auto", "sigmoid", ""),
        (LOGITS[:, :1], RAW, "auto", "logits", "sigmoid"),
        (SIGMOIDS[:, :1], MIXED, "sigmoid", "sigmoid", ""),
        (SIGMOIDS[:, :1], MIXED, "probabilities", "probabilities", ""),
        (LOGITS[:, :1], RAW, "sigmoid", "sigmoid", "sigmoid"),
        (LOGITS[:, :1], RAW, "logits", "logits", "sigmoid"),
    ],
)
def test_what_can_be_told(
    answers: NDArray[np.float32], kind: str, stated: str, outputs: str, activation: str
) -> None:
    found = decide(answers, kind, stated)
    assert (found.head.outputs, found.head.activation) == (outputs, activation)
    assert found.head.is_pair == (answers.shape[1] == 1)
    assert found.warnings == ()
    many = outputs == "sigmoid" and answers.shape[1] > 1
    assert found.head.task == ("multi-label" if many else "single-label")


@pytest.mark.parametrize(
    ("answers", "kind", "stated", "message"),
    [
        (SIGMOIDS, MIXED, "auto", "sums from 0.8 to 1.95 for an image"),
        (SIGMOIDS, RAW, "auto", "say --outputs sigmoid"),
        (SIGMOIDS, SOFTMAX, "auto", "although a softmax makes them"),
        (ONE_HOT, MIXED, "auto", "say --outputs sigmoid"),
        (100 * SHARES, MIXED, "auto", "say --outputs sigmoid"),
        (LOGITS, MIXED, "auto", "--outputs logits"),
        (SIGMOIDS, RAW, "probabilities", "expected answers that sum to 1, got sums from 0.8"),
        (LOGITS, SOFTMAX, "sigmoid", "expected answers from 0 to 1, got -7 to 3"),
        (LOGITS * np.nan, RAW, "logits", "NaN or infinite numbers for 2 of 2 images"),
        (SIGMOIDS[:, :1], RAW, "auto", "the probability of the second label"),
        (SIGMOIDS[:, :1], MIXED, "auto", "say --outputs sigmoid"),
        (LOGITS[:, :1], RAW, "probabilities", "say --outputs logits"),
        (ONE_HOT[:1, :1], SOFTMAX, "auto", "a softmax over it, which is 1 for every image"),
    ],
)
def test_what_cannot_be_told_is_asked(
    answers: NDArray[np.float32], kind: str, stated: str, message: str
) -> None:
    with pytest.raises(OutputsError) as caught:
        decide(answers, kind, stated)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("answers", "kind", "stated", "message"),
    [
        (SHARES, SOFTMAX, "logits", "sum to 1 for every image"),
        (SIGMOIDS, SIGMOID, "logits", "--outputs sigmoid is likelier right"),
        (SHARES, SOFTMAX, "sigmoid", "say --outputs probabilities"),
        (SIGMOIDS[:, :1], SIGMOID, "logits", "a second sigmoid would give 0.5 to 0.73"),
    ],
)
def test_what_was_said_against_all_signs_is_warned_of(
    answers: NDArray[np.float32], kind: str, stated: str, message: str
) -> None:
    (warning,) = decide(answers, kind, stated).warnings
    assert message in warning


@keras.saving.register_keras_serializable("lockstep-tests")
class OwnSigmoid(layers.Layer):
    """No graph shows what this is."""

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        return 1 / (1 + ops.exp(-inputs))


SIGMOID_ENDS: dict[str, tuple[str | None, Tensors]] = {
    "dense": ("sigmoid", lambda x: x),
    "cast": ("sigmoid", layers.Activation("linear", dtype="float32")),
    "operation": (None, ops.sigmoid),
    "reshape": ("sigmoid", layers.Reshape((3,))),
    "flatten": ("sigmoid", layers.Flatten()),
    "dropout": ("sigmoid", layers.Dropout(0.5)),
    "concatenate": (
        "sigmoid",
        lambda x: layers.Concatenate()([x[:, :1], x[:, 1:]]),
    ),
}


@pytest.mark.parametrize("name", SIGMOID_ENDS)
def test_a_sigmoid_is_found_behind_what_changes_no_value(name: str, adopt: Adopt) -> None:
    activation, end = SIGMOID_ENDS[name]
    model = colours(end, activation=activation)
    found = adopt(model)
    assert found.decision.head.task == "multi-label"
    pixels = found.read.pixels.astype(np.float32)
    np.testing.assert_allclose(found.reference, model.predict(pixels, verbose=0), atol=1e-6)


ASKED: dict[str, tuple[str | None, Tensors]] = {
    "average": ("sigmoid", lambda x: layers.Average()([x, x])),
    "clip": ("sigmoid", lambda x: ops.clip(x, 0.01, 0.99)),
    "rescaling": ("sigmoid", layers.Rescaling(0.5)),
    "maximum": ("sigmoid", lambda x: layers.Maximum()([x, x])),
    "own": (None, OwnSigmoid()),
    "hard sigmoid": ("hard_sigmoid", lambda x: x),
    "softmax divided": ("softmax", lambda x: x / 2.0),
    "softmax over the batch": (None, lambda x: ops.softmax(x, axis=0)),
}


@pytest.mark.parametrize("name", ASKED)
def test_numbers_that_look_like_sigmoids_are_asked_about(name: str, adopt: Adopt) -> None:
    activation, end = ASKED[name]
    with pytest.raises(OutputsError, match=r"say --outputs sigmoid .*--outputs logits"):
        adopt(colours(end, activation=activation))


@pytest.mark.parametrize(
    ("activation", "end", "outputs"),
    [
        ("softmax", layers.Rescaling(1.0), "probabilities"),
        ("softmax", lambda x: layers.Average()([x, x]), "probabilities"),
        (None, lambda x: ops.exp(x) / ops.sum(ops.exp(x), axis=-1, keepdims=True), "probabilities"),
        ("log_softmax", lambda x: x, "logits"),
        (None, lambda x: x / 2.0, "logits"),
        ("tanh", lambda x: x, "logits"),
        ("swish", lambda x: x, "logits"),
    ],
    ids=["rescaled", "averaged", "by hand", "logarithm", "temperature", "tanh", "swish"],
)
def test_other_ends(activation: str | None, end: Tensors, outputs: str, adopt: Adopt) -> None:
    found = adopt(colours(end, activation=activation))
    assert found.decision.head.outputs == outputs
    np.testing.assert_allclose(found.reference.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("activation", ["sigmoid", None])
@pytest.mark.parametrize("squeezed", [False, True])
def test_one_output_is_the_second_of_two_labels(
    activation: str | None, squeezed: bool, adopt: Adopt
) -> None:
    end: Tensors = (lambda x: ops.squeeze(x, axis=-1)) if squeezed else (lambda x: x)
    found = adopt(colours(end, activation=activation, outputs=1), labels=("blue", "red"))
    assert found.decision.head.task == "single-label"
    assert found.reference.shape == (27, 2)
    assert found.accuracy == 1.0, "of the images with a known label"
    assert "18 of 18 images with a known label of 27 given" in found.accuracy_told()


def test_one_output_needs_two_labels(adopt: Adopt) -> None:
    with pytest.raises(Exception, match="expected 2 labels, in the order 0, 1, got 3"):
        adopt(colours(outputs=1, activation="sigmoid"))


def test_thresholds_are_those_of_a_multi_label_model(adopt: Adopt) -> None:
    assert adopt(colours(activation="sigmoid"), thresholds=(0.4,)).given.thresholds == (0.4,)
    with pytest.raises(Exception, match="--threshold: the model is single-label"):
        adopt(colours(), thresholds=(0.4,))
