"""The temperature: found where the images support it, and else left at 1."""

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from export.calibration import calibration_figures
from export.serving_function import probabilities_of
from export.temperature import PRIOR, TEMPERATURES, fit_temperature

Logits = NDArray[np.float32]
Labels = NDArray[np.int64]


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    exponents = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def answers(temperature: float, count: int, seed: int, classes: int = 5) -> tuple[Logits, Labels]:
    """Logits of easy and hard images, which are calibrated once divided by `temperature`.

    A class's score is normal around its square where it is the true one: then the softmax of the
    scores is the share of right answers.
    """
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, count)
    ease = generator.choice([1.5, 3.0, 4.5], count)[:, None]
    logits = ease * generator.normal(0, 1, (count, classes)) + ease**2 * np.eye(classes)[labels]
    return (temperature * logits).astype(np.float32), labels


def loss(logits: Logits, labels: Labels, temperature: float = 1.0) -> float:
    chosen = softmax(logits / temperature)[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(chosen, 1e-300)).mean())


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("temperature", [0.5, 2.5])
def test_two_thousand_images_find_the_truth(temperature: float, classes: int) -> None:
    found = [fit_temperature(*answers(temperature, 2000, seed, classes)) for seed in range(5)]
    assert all(not fit.kept_because and fit.examples == 2000 for fit in found)
    assert np.mean([fit.value for fit in found]) == pytest.approx(temperature, rel=0.08)


@pytest.mark.parametrize("temperature", [0.5, 1.5, 2.5])
def test_twenty_images_change_little(temperature: float) -> None:
    """However wrong the confidence is: mostly nothing, and never beyond what networks need."""
    found = [fit_temperature(*answers(temperature, 20, seed)) for seed in range(100)]
    logarithms = np.log([fit.value for fit in found])
    assert abs(np.median(logarithms)) < 0.4 * abs(math.log(temperature))
    assert abs(logarithms).max() < math.log(2.5)


@pytest.mark.parametrize("count", [4, 20, 60, 200])
@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.5, 2.5])
def test_new_images_never_pay_for_it(temperature: float, count: int) -> None:
    """On average over many small validation splits; where 1 is right, by the price of testing."""
    new = answers(temperature, 5000, seed=10_000)
    seeds = range(80)
    losses = [
        loss(*new, fit_temperature(*answers(temperature, count, seed)).value) for seed in seeds
    ]
    assert np.mean(losses) <= loss(*new) + 0.002


@pytest.mark.parametrize("count", [10, 60, 143, 1000])
def test_a_calibrated_model_is_left_alone(count: int) -> None:
    found = [fit_temperature(*answers(1.0, count, seed)) for seed in range(100)]
    assert sum(fit.value == 1 for fit in found) >= 90


@pytest.mark.parametrize("per_class", [1, 3, 6, 12])
@pytest.mark.parametrize("confidence", [0.9, 0.98, 0.999])
def test_a_few_right_answers_are_no_reason_to_doubt_or_to_be_surer(
    confidence: float, per_class: int
) -> None:
    """A few dozen photos and not a mistake: the confidence is left as it is."""
    labels = np.arange(2 * per_class) % 2
    logits = (math.log(confidence / (1 - confidence)) * np.eye(2, dtype=np.float32))[labels]
    found = fit_temperature(logits, labels)
    assert found.value == 1
    count = 2 * per_class
    assert found.text == (
        f"temperature 1: {count} validation images do not support another "
        "(they agree with the confidence as trained)"
    )


def test_label_smoothing_is_undone_by_a_hundred_and_fifty_images() -> None:
    """A model that says 94 % and is right 99 times of 100, as after label smoothing."""
    generator = np.random.default_rng(0)
    labels = np.arange(150) % 10
    given = np.eye(10, dtype=bool)[labels]
    scores = np.where(given, 5, 0) + generator.normal(0, 0.2, (150, 10))
    scores[7, labels[7]], scores[7, (labels[7] + 1) % 10] = 0.5, 1.0
    confidence = softmax(scores).max(axis=1).mean()
    assert 0.92 < confidence < 0.95
    found = fit_temperature(scores.astype(np.float32), labels)
    assert 0.6 < found.value < 0.9
    assert found.loss is not None
    assert found.loss_at_one is not None
    assert found.loss < found.loss_at_one
    assert found.text == f"temperature {found.value:.2g}, fitted on 150 validation images"


def held_out_loss(logits: Logits, labels: Labels, folds: int, temperatures: NDArray) -> float:
    """Leave out one of `folds` groups, take the best temperature of a grid on the others."""
    fold = np.empty(len(labels), int)
    fold[np.argsort(labels, kind="stable")] = np.arange(len(labels)) % folds
    total = 0.0
    for number in range(folds):
        rest, held = fold != number, fold == number
        costs = [
            loss(logits[rest], labels[rest], t) * rest.sum() + (math.log(t) / PRIOR) ** 2 / 2
            for t in temperatures
        ]
        best = float(temperatures[int(np.argmin(costs))])
        total += loss(logits[held], labels[held], best) * held.sum()
    return total / len(labels)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("temperature", [0.6, 1.0, 2.0])
