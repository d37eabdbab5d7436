"""How long do models take? Measured in turns, so that a busy machine troubles all of them alike."""

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from export.intervals import Z
from serve.bundle import INPUT, OUTPUT

FEWEST_ROUNDS, MOST_ROUNDS = 5, 2000
SECONDS = 2.0
"""About how long the models are measured."""
BUSY = 0.3
"""Where the middle half of the runs spreads over such a share of their median, other work ran."""


@dataclass(frozen=True)
class Timing:
    """Latency of many runs, in milliseconds.

    Attributes:
        median: half of the runs took less.
        low, high: quartiles; half of the runs took between them.
    """

    median: float
    low: float
    high: float

    @property
    def was_busy(self) -> bool:
        """Whether the machine had other work at the time."""
        return self.high - self.low > BUSY * self.median


@dataclass(frozen=True)
class Ratio:
    """How many times faster one model is than another.

    Attributes:
        median: over the rounds, each of which ran both.
        low, high: the 95 % interval of that median.
    """

    median: float
    low: float
    high: float


def latencies(
    contestants: Mapping[str, onnxruntime.InferenceSession], images: NDArray[np.uint8]
) -> dict[str, list[float]]:
    """Latency of each session on one batch, in milliseconds, round by round.

    Single runs alternate, so that whatever else the machine does meets all in the same way.

    Args:
        images: uint8 `[batch, height, width, channels]`.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for contestant in contestants.values():  # the first run allocates
        contestant.run([OUTPUT], {INPUT: images})
    end = time.perf_counter() + SECONDS
    for number in range(MOST_ROUNDS):
        if number >= FEWEST_ROUNDS and time.perf_counter() > end:
            break
        for name, contestant in contestants.items():
            started = time.perf_counter()
            contestant.run([OUTPUT], {INPUT: images})
            times[name].append(1000 * (time.perf_counter() - started))
    return times


def timing(milliseconds: Sequence[float]) -> Timing:
    """The median of some runs, and how much they differ."""
    low, median, high = statistics.quantiles(milliseconds, n=4, method="inclusive")
    return Timing(median, low, high)


def speedup(slow: Sequence[float], fast: Sequence[float]) -> Ratio:
    """How many times faster `fast` is, by rounds that ran one after the other.

    The interval is that of the sign test: it assumes nothing of how latencies are spread (Conover
    1999, section 3.2).
    """
    ratios = sorted(one / other for one, other in zip(slow, fast, strict=True))
    left_out = max(0, math.floor(len(ratios) / 2 - Z * math.sqrt(len(ratios)) / 2))
    return Ratio(statistics.median(ratios), ratios[left_out], ratios[-1 - left_out])
