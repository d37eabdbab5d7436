"""The comparison at the heart of the proof, on answers made by hand."""

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from export.parity import Comparison, compare

NAMES = ("cat", "dog", "owl")
LABELS = np.array([0, 1, 2])


def reference() -> NDArray[np.float32]:
    return np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.25, 0.25, 0.5]], np.float32)


def held_to(answers: dict[int, NDArray[np.float32]]) -> Comparison:
    return compare(reference(), answers, LABELS, NAMES)


def moved(example: int, amount: float) -> NDArray[np.float32]:
    """The reference with `amount` moved from the first to the second class of one example."""
    answer = reference()
    answer[example] += np.array([-amount, amount, 0], np.float32)
    return answer


def test_equal_answers_pass() -> None:
    result = held_to({1: reference(), 7: reference()})
    assert result.passed
    assert result.max_difference == result.batch_difference == 0
    assert result.label_agreement == 1
    assert result.reason == ""


def test_a_small_difference_passes_and_is_reported() -> None:
    result = held_to({1: moved(1, 5e-5)})
    assert result.passed
    assert result.max_difference == pytest.approx(5e-5, rel=1e-2)
    assert result.worst_example == 1
    assert result.worst_reference[0] == "dog"


def test_a_difference_above_the_tolerance_fails() -> None:
    result = held_to({1: moved(2, 2e-4)})
    assert not result.passed
    assert "max difference 0.0002 is above 1e-04" in result.reason
    assert result.label_agreement == 1


def test_a_flipped_label_fails() -> None:
    result = held_to({1: moved(0, 0.4)})
    assert not result.passed
    assert "1 labels differ" in result.reason
    assert result.label_agreement == pytest.approx(2 / 3)
    assert result.accuracy_difference == pytest.approx(-1 / 3)
    assert result.worst_answer[0] == "dog"


def test_a_flip_between_tied_classes_agrees() -> None:
    tied = np.array([[0.49998, 0.50002, 0.0]], np.float32)
    flipped = np.array([[0.50001, 0.49999, 0.0]], np.float32)
    result = compare(tied, {1: flipped}, np.array([0]), NAMES)
    assert result.passed
    assert result.label_agreement == 1


def test_any_batch_size_can_fail() -> None:
    result = held_to({1: reference(), 7: moved(0, 0.01), 256: reference()})
    assert not result.passed
    assert "depend on the batch size by 0.01" in result.reason
    assert result.batch_difference == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_answers_that_are_no_numbers_fail_and_fit_into_json(value: float) -> None:
    answer = reference()
    answer[1, 2] = value
    result = held_to({1: answer, 7: reference()})
    assert not result.passed
    assert result.reason == "1 answers are not finite numbers"
    assert result.worst_example == 1
    json.dumps(result.to_json(), allow_nan=False)


def test_a_reference_that_is_no_number_proves_nothing() -> None:
    broken = np.full((3, 3), np.nan, np.float32)
    result = compare(broken, {1: reference()}, LABELS, NAMES)
    assert not result.passed
    assert result.reason == "3 answers are not finite numbers"
    json.dumps(result.to_json(), allow_nan=False)


def test_missing_answers_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"expected answers of shape \(3, 3\) at batch size 7"):
        held_to({7: reference()[:2]})
