"""Calibration error and threshold, against slow and plain ways to find the same."""

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from export import calibration
from export.calibration import (
    BINS,
    Bin,
    error_by_chance,
    expected_calibration_error,
    reliability,
    selective_accuracy,
    threshold_for,
)

Logits = NDArray[np.float32]
Labels = NDArray[np.int64]


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    exponents = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def sampled(
    temperature: float, count: int, classes: int = 10, seed: int = 0
) -> tuple[Logits, Labels]:
    """Logits, and labels that come as often as softmax(logits / temperature) says."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 3, (count, classes)).astype(np.float32)
    shares = softmax(logits / temperature).cumsum(axis=1)
    labels = (generator.random((count, 1)) > shares[:, :-1]).sum(axis=1)
    return logits, labels


def reference_bins(probabilities: NDArray[np.float32], labels: Labels, bins: int) -> list[Bin]:
    """Interval after interval, example after example."""
    found = []
    for number in range(bins):
        low, high = number / bins, (number + 1) / bins
        inside = []
        for row, label in zip(probabilities.tolist(), labels.tolist(), strict=True):
            if low < max(row) <= high:
                inside.append((max(row), row.index(max(row)) == label))
        if inside:
            confidence = sum(value for value, _ in inside) / len(inside)
            accuracy = sum(right for _, right in inside) / len(inside)
            found.append(Bin(low, high, len(inside), confidence, accuracy))
    return found


def reference_error(probabilities: NDArray[np.float32], labels: Labels, bins: int) -> float:
    found = reference_bins(probabilities, labels, bins)
    return sum(item.examples / len(labels) * abs(item.accuracy - item.confidence) for item in found)


@pytest.mark.parametrize("bins", [1, 4, 10, BINS])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_the_calibration_error_is_that_of_a_plain_loop(classes: int, bins: int) -> None:
    logits, labels = sampled(1.7, 500, classes, seed=classes)
    probabilities = softmax(logits).astype(np.float32)
    found = reliability(probabilities, labels, bins)
    expected = reference_bins(probabilities, labels, bins)
    assert [item.examples for item in found] == [item.examples for item in expected]
    for one, other in zip(found, expected, strict=True):
        assert (one.low, one.high) == pytest.approx((other.low, other.high))
        assert one.confidence == pytest.approx(other.confidence, rel=1e-12)
        assert one.accuracy == pytest.approx(other.accuracy, rel=1e-12)
    assert expected_calibration_error(found) == pytest.approx(
        reference_error(probabilities, labels, bins), abs=1e-12
    )


def two_classes(*confidences: float) -> NDArray[np.float32]:
    return np.array([[value, 1 - value] for value in confidences], np.float32)


def test_bins_are_closed_on_the_right() -> None:
    """With four bins the edges are exact in binary."""
    found = reliability(two_classes(0.5, 0.50001, 0.75, 0.75001, 1.0), np.zeros(5, np.int64), 4)
    assert [(item.low, item.high, item.examples) for item in found] == [
        (0.25, 0.5, 1),
        (0.5, 0.75, 2),
        (0.75, 1.0, 2),
    ]


@pytest.mark.parametrize("bins", [1, 3, 7, 10, BINS, 100])
def test_confidences_on_the_edges_are_in_one_bin_each(bins: int) -> None:
    edges = np.array([number / bins for number in range(bins // 2 + 1, bins + 1)], np.float32)
    found = reliability(two_classes(*edges), np.zeros(len(edges), np.int64), bins)
    assert sum(item.examples for item in found) == len(edges)
    for item in found:
        assert item.low - 1e-6 <= item.confidence <= item.high + 1e-6
    assert found[-1].high == 1
    assert expected_calibration_error(found) == pytest.approx(float(1 - edges.mean()))


def test_a_confidence_that_rounding_put_above_one_is_in_the_last_bin() -> None:
    probabilities = np.array([[1 + 1e-7, 0.0]], np.float32)
    assert probabilities.max() > 1
    assert [item.high for item in reliability(probabilities, np.array([0]))] == [1]


@pytest.mark.parametrize(("label", "expected"), [(0, 0.0), (1, 1.0)])
def test_certainty_that_is_right_costs_nothing_and_else_everything(
    label: int, expected: float
) -> None:
    bins = reliability(two_classes(1.0, 1.0), np.array([label, label]))
    assert expected_calibration_error(bins) == expected


def test_errors_in_one_bin_cancel_and_those_in_two_do_not() -> None:
    """What the figure is, after all: a distance of means, not a mean of distances."""
    within = reliability(two_classes(0.8, 0.8, 0.8, 0.8, 0.8), np.array([0, 0, 0, 0, 1]))
    assert expected_calibration_error(within) == pytest.approx(0, abs=1e-7)
    apart = reliability(two_classes(0.95, 0.65), np.array([1, 0]))
    assert expected_calibration_error(apart) == pytest.approx((0.95 + 0.35) / 2)


CONFIDENCES = (0.9, 0.6, 0.8, 0.7, 0.55, 0.95, 0.65, 0.75, 0.85, 0.52)


@pytest.mark.parametrize(
    ("coverage", "answered"),
    [(1.0, 10), (0.95, 10), (0.9, 9), (0.5, 5), (0.31, 3), (0.1, 1), (0.04, 1), (1e-9, 1)],
)
def test_the_threshold_answers_the_asked_share(coverage: float, answered: int) -> None:
    probabilities = two_classes(*CONFIDENCES)
    threshold = threshold_for(probabilities, coverage)
    assert threshold == float(np.float32(sorted(CONFIDENCES)[-answered]))
    share, accuracy = selective_accuracy(probabilities, np.zeros(10, np.int64), threshold)
    assert (share, accuracy) == (answered / 10, 1.0)


def test_ties_are_all_answered() -> None:
    probabilities = two_classes(0.9, 0.8, 0.8, 0.8, 0.6)
    threshold = threshold_for(probabilities, 0.4)
    assert threshold == float(np.float32(0.8))
    labels = np.array([0, 0, 1, 1, 1])
    assert selective_accuracy(probabilities, labels, threshold) == (0.8, 0.5)


@pytest.mark.parametrize("coverage", [1e-6, 0.5, 1.0])
def test_one_example_is_always_answered(coverage: float) -> None:
    probabilities = two_classes(0.7)
    threshold = threshold_for(probabilities, coverage)
    assert selective_accuracy(probabilities, np.array([1]), threshold) == (1.0, 0.0)


def test_a_threshold_that_went_through_json_still_answers_the_example_it_came_from() -> None:
    probabilities = softmax(sampled(1.0, 999)[0]).astype(np.float32)
    threshold = json.loads(json.dumps(threshold_for(probabilities, 0.3)))
    share, _ = selective_accuracy(probabilities, np.zeros(999, np.int64), threshold)
    assert share == 300 / 999


def test_above_the_surest_answer_nothing_is_answered() -> None:
    assert selective_accuracy(two_classes(0.9, 0.6), np.array([0, 0]), 0.91) == (0.0, 0.0)


def test_a_lower_coverage_never_lowers_the_threshold() -> None:
    probabilities = softmax(sampled(1.0, 300)[0]).astype(np.float32)
    thresholds = [threshold_for(probabilities, share) for share in np.linspace(1, 0.001, 200)]
    assert thresholds == sorted(thresholds)
    assert thresholds[0] == probabilities.max(axis=1).min()
    assert thresholds[-1] == probabilities.max()


@pytest.mark.parametrize("count", [20, 300, 9000])
def test_chance_explains_the_error_of_a_calibrated_model_19_times_of_20(count: int) -> None:
    """Held to draws of the whole figure, image by image."""
    generator = np.random.default_rng(1)
    confidence = generator.uniform(0.5, 1, count).astype(np.float32)
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    errors = [
        expected_calibration_error(
            reliability(probabilities, (generator.random(count) > confidence).astype(np.int64))
        )
        for _ in range(400)
    ]
    limit = error_by_chance(probabilities)
    assert np.mean(np.array(errors) <= limit) == pytest.approx(0.95, abs=0.035)
    assert limit == error_by_chance(probabilities)


def test_the_sum_of_many_draws_is_as_wide_as_the_draws_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    confidence = np.random.default_rng(2).uniform(0.5, 1, 4000).astype(np.float32)
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    drawn = error_by_chance(probabilities)
    monkeypatch.setattr(calibration, "MANY", 10)
    assert error_by_chance(probabilities) == pytest.approx(drawn, rel=0.06)
