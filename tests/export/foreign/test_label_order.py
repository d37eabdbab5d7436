"""Labels in another order than the outputs, told by the confusion matrix alone."""

import numpy as np
import pytest
from numpy.typing import NDArray

from export.foreign.label_order import other_order

NAMES = ("night", "dusk", "day")


def labels(each: int = 10) -> NDArray[np.int64]:
    return np.repeat(np.arange(3), each)


def test_reversed_labels_are_called_so() -> None:
    said = other_order(labels(), 2 - labels(), NAMES)
    assert said is not None
    assert "reversed (better: day, dusk, night): the accuracy would be 1.00 instead of 0.33" in said


def test_alphabetical_order_is_called_so() -> None:
    order = np.array([2, 0, 1])  # images of night are answered by the last output
    said = other_order(labels(), order[labels()], ("night", "day", "dusk"))
    assert said is not None
    assert "alphabetical order" in said and "(better: day, dusk, night)" in said


def test_the_order_named_is_that_of_the_outputs() -> None:
    order = np.array([2, 0, 1])  # output 0 answers for dusk, 1 for day, 2 for night
    said = other_order(labels(), order[labels()], NAMES)
    assert said is not None and "(better: dusk, day, night)" in said


@pytest.mark.parametrize("seed", range(5))
def test_right_answers_and_noise_are_left_alone(seed: int) -> None:
    generator = np.random.default_rng(seed)
    assert other_order(labels(), labels(), NAMES) is None
    assert other_order(labels(), generator.integers(0, 3, 30), NAMES) is None
    mostly = np.where(generator.random(30) < 0.7, labels(), generator.integers(0, 3, 30))
    assert other_order(labels(), mostly, NAMES) is None
    assert other_order(labels(1), 2 - labels(1), NAMES) is None, "three images tell nothing"
