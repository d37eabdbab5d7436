"""int8 beside float: what was seen, and what the images can exclude."""

import numpy as np
import pytest

from export.agreement import agreement


def one_hot(answers: list[int] | np.ndarray) -> np.ndarray:
    return np.eye(3, dtype=np.float32)[answers]


@pytest.mark.parametrize("count", [1, 4, 34])
def test_equal_answers_on_few_images_are_no_proof(count: int) -> None:
    labels = np.arange(count) % 3
    found = agreement(labels, one_hot(labels), one_hot(labels))
    assert (found.same, found.examples, found.difference) == (count, count, 0)
    assert f"{count} test images are too few" in found.reason


@pytest.mark.parametrize(("count", "excluded"), [(35, False), (359, False), (800, True)])
def test_what_is_not_excluded_is_said(count: int, excluded: bool) -> None:
    labels = np.arange(count) % 3
    found = agreement(labels, one_hot(labels), one_hot(labels))
    assert found.reason == ""
    assert ("cannot exclude a loss of 0.5 points" in found.text) == (not excluded)
    assert found.text.startswith(f"the label of Keras on {count} of {count} test images")


def test_differences_are_counted_with_their_sign() -> None:
    labels = np.zeros(400, np.int64)
    reference, answer = labels.copy(), labels.copy()
    reference[:2] = 1  # right only in int8
    answer[2:8] = 1  # right only in float
    answer[8:10] = reference[8:10] = 2
    found = agreement(labels, one_hot(reference), one_hot(answer))
    assert found.same == 392
    assert found.difference == pytest.approx(-4 / 400)
    assert found.low < found.difference < found.high
    assert "accuracy -1.0 points" in found.text
