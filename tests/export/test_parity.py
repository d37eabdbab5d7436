"""The comparison at the heart of the proof, on answers made by hand."""

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from export.parity import HUGE, MAX_DROP, Comparison, compare

NAMES = ("cat", "dog", "owl")
LABELS = np.array([0, 1, 2])


def reference() -> NDArray[np.float32]:
    return np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.25, 0.25, 0.5]], np.float32)


def held_to(runs: dict[str, NDArray[np.float32]]) -> Comparison:
    return compare(reference(), runs, LABELS, NAMES)


def moved(example: int, amount: float) -> NDArray[np.float32]:
    """The reference with `amount` moved from the first to the second class of one example."""
    answer = reference()
    answer[example] += np.array([-amount, amount, 0], np.float32)
    return answer


def test_equal_answers_pass() -> None:
    result = held_to({"batches of 1": reference(), "one thread": reference()})
    assert result.passed
    assert result.max_difference == result.mean_difference == result.run_difference == 0
    assert result.label_agreement == result.accuracy == 1
    assert result.accuracy_difference == 0
    assert result.reason == ""


def test_a_small_difference_passes_and_is_reported() -> None:
    result = held_to({"batches of 1": moved(1, 5e-5)})
    assert result.passed
    assert result.max_difference == pytest.approx(5e-5, rel=1e-2)
    assert result.mean_difference == pytest.approx(2 * 5e-5 / 9, rel=1e-2)
    assert result.worst_example == 1
    assert result.worst_reference == ("dog", pytest.approx(0.6))
    assert result.worst_answer == ("dog", pytest.approx(0.60005))


def test_a_difference_above_the_tolerance_fails() -> None:
    result = held_to({"batches of 1": moved(2, 2e-4)})
    assert not result.passed
    assert result.reason == "max difference 0.0002 is above 1e-04"
    assert result.label_agreement == 1


@pytest.mark.parametrize(("tolerance", "passed"), [(1e-3, True), (1e-4, False)])
def test_the_tolerance_is_what_was_asked_for(tolerance: float, passed: bool) -> None:
    runs = {"batches of 1": moved(2, 5e-4)}
    assert compare(reference(), runs, LABELS, NAMES, tolerance=tolerance).passed == passed


def test_a_flipped_label_fails() -> None:
    result = held_to({"batches of 1": moved(0, 0.4)})
    assert not result.passed
    assert "1 labels differ" in result.reason
    assert result.label_agreement == pytest.approx(2 / 3)
    assert result.accuracy == pytest.approx(2 / 3)
    assert result.accuracy_difference == pytest.approx(-1 / 3)
    assert result.worst_answer[0] == "dog"


def test_a_flip_between_tied_classes_agrees() -> None:
    tied = np.array([[0.49998, 0.50002, 0.0]], np.float32)
    flipped = np.array([[0.50001, 0.49999, 0.0]], np.float32)
    result = compare(tied, {"batches of 1": flipped}, np.array([0]), NAMES)
    assert result.passed
    assert result.label_agreement == 1


def test_a_third_label_does_not_agree_where_two_others_tie() -> None:
    """Of two best that tie either may come first; no other label may."""
    tied = np.array([[0.45, 0.45, 0.1]], np.float32)
    answers = np.array([[[0.46, 0.44, 0.1]], [[0.44, 0.46, 0.1]], [[0.3, 0.3, 0.4]]], np.float32)
    agreement = [
        compare(tied, {"batches of 1": answer}, np.array([0]), NAMES).label_agreement
        for answer in answers
    ]
    assert agreement == [1, 1, 0]
    third = compare(tied, {"batches of 1": answers[2]}, np.array([0]), NAMES)
    assert "1 labels differ" in third.reason


