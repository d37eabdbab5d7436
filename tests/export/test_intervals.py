"""Intervals, held to published examples and to their promise of 95 %."""

import numpy as np
import pytest

from export.intervals import paired_interval, wilson_interval


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [
        # Newcombe 1998, table III, method 10.
        ((36, 12, 2, 0), 0.0569, 0.3404),
        ((20, 12, 2, 16), 0.0562, 0.3292),
        # Fagerland, Lydersen and Laake 2014, airway reactivity before and after transplantation.
        ((1, 1, 7, 12), -0.507, -0.026),
    ],
    ids=["all but none", "half", "transplantation"],
)
def test_published_examples(counts: tuple[int, int, int, int], low: float, high: float) -> None:
    assert paired_interval(*counts) == pytest.approx((low, high), abs=5e-4)


def test_exchanging_the_two_mirrors_the_interval() -> None:
    low, high = paired_interval(20, 7, 3, 5)
    assert paired_interval(20, 3, 7, 5) == pytest.approx((-high, -low))


@pytest.mark.parametrize("count", [1, 4, 143, 10_000])
def test_equal_answers_are_as_uncertain_as_their_number(count: int) -> None:
    low, high = paired_interval(count, 0, 0, 0)
    assert low == pytest.approx(-high)
    assert high == pytest.approx(1 - wilson_interval(count, count)[0])


@pytest.mark.parametrize("count", [12, 60])
def test_the_interval_holds_the_true_difference_in_95_of_100_samples(count: int) -> None:
    shares = [0.6, 0.25, 0.05, 0.1]
    draws = np.random.default_rng(0).multinomial(count, shares, size=4000)
    held = [low <= 0.2 <= high for low, high in (paired_interval(*map(int, row)) for row in draws)]
    assert np.mean(held) == pytest.approx(0.955, abs=0.02)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # Wilson score intervals as given by statsmodels' proportion_confint(method="wilson")
        (98, 100, 0.929989, 0.994498),
        (10, 10, 0.722467, 1.0),
        (0, 10, 0.0, 0.277533),
        (9250, 10000, 0.919672, 0.930002),
    ],
)
def test_wilson_interval(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=2e-6)
