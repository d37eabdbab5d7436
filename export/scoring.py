"""How answers are judged, by the model's task: pure functions of truth and probabilities.

Single-label: the most probable class is the answer. Multi-label: every label whose probability
reaches its threshold is, so an answer is a set of labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serve.multi_label import has_labels

Truth = NDArray[Any]
"""int64 `[examples]`, the true class; of a multi-label model bool `[examples, labels]`."""

Probabilities = NDArray[np.float32]
Row = NDArray[np.floating[Any]]

LEAST = 1e-12
"""A smaller probability counts as this in a logarithm."""


@dataclass(frozen=True)
class Scoring:
    """What a comparison needs to know of a task.

    Attributes:
        agree: whether each answer is the reference's, bool `[examples]`, of reference, answer and
            tolerance; an answer on which the reference itself is undecided within the tolerance
            agrees.
        accuracy: share of examples whose answer is wholly right.
        cross_entropy: mean negative log-likelihood, in nats.
        columns: which probability of the reference and which of the answer tell best how two rows
            differ.
    """

    agree: Callable[[Probabilities, Probabilities, float], NDArray[np.bool_]]
    accuracy: Callable[[Truth, Probabilities], float]
    cross_entropy: Callable[[Truth, Probabilities], float]
    columns: Callable[[Row, Row], tuple[int, int]]


def multi_label(thresholds: Sequence[float]) -> Scoring:
    """The scoring of a model that gives every label from its threshold on."""

    def agree(
        reference: Probabilities, answer: Probabilities, tolerance: float
    ) -> NDArray[np.bool_]:
        same = has_labels(reference, thresholds) == has_labels(answer, thresholds)
        undecided = np.abs(reference - np.asarray(thresholds, np.float64)) <= tolerance
        agree: NDArray[np.bool_] = (same | undecided).all(axis=1)
        return agree

    return Scoring(
        agree=agree,
        accuracy=lambda truth, answer: exact_match(truth, answer, thresholds),
        cross_entropy=binary_cross_entropy,
        columns=_most_different,
    )


def exact_match(truth: Truth, probabilities: Probabilities, thresholds: Sequence[float]) -> float:
    """Share of examples that get exactly their labels: scikit-learn's accuracy of label sets."""
    return float((has_labels(probabilities, thresholds) == truth).all(axis=1).mean())


def label_accuracy(
    truth: Truth, probabilities: Probabilities, thresholds: Sequence[float]
) -> float:
    """Share of all decisions, one for each example and label, that are right: 1 - Hamming loss."""
    return float((has_labels(probabilities, thresholds) == truth).mean())


def binary_cross_entropy(truth: Truth, probabilities: Probabilities) -> float:
    """Mean over examples and labels of the negative log-likelihood, in nats."""
    exact = probabilities.astype(np.float64)
    chosen = np.where(truth, exact, 1 - exact)
    return float(-np.log(np.maximum(chosen, LEAST)).mean())


def _most_different(reference: Row, answer: Row) -> tuple[int, int]:
    """The label with the largest difference, in both."""
    worst = int(np.abs(answer.astype(np.float64) - reference).argmax())
    return worst, worst
