"""How every benchmark here measures: interleaved rounds, medians, ratios to a baseline."""

import statistics
from collections.abc import Callable


def compare(
    contestants: dict[str, Callable[[], float]], *, baseline: str, rounds: int, unit: str
) -> None:
    """Print the median rate of each contestant and its ratio to the baseline's.

    Args:
        contestants: each does its work once and returns a rate, in `unit`.
        rounds: how often each is measured, in turns; a round before warms up and does not count.
    """
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, contestant in contestants.items():
            rate = contestant()
            if number:
                rates[name].append(rate)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, median in medians.items():
        ratio = median / medians[baseline]
        print(f"{name:<14} {median:10,.0f} {unit}   ratio {ratio:.2f}")