def test_the_cross_validated_loss_is_that_of_a_slow_search(temperature: float, seed: int) -> None:
    logits, labels = answers(temperature, 90, seed)
    found = fit_temperature(logits, labels)
    if found.loss is None:
        assert found.value == 1
        return
    assert found.loss_at_one == pytest.approx(loss(logits, labels))
    grid = np.geomspace(0.3, 4, 400)
    assert found.loss == pytest.approx(held_out_loss(logits, labels, 5, grid), abs=1e-3)
    assert (found.value == 1) == (found.kept_because != "")
    if found.value != 1:
        assert found.loss < found.loss_at_one


def test_one_surprise_among_sure_answers_is_not_believed_by_the_other_folds() -> None:
    """The score test is alarmed; the temperature that it asks for makes the others worse."""
    labels = np.arange(40) % 2
    logits = (7 * np.eye(2, dtype=np.float32))[labels]
    logits[3] = logits[3, ::-1]
    found = fit_temperature(logits, labels)
    assert (found.value, found.kept_because) == (1, "the cross-validated loss would not fall")
    assert found.loss is not None
    assert found.loss_at_one is not None
    assert found.loss >= found.loss_at_one


def test_a_lower_loss_that_costs_calibration_is_not_taken() -> None:
    """Easy images much too sure, hard ones rightly unsure: one temperature cannot mend both."""
    generator = np.random.default_rng(2)
    kept = []
    for _ in range(60):
        count = 300
        labels = generator.integers(0, 2, count)
        size = np.where(np.arange(count) < 260, 1.3, 9.0)
        right = np.where(np.arange(count) < 260, 0.86, 0.93)
        sign = np.where(generator.random(count) < right, 1.0, -1.0)
        logits = np.zeros((count, 2), np.float32)
        logits[np.arange(count), labels] = sign * size
        found = fit_temperature(logits, labels)
        kept.append(found.kept_because)
        if found.value != 1:
            before, after = (probabilities_of(logits, t) for t in (1.0, found.value))
            figures = calibration_figures(before, after, labels)
            assert figures["after"]["ece"] <= figures["before"]["ece"] + 0.01
    assert "the cross-validated calibration error would rise" in kept


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (np.zeros((4, 3), np.float32), np.array([0, 1, 2, 0])),
        (np.array([[5.0, 0.0], [5.0, 0.0]], np.float32), np.array([1, 1])),
        (np.array([[1e30, -1e30]], np.float32), np.array([0])),
        (np.array([[1e30, -1e30]], np.float32), np.array([1])),
        (np.array([[1e30, -1e30]] * 9, np.float32), np.array([0] * 8 + [1])),
        (np.array([[9.0, 0.0]] * 3000, np.float32), np.ones(3000, np.int64)),
    ],
    ids=["undecided", "all wrong", "one", "one wrong", "huge", "never right"],
)
def test_no_temperature_lies_at_a_bound(logits: Logits, labels: Labels) -> None:
    found = fit_temperature(logits, labels)
    assert found.value == 1 or TEMPERATURES[0] * 1.01 < found.value < TEMPERATURES[1] / 1.01
    assert found.value == round(found.value, 6)


def test_a_model_that_is_always_wrong_is_not_mended() -> None:
    logits = np.array([[9.0, 0.0]] * 3000, np.float32)
    found = fit_temperature(logits, np.ones(3000, np.int64))
    assert (found.value, found.kept_because) == (1, "no temperature from 0.05 to 20 fits")
    assert "3,000 validation images do not support another" in found.text


def test_the_fit_does_not_change_its_inputs_and_gives_the_same_again() -> None:
    logits, labels = answers(2.0, 200, seed=1)
    before = logits.copy(), labels.copy()
    assert fit_temperature(logits, labels) == fit_temperature(logits, labels)
    np.testing.assert_array_equal(logits, before[0])
    np.testing.assert_array_equal(labels, before[1])


def test_logits_may_be_moved_by_a_constant() -> None:
    logits, labels = answers(2.0, 300, seed=1)
    moved = (logits + np.linspace(-50, 50, 300)[:, None]).astype(np.float32)
    assert fit_temperature(moved, labels).value == pytest.approx(
        fit_temperature(logits, labels).value, abs=1e-3
    )


def test_no_temperature_changes_a_label() -> None:
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


def test_the_fitted_temperature_makes_confidence_and_accuracy_meet() -> None:
    logits, labels = answers(2.5, 20_000, seed=0)
    temperature = fit_temperature(logits[:10_000], labels[:10_000]).value
    before = softmax(logits[10_000:]).astype(np.float32)
    after = softmax(logits[10_000:] / temperature).astype(np.float32)
    figures = calibration_figures(before, after, labels[10_000:])
    assert figures["before"]["ece"] > 0.07
    assert figures["after"]["ece"] < 0.02
    assert sum(item["examples"] for item in figures["after"]["bins"]) == 10_000
