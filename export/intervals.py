"""95 % intervals of shares and of their differences: pure functions of counts."""

import math

Z = 1.959964
"""The 97.5 % point of the normal distribution: 95 % lie within."""

Interval = tuple[float, float]


def wilson_interval(successes: int, trials: int, z: float = Z) -> Interval:
    """The score interval of a proportion (Wilson 1927); 95 % by default."""
    share = successes / trials
    denominator = 1 + z**2 / trials
    middle = (share + z**2 / (2 * trials)) / denominator
    spread = z / denominator * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return max(0.0, middle - spread), min(1.0, middle + spread)


def paired_interval(both: int, first: int, second: int, neither: int, z: float = Z) -> Interval:
    """The interval of the difference of two shares on the same images.

    Newcombe (1998, "Improved confidence intervals for the difference between binomial proportions
    based on paired data", method 10): the Wilson intervals of both shares, added in squares, less
    what the correlation of the answers takes away. It holds its 95 % on few images too.

    Args:
        both, first, second, neither: how many images both answer rightly, the first alone, the
            second alone, neither of them.

    Returns:
        Lower and upper end of (share of the first) - (share of the second).
    """
    trials = both + first + second + neither
    shares = (both + first) / trials, (both + second) / trials
    (low_1, high_1), (low_2, high_2) = (
        wilson_interval(both + alone, trials, z) for alone in (first, second)
    )
    correlation = _correlation(both, first, second, neither)

    def spread(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one**2 - 2 * correlation * one * other + other**2))

    difference = shares[0] - shares[1]
    low = difference - spread(shares[0] - low_1, high_2 - shares[1])
    high = difference + spread(high_1 - shares[0], shares[1] - low_2)
    return max(-1.0, low), min(1.0, high)


def _correlation(both: int, first: int, second: int, neither: int) -> float:
    """Newcombe's phi, with his continuity correction; 0 where one of them is always the same."""
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    if margins == 0:
        return 0.0
    product = both * neither - first * second
    if product > 0:
        product = max(0.0, product - (both + first + second + neither) / 2)  # type: ignore[assignment]
    return product / math.sqrt(margins)
