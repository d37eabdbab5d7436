"""Learning-rate schedules: pure functions of the step."""

import math
from collections.abc import Callable

from pipeline.config import ByStepOptions, ConstantOptions, CosineOptions

Schedule = Callable[[int], float]
"""From the step, counted from 0, to the learning rate of its update."""


def cosine_decay(
    step: int, *, peak: float, total_steps: int, warmup_steps: int, floor: float
) -> float:
    """Linear warmup to `peak`, then half a cosine down to `peak * floor`.

    Source: Loshchilov and Hutter, "SGDR", 2017, equation 5, without restarts. Warmup step `w` of W
    has the rate `peak * (w + 1) / W`; the last step of all has exactly `peak * floor`.

    Args:
        step: 0 to total_steps - 1; a later one keeps the last rate.
        warmup_steps: 0 starts at the peak.
        floor: share of the peak.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    last = total_steps - 1 - warmup_steps
    progress = min((step - warmup_steps) / last, 1.0) if last > 0 else 1.0
    return peak * (floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2)


def cosine_annealing(epoch: int, *, highest: float, lowest: float, cycle_epochs: int) -> float:
    """Half a cosine in every cycle, from `highest` towards `lowest`, which a next epoch would have.

    Source: Loshchilov and Hutter, "SGDR", 2017, equation 5, by whole epochs.
    """
    progress = epoch % cycle_epochs / cycle_epochs
    return lowest + (highest - lowest) * (1 + math.cos(math.pi * progress)) / 2


def build_schedule(
    options: ByStepOptions, *, peak: float, steps_per_epoch: int, epochs: int
) -> Schedule:
    """The schedule that `options` names, for a run of `epochs`."""
    match options:
        case ConstantOptions():
            return lambda step: peak
        case CosineOptions():
            return lambda step: cosine_decay(
                step,
                peak=peak,
                total_steps=steps_per_epoch * epochs,
                warmup_steps=round(options.warmup_epochs * steps_per_epoch),
                floor=options.floor,
            )
