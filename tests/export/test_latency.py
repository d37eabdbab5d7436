"""Latencies: medians, quartiles, and whether one model is faster. No clock takes part."""

import numpy as np
import pytest

from export.latency import speedup, timing


def test_quartiles_are_those_of_numpy() -> None:
    times = np.random.default_rng(0).lognormal(0, 1, 101)
    found = timing(times.tolist())
    expected = np.quantile(times, [0.25, 0.5, 0.75])
    assert (found.low, found.median, found.high) == pytest.approx(tuple(expected))


@pytest.mark.parametrize(("spread", "busy"), [(0.01, False), (0.1, False), (0.5, True)])
def test_a_busy_machine_is_known_by_the_spread(spread: float, busy: bool) -> None:
    times = 1 + spread * np.linspace(-1, 1, 99)
    assert timing(times.tolist()).was_busy == busy


@pytest.mark.parametrize("rounds", [5, 20, 500])
def test_the_interval_of_the_median_holds_it(rounds: int) -> None:
    generator = np.random.default_rng(1)
    held = []
    for _ in range(500):
        ratios = generator.lognormal(np.log(1.3), 0.4, rounds)
        found = speedup(ratios.tolist(), [1.0] * rounds)
        assert found.low <= found.median <= found.high
        held.append(found.low <= 1.3 <= found.high)
    assert np.mean(held) > 0.9


def test_a_burst_that_meets_both_changes_no_ratio() -> None:
    """Each round runs both, so what slows a whole round cancels."""
    load = np.random.default_rng(2).uniform(1, 30, 50)
    found = speedup((2 * load).tolist(), load.tolist())
    assert (found.low, found.median, found.high) == pytest.approx((2, 2, 2))


def test_noise_is_no_speedup() -> None:
    generator = np.random.default_rng(3)
    slow, fast = generator.lognormal(0.06, 1, 30), generator.lognormal(0, 1, 30)
    assert speedup(slow.tolist(), fast.tolist()).low < 1
