"""The learning-rate range test: the loss while the rate rises, and what rate that suggests.

Source: Smith, "Cyclical Learning Rates for Training Neural Networks", 2017, section 3.3; rising
exponentially, with a smoothed loss and an early end, as in the library of fast.ai (Howard and
Gugger, "fastai: A Layered API for Deep Learning", 2020).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

SMOOTHING = 0.9
"""Share of the average that each step keeps: it looks back about 10 steps."""
SETTLED = 10
"""First steps that suggest nothing, since the average is still one of few losses."""
LEAST_STEPS = 50
WINDOW = 11
"""Points of a straight line whose slope is the curve's: that of two would be one of noise."""
DIVERGED = 4.0
"""Times the lowest smoothed loss at which a test ends."""
LEAST_FALL = 0.05
"""Share of the loss by which it must fall somewhere; less is taken for noise."""


@dataclass(frozen=True)
class Point:
    """One step of a test.

    Attributes:
        step: counted from 0.
        loss: of its batch, before the update.
        smoothed: exponential average of the losses so far, without the bias of its start.
    """

    step: int
    learning_rate: float
    loss: float
    smoothed: float


@dataclass(frozen=True)
class Suggestion:
    """Two rates that a test suggests.

    Attributes:
        steepest: where the smoothed loss falls fastest, by the logarithm of the rate.
        lowest: where it is lowest; that rate is too high already.
    """

    steepest: float
    lowest: float

    @property
    def tenth(self) -> float:
        """A tenth of the rate of the lowest loss."""
        return self.lowest / 10


def geometric_rates(lowest: float, highest: float, steps: int) -> list[float]:
    """`steps` rates from `lowest` to `highest`, each the same multiple of the one before."""
    ratio = math.log(highest / lowest)
    return [lowest * math.exp(ratio * step / (steps - 1)) for step in range(steps)]


def measure(train_step: Callable[[float], float], rates: Iterable[float]) -> Iterator[Point]:
    """Train a step with each rate, until the loss diverges: the point where it does is the last.

    A loss that is no finite number ends the test without a point of its own.

    Args:
        train_step: from the rate to the loss of the step's batch before its update.
    """
    average, best = 0.0, math.inf
    for step, rate in enumerate(rates):
        loss = train_step(rate)
        if not math.isfinite(loss):
            return
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        smoothed = average / (1 - SMOOTHING ** (step + 1))
        yield Point(step, rate, loss, smoothed)
        best = min(best, smoothed)
        if smoothed > DIVERGED * best:
            return


def suggest(points: Sequence[Point]) -> Suggestion | None:
    """What the smoothed losses suggest; None where they never fall."""
    points = points[SETTLED:]
    if not points:
        return None
    losses = np.array([point.smoothed for point in points])
    bottom = int(losses.argmin())
    if losses[bottom] > (1 - LEAST_FALL) * losses[0]:
        return None
    width = min(WINDOW, bottom + 1)
    logarithms = np.log([point.learning_rate for point in points])
    slopes = [
        np.polyfit(logarithms[start : start + width], losses[start : start + width], 1)[0]
        for start in range(bottom + 2 - width)
    ]
    steepest = int(np.argmin(slopes)) + width // 2
    return Suggestion(points[steepest].learning_rate, points[bottom].learning_rate)