@pytest.mark.parametrize("tolerance", [1e-4, 1e-2])
def test_a_label_agrees_if_the_reference_holds_it_for_one_of_its_best(tolerance: float) -> None:
    """Any number of labels may tie; every possible answer to every row is tried."""
    generator = np.random.default_rng(5)
    rows = generator.dirichlet(np.ones(4), 40).astype(np.float32)
    rows[:20, 1] = rows[:20].max(axis=1) - tolerance / 2
    rows[:10, 2] = rows[:10, 1]
    agreements = []
    for label in range(4):
        answer = np.repeat(np.eye(4, dtype=np.float32)[label][None], len(rows), axis=0)
        for row in range(len(rows)):
            found = compare(
                rows[row : row + 1],
                {"one": answer[row : row + 1]},
                None,
                "abcd",
                tolerance=tolerance,
            )
            is_best = rows[row, label] >= rows[row].max() - tolerance
            assert found.label_agreement == is_best
            agreements.append(found.label_agreement)
    assert sum(agreements) >= 55, "two or three best in many rows"


@pytest.mark.parametrize("run", ["batches of 1", "batches of 7", "one thread"])
def test_any_run_can_fail_and_the_worst_is_named(run: str) -> None:
    runs = {name: reference() for name in ("batches of 1", "batches of 7", "one thread")}
    runs[run] = moved(2, 0.01)
    result = held_to(runs)
    assert not result.passed
    assert "answers differ by 0.01 between batches of 1, batches of 7, one thread" in result.reason
    assert result.run_difference == pytest.approx(0.01, rel=1e-4)
    assert result.worst_run == run
    assert result.worst_example == 2
    assert result.mean_difference == pytest.approx(2 * 0.01 / 9 / 3, rel=1e-4)


def test_runs_that_are_each_within_the_tolerance_may_still_differ_too_much() -> None:
    """One is above the reference and one below it: the distance between them is twice as large."""
    runs = {"batches of 1": moved(1, 9e-5), "one thread": moved(1, -9e-5)}
    result = held_to(runs)
    assert not result.passed
    assert result.max_difference < 1e-4
    assert result.reason == "answers differ by 0.00018 between batches of 1, one thread"


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_figures_of_all_runs_are_those_of_one_large_array(count: int) -> None:
    """Runs are taken one by one; nothing may be lost or counted twice on the way."""
    generator = np.random.default_rng(count)
    expected = generator.dirichlet(np.ones(4), 50).astype(np.float32)
    labels = generator.integers(0, 4, 50)
    runs = {
        f"run {number}": (expected + generator.normal(0, 0.05, (50, 4))).astype(np.float32)
        for number in range(count)
    }
    result = compare(expected, runs, labels, "abcd")
    stacked = np.stack(list(runs.values())).astype(np.float64)
    differences = np.abs(stacked - expected)
    assert result.max_difference == pytest.approx(differences.max(), rel=1e-9)
    assert result.mean_difference == pytest.approx(differences.mean(), rel=1e-9)
    assert result.run_difference == pytest.approx(np.ptp(stacked, axis=0).max(), rel=1e-9)
    worst_run, worst, _ = np.unravel_index(differences.argmax(), differences.shape)
    assert (result.worst_run, result.worst_example) == (f"run {worst_run}", worst)
    same = (stacked.argmax(axis=2) == expected.argmax(axis=1)).all(axis=0)
    assert result.label_agreement == pytest.approx(same.mean())
    right = (stacked.argmax(axis=2) == labels).mean(axis=1)
    assert result.accuracy == pytest.approx(right.min())
    assert result.examples == 50


def test_the_accuracy_is_that_of_the_worst_run() -> None:
    result = held_to({"one": reference(), "other": moved(0, 0.4), "third": moved(0, 0.3)})
    assert result.accuracy == pytest.approx(2 / 3)
    assert result.label_agreement == pytest.approx(2 / 3)


