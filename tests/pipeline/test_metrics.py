"""Figures of the evaluation, held to scikit-learn."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as sklearn

from pipeline.evaluation.metrics import classification_figures

Answers = tuple[NDArray[np.int64], NDArray[np.float32]]


def answers(classes: int, examples: int, seed: int, unused: int = 0) -> Answers:
    """Labels and probabilities that agree more than by chance; `unused` last classes stay out."""
    generator = np.random.default_rng(seed)
    used = classes - unused
    labels = generator.integers(0, used, examples)
    scores = generator.normal(size=(examples, classes)) + 1.5 * np.eye(classes)[labels]
    scores[:, used:] = -50
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return labels, probabilities.astype(np.float32)


@pytest.mark.parametrize(
    ("classes", "examples", "unused"),
    [(2, 40, 0), (3, 7, 0), (10, 500, 0), (10, 200, 2), (40, 60, 0)],
)
def test_agreement_with_scikit_learn(classes: int, examples: int, unused: int) -> None:
    labels, probabilities = answers(classes, examples, seed=classes, unused=unused)
    names = [f"class {number}" for number in range(classes)]
    found = classification_figures(labels, probabilities, names)
    predicted = probabilities.argmax(axis=1)
    assert found["examples"] == examples
    assert found["class_names"] == names
    assert found["accuracy"] == pytest.approx(sklearn.accuracy_score(labels, predicted))
    np.testing.assert_array_equal(
        found["confusion_matrix"],
        sklearn.confusion_matrix(labels, predicted, labels=range(classes)),
    )
    tested = sorted(set(labels.tolist()))
    assert found["classes_tested"] == len(tested)
    for average in ("macro", "weighted"):
        precision, recall, f1, _ = sklearn.precision_recall_fscore_support(
            labels, predicted, labels=tested, average=average, zero_division=0
        )
        assert found[f"precision_{average}"] == pytest.approx(precision)
        assert found[f"recall_{average}"] == pytest.approx(recall)
        assert found[f"f1_{average}"] == pytest.approx(f1)
    each = sklearn.precision_recall_fscore_support(
        labels, predicted, labels=range(classes), zero_division=0
    )
    for index, name in enumerate(names):
        figures = found["per_class"][name]
        if index not in tested:
            assert figures == {"precision": None, "recall": None, "f1": None, "examples": 0}
            continue
        assert [figures[key] for key in ("precision", "recall", "f1", "examples")] == pytest.approx(
            [values[index] for values in each]
        )
    loss = sklearn.log_loss(labels, probabilities, labels=range(classes))
    assert found["loss"] == pytest.approx(loss, rel=1e-5)


def test_top_k_where_classes_allow() -> None:
    labels, probabilities = answers(10, 300, seed=1)
    found = classification_figures(labels, probabilities, list("abcdefghij"))
    for k in (2, 3, 5):
        expected = sklearn.top_k_accuracy_score(labels, probabilities, k=k)
        assert found[f"top_{k}_accuracy"] == pytest.approx(expected)
    two = classification_figures(*answers(2, 30, seed=1), ["a", "b"])
    assert not [key for key in two if key.startswith("top_")]


def test_a_certain_and_wrong_answer_has_a_finite_loss() -> None:
    labels, probabilities = np.array([0]), np.array([[0.0, 1.0]], np.float32)
    assert classification_figures(labels, probabilities, ["a", "b"])["loss"] == pytest.approx(
        -np.log(1e-12)
    )


def test_a_class_without_images_is_not_tested_though_it_is_an_answer() -> None:
    """It has no figures, and the macro figures are those of the others."""
    labels = np.array([0, 0, 1, 1])
    probabilities = np.eye(3, dtype=np.float32)[[0, 2, 1, 1]]
    found = classification_figures(labels, probabilities, ["a", "b", "never"])
    assert found["per_class"]["never"]["recall"] is None
    assert found["per_class"]["never"]["examples"] == 0
    assert (found["classes_tested"], found["recall_macro"]) == (2, 0.75)
    assert found["precision_macro"] == 1
