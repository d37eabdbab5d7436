"""Learning-rate schedules: pure functions of the step."""

import math
from collections.abc import Callable

from pipeline.options.schedules import (
    ByStepOptions,
    ConstantOptions,
    CosineOptions,
    CosineRestartsOptions,
    ExponentialOptions,
    InverseTimeOptions,
    OneCycleOptions,
    PolynomialOptions,
    StepOptions,
)

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
        return peak * ((step + 1) / warmup_steps)
    progress = _progress(step - warmup_steps, total_steps - warmup_steps)
    return peak * (floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2)


def cosine_annealing(epoch: int, *, highest: float, lowest: float, cycle_epochs: int) -> float:
    """Half a cosine in every cycle, from `highest` towards `lowest`, which a next epoch would have.

    Source: Loshchilov and Hutter, "SGDR", 2017, equation 5, by whole epochs.
    """
    progress = epoch % cycle_epochs / cycle_epochs
    return lowest + (highest - lowest) * (1 + math.cos(math.pi * progress)) / 2


def step_decay(epoch: float, *, peak: float, every: int, factor: float) -> float:
    """`peak * factor ** floor(epoch / every)`."""
    return peak * math.pow(factor, math.floor(epoch / every))


def exponential_decay(epoch: float, *, peak: float, factor: float) -> float:
    """`peak * factor ** epoch`."""
    return peak * math.pow(factor, epoch)


def inverse_time_decay(epoch: float, *, peak: float, decay: float) -> float:
    """`peak / (1 + decay * epoch)`.

    Source: Robbins and Monro, "A Stochastic Approximation Method", 1951; their sums demand it.
    """
    return peak / (1 + decay * epoch)


def polynomial_decay(
    step: int, *, peak: float, total_steps: int, warmup_steps: int, floor: float, power: float
) -> float:
    """Linear warmup to `peak`, then `(1 - progress) ** power` down to `peak * floor`.

    Warmup and ends are those of `cosine_decay`.
    """
    if step < warmup_steps:
        return peak * ((step + 1) / warmup_steps)
    progress = _progress(step - warmup_steps, total_steps - warmup_steps)
    return peak * (floor + (1 - floor) * math.pow(1 - progress, power))


def cosine_restarts(
    epoch: float, *, peak: float, cycle: int, multiplier: float, decay: float, floor: float
) -> float:
    """Half a cosine in every cycle, which ends at `peak * floor`; the next begins anew.

    Source: Loshchilov and Hutter, "SGDR", 2017, equation 5 and section 3.

    Args:
        cycle: epochs of the first one; each is `multiplier` times as long as the one before.
        decay: share of its height above the floor that a cycle leaves to the next.
    """
    number, length = 0, float(cycle)
    while epoch >= length:
        epoch -= length
        length *= multiplier
        number += 1
    share = floor + (math.pow(decay, number) - floor) * (1 + math.cos(math.pi * epoch / length)) / 2
    return peak * max(share, floor)


def one_cycle(
    step: int, *, peak: float, total_steps: int, rise: float, start: float, end: float
) -> float:
    """Half a cosine from `peak * start` up to `peak`, and half a one down to `peak * end`.

    Source: Smith and Topin, "Super-Convergence", 2018, with the cosines of fast.ai; the peak is at
    step `round(rise * (total_steps - 1))`, the last step has exactly `peak * end`.
    """
    top = round(rise * (total_steps - 1))
    if step < top:
        low, progress = start, 1 - step / top
    else:
        low, progress = end, _progress(step - top, total_steps - top)
    return peak * (low + (1 - low) * (1 + math.cos(math.pi * progress)) / 2)


def build_schedule(
    options: ByStepOptions, *, peak: float, steps_per_epoch: int, steps: int
) -> Schedule:
    """The schedule that `options` names, for a run of so many steps."""
    match options:
        case ConstantOptions():
            return lambda step: peak
        case StepOptions():
            return lambda step: step_decay(
                step / steps_per_epoch,
                peak=peak,
                every=options.every_epochs,
                factor=options.factor,
            )
        case ExponentialOptions():
            return lambda step: exponential_decay(
                step / steps_per_epoch, peak=peak, factor=options.factor
            )
        case InverseTimeOptions():
            return lambda step: inverse_time_decay(
                step / steps_per_epoch, peak=peak, decay=options.decay
            )
        case PolynomialOptions():
            return lambda step: polynomial_decay(
                step,
                peak=peak,
                total_steps=steps,
                warmup_steps=round(options.warmup_epochs * steps_per_epoch),
                floor=options.floor,
                power=options.power,
            )
        case CosineOptions():
            return lambda step: cosine_decay(
                step,
                peak=peak,
                total_steps=steps,
                warmup_steps=round(options.warmup_epochs * steps_per_epoch),
                floor=options.floor,
            )
        case CosineRestartsOptions():
            return lambda step: cosine_restarts(
                step / steps_per_epoch,
                peak=peak,
                cycle=options.cycle_epochs,
                multiplier=options.multiplier,
                decay=options.decay,
                floor=options.floor,
            )
        case OneCycleOptions():
            return lambda step: one_cycle(
                step,
                peak=peak,
                total_steps=steps,
                rise=options.rise,
                start=options.start,
                end=options.end,
            )


def _progress(step: int, steps: int) -> float:
    """0 at the first of so many steps, 1 at the last and later; a single one is a first one."""
    return min(step / (steps - 1), 1.0) if steps > 1 else 0.0
