"""The threshold for a coverage: found where confidence separates, and not claimed elsewhere."""

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.evaluation.rejection import find_rejection


def sure(*confidences: float) -> NDArray[np.float32]:
    values = np.array(confidences, np.float32)
    return np.stack([values, 1 - values], axis=1)


def spread(count: int, seed: int = 0) -> NDArray[np.float32]:
    return sure(*np.random.default_rng(seed).uniform(0.5, 1, count))


def test_the_asked_share_is_answered_and_said() -> None:
    test = spread(500, seed=1)
    found = find_rejection(0.8, spread(400), test, np.zeros(500, np.int64))
    assert found.rejection is not None
    assert found.rejection.coverage == pytest.approx(0.8, abs=0.05)
    assert found.text.startswith("accuracy 1.000 on the surest ")
    assert found.text.endswith("of the test images (asked for a coverage of 80 %)")


@pytest.mark.parametrize("value", [0.4531 + 0.1, 1.0])
@pytest.mark.parametrize("count", [10, 300])
def test_one_confidence_for_all_separates_nothing(value: float, count: int) -> None:
    """One answer for everything, or every answer entirely sure."""
    same = sure(*[value] * count)
    found = find_rejection(0.8, same, same, np.zeros(count, np.int64))
    assert found.rejection is None
    assert found.text.startswith("no threshold for a coverage of 80 %: ")
    assert "surest" not in found.text


def test_a_large_tie_at_the_top_separates_nothing() -> None:
    tied = sure(*[1.0] * 95, *np.linspace(0.6, 0.9, 5))
    assert find_rejection(0.5, tied, tied, np.zeros(100, np.int64)).rejection is None
    kept = find_rejection(0.95, tied, tied, np.zeros(100, np.int64)).rejection
    assert kept is not None
    assert kept.coverage == 0.95


def test_a_threshold_that_no_test_image_reaches_or_misses_is_none() -> None:
    labels = np.zeros(50, np.int64)
    low, high = sure(*np.linspace(0.51, 0.6, 50)), sure(*np.linspace(0.8, 0.9, 50))
    none = find_rejection(0.5, high, low, labels)
    assert (none.rejection, "no test image reaches" in none.reason) == (None, True)
    everyone = find_rejection(0.5, low, high, labels)
    assert (everyone.rejection, "no test image is below" in everyone.reason) == (None, True)


def test_all_images_may_be_asked_for() -> None:
    found = find_rejection(1.0, spread(40), spread(40), np.zeros(40, np.int64))
    assert found.rejection is not None
    assert found.rejection.coverage == 1