def test_without_labels_there_is_no_accuracy_and_the_rest_is_held_all_the_same() -> None:
    good = compare(reference(), {"batches of 1": reference()}, None, NAMES)
    assert good.passed
    assert good.accuracy is good.accuracy_difference is None
    bad = compare(reference(), {"batches of 1": moved(0, 0.4)}, None, NAMES)
    assert not bad.passed
    assert "1 labels differ" in bad.reason
    assert json.loads(json.dumps(bad.to_json()))["accuracy"] is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_answers_that_are_no_numbers_fail_and_fit_into_json(value: float) -> None:
    answer = reference()
    answer[1, 2] = value
    result = held_to({"batches of 1": reference(), "batches of 7": answer})
    assert not result.passed
    assert result.reason == "1 answers are not finite numbers"
    assert result.worst_example == 1
    assert result.worst_run == "batches of 7"
    assert result.max_difference == HUGE
    json.dumps(result.to_json(), allow_nan=False)


def test_a_reference_that_is_no_number_proves_nothing() -> None:
    broken = np.full((3, 3), np.nan, np.float32)
    result = compare(broken, {"batches of 1": reference()}, LABELS, NAMES)
    assert not result.passed
    assert result.reason == "3 answers are not finite numbers"
    json.dumps(result.to_json(), allow_nan=False)


def test_missing_answers_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"expected answers of shape \(3, 3\) at batches of 7"):
        held_to({"batches of 7": reference()[:2]})


def many(right: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """A thousand answers of which the first `right` have the label 0, and these labels."""
    answers = np.full((1000, 2), (0.1, 0.9), np.float32)
    answers[:right] = (0.8, 0.2)
    return answers, np.zeros(1000, np.int64)


@pytest.mark.parametrize(
    ("right", "passed"),
    [(900, True), (896, True), (895, True), (894, False), (950, True)],
)
def test_int8_may_lose_half_a_point_of_accuracy_and_no_more(right: int, passed: bool) -> None:
    expected, labels = many(right=900)
    answers, _ = many(right)
    result = compare(expected, {"batches of 1": answers}, labels, NAMES, allowed_drop=MAX_DROP)
    assert result.passed == passed
    assert result.accuracy_difference == pytest.approx((right - 900) / 1000)
    assert result.label_agreement == pytest.approx(1 - abs(right - 900) / 1000)
    if not passed:
        assert result.reason == "accuracy drops by 0.60 points, more than 0.50"


def test_int8_is_held_in_its_worst_run() -> None:
    expected, labels = many(right=900)
    runs = {"batches of 1": expected, "one thread": many(right=800)[0]}
    result = compare(expected, runs, labels, NAMES, allowed_drop=MAX_DROP)
    assert result.reason.startswith("accuracy drops by 10.00 points, more than 0.50; ")
    assert result.worst_run == "one thread"


def test_int8_must_answer_alike_in_every_run() -> None:
    runs = {"batches of 1": reference(), "one thread": moved(1, -0.01)}
    result = compare(reference(), runs, LABELS, NAMES, allowed_drop=1.0)
    assert result.reason == "answers differ by 0.01 between batches of 1, one thread"


def test_int8_must_not_lose_its_confidence() -> None:
    vague = np.full((3, 3), 0.33, np.float32) + np.eye(3, dtype=np.float32) * 0.01
    result = compare(reference(), {"batches of 1": vague}, LABELS, NAMES, allowed_drop=0.0)
    assert result.accuracy_difference == 0
    assert result.reason == "cross-entropy rises by 0.559 nats, more than 0.05"


def test_int8_may_answer_with_other_probabilities() -> None:
    runs = {"batches of 1": moved(0, 0.03), "one thread": moved(0, 0.03)}
    result = compare(reference(), runs, LABELS, NAMES, allowed_drop=0.0)
    assert result.passed
    assert result.max_difference == pytest.approx(0.03)
    assert result.reason == ""


def test_int8_is_not_excused_from_finite_answers() -> None:
    runs = {"batches of 1": np.full((3, 3), np.nan, np.float32)}
    assert not compare(reference(), runs, LABELS, NAMES, allowed_drop=1.0).passed


def test_int8_cannot_be_held_to_anything_without_labels() -> None:
    with pytest.raises(ValueError, match="expected labels to hold the accuracy to"):
        compare(reference(), {"one": reference()}, None, NAMES, allowed_drop=MAX_DROP)
