"""Temperature, calibration error and threshold, against slow and plain ways to find the same."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from export.calibration import (
    BINS,
    TEMPERATURES,
    Bin,
    calibration_figures,
    expected_calibration_error,
    fit_temperature,
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


def platt_loss(logits: Logits, labels: Labels, temperature: float) -> float:
    """The cross-entropy with Platt's targets, one example and one class after the other."""
    count, classes = logits.shape
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        scaled = [value / temperature for value in row]
        largest = max(scaled)
        normalizer = largest + math.log(sum(math.exp(value - largest) for value in scaled))
        for index, value in enumerate(scaled):
            certain, doubt = (count + 1) / (count + 2), 1 / (count + 2)
            target = certain if index == label else doubt / (classes - 1)
            total -= target * (value - normalizer)
    return total / count


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_a_known_temperature_is_found_again(temperature: float, classes: int) -> None:
    logits, labels = sampled(temperature, 40_000, classes)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.04)


@pytest.mark.parametrize("seed", range(5))
def test_no_temperature_on_a_grid_is_better(seed: int) -> None:
    generator = np.random.default_rng(seed)
    logits, labels = sampled(float(generator.uniform(0.3, 4)), 60, classes=4, seed=seed)
    found = fit_temperature(logits, labels)
    grid = np.geomspace(*TEMPERATURES, 500)
    losses = [platt_loss(logits, labels, temperature) for temperature in grid]
    assert platt_loss(logits, labels, found) <= min(losses) + 1e-7
    best = grid[int(np.argmin(losses))]
    assert found == pytest.approx(best, rel=0.02)


@pytest.mark.parametrize("count", [1, 2, 5, 50])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 10.0, 1e4])
def test_a_split_without_a_mistake_does_not_make_it_infinitely_sure(
    count: int, scale: float
) -> None:
    labels = np.arange(count) % 3
    logits = (scale * np.eye(3, dtype=np.float32))[labels]
    temperature = fit_temperature(logits, labels)
    assert TEMPERATURES[0] <= temperature <= TEMPERATURES[1]
    probabilities = softmax(logits / temperature)
    if TEMPERATURES[0] * 1.01 < temperature < TEMPERATURES[1] * 0.99:
        # The best that one temperature can do is what Platt's targets say.
        np.testing.assert_allclose(probabilities.max(axis=1), (count + 1) / (count + 2), rtol=1e-3)


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (np.zeros((4, 3), np.float32), np.array([0, 1, 2, 0])),
        (np.array([[5.0, 0.0], [5.0, 0.0]], np.float32), np.array([1, 1])),
        (np.array([[1e30, -1e30]], np.float32), np.array([0])),
        (np.array([[1e30, -1e30]], np.float32), np.array([1])),
    ],
    ids=["undecided", "all wrong", "huge and right", "huge and wrong"],
)
def test_the_temperature_stays_within_its_bounds(logits: Logits, labels: Labels) -> None:
    temperature = fit_temperature(logits, labels)
    assert TEMPERATURES[0] <= temperature <= TEMPERATURES[1]
    assert temperature == round(temperature, 6)


def test_always_wrong_and_sure_of_it_gets_the_highest_temperature() -> None:
    logits = np.array([[9.0, 0.0]] * 20, np.float32)
    assert fit_temperature(logits, np.ones(20, np.int64)) == pytest.approx(
        TEMPERATURES[1], rel=0.01
    )


def test_the_fit_does_not_change_its_inputs_and_gives_the_same_again() -> None:
    logits, labels = sampled(2.0, 200)
    before = logits.copy(), labels.copy()
    assert fit_temperature(logits, labels) == fit_temperature(logits, labels)
    np.testing.assert_array_equal(logits, before[0])
    np.testing.assert_array_equal(labels, before[1])


def test_no_temperature_changes_a_label() -> None:
    from export.serving_function import probabilities_of

    generator = np.random.default_rng(7)
    logits = generator.normal(0, 4, (3000, 10)).astype(np.float32)
    # Two numbers that are nearly the same can become the same, never change places.
    for temperature in (*TEMPERATURES, *np.exp(generator.uniform(*np.log(TEMPERATURES), 20))):
        probabilities = probabilities_of(logits, round(float(temperature), 6))
        rows, best = np.arange(3000), logits.argmax(axis=1)
        np.testing.assert_array_equal(probabilities[rows, best], probabilities.max(axis=1))
        clear = np.diff(np.sort(logits, axis=1)[:, -2:], axis=1)[:, 0] > 1e-3
        assert clear.mean() > 0.99
        np.testing.assert_array_equal(probabilities.argmax(axis=1)[clear], best[clear])


@pytest.mark.parametrize("temperature", [0.05, 0.7, 3.0, 20.0])
def test_the_exported_graph_labels_alike_with_and_without_temperature(
    temperature: float, tmp_path: Path
) -> None:
    import keras
    import onnxruntime

    import models
    from export.serving_function import serving_function
    from export.to_onnx import convert
    from models.options import LenetOptions

    keras.utils.set_random_seed(1)
    model = models.build(LenetOptions(), (8, 8, 1), 6, mean=[0.5], std=[0.25])
    images = np.random.default_rng(2).integers(0, 256, (500, 8, 8, 1)).astype(np.uint8)
    answers = []
    for divisor in (1.0, temperature):
        proto = convert(serving_function(model, divisor), (8, 8, 1))
        session = onnxruntime.InferenceSession(proto.SerializeToString())
        answers.append(session.run(["probabilities"], {"image": images})[0])
    plain, scaled = answers
    np.testing.assert_array_equal(plain.argmax(axis=1), scaled.argmax(axis=1))
    expected = softmax(np.log(plain.astype(np.float64)) / temperature)
    np.testing.assert_allclose(scaled, expected, atol=1e-4)
    assert np.abs(plain - scaled).max() > 0.01


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


def test_the_fitted_temperature_makes_confidence_and_accuracy_meet() -> None:
    logits, labels = sampled(2.5, 20_000)
    temperature = fit_temperature(logits[:10_000], labels[:10_000])
    before = softmax(logits[10_000:]).astype(np.float32)
    after = softmax(logits[10_000:] / temperature).astype(np.float32)
    figures = calibration_figures(before, after, labels[10_000:])
    assert figures["before"]["ece"] > 0.1
    assert figures["after"]["ece"] < 0.02
    assert sum(item["examples"] for item in figures["after"]["bins"]) == 10_000


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
