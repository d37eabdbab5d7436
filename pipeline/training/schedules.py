"""Learning-rate schedules: pure functions of the step."""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

from pipeline.options.schedules import (
    AdaptiveCosineOptions,
    ByStepOptions,
    ConstantOptions,
    CosineOptions,
    CosineRestartsOptions,
    ExponentialOptions,
    InverseTimeOptions,
    OneCycleOptions,
    PolynomialOptions,
    StepOptions,
    WarmupOptions,
    cycle_ends,
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


def cosine_annealing(epoch: int, *, highest: float, lowest: float, ends: Sequence[int]) -> float:
    """Half a cosine in every cycle, from `highest` towards `lowest`, which a next epoch would have.

    Source: Loshchilov and Hutter, "SGDR", 2017, equation 5, by whole epochs.

    Args:
        epoch: counted from 0; one behind the last cycle has the lowest rate.
        ends: epochs after which the cycles end.
    """
    progress = _place(epoch, ends)[1]
    return lowest + (highest - lowest) * (1 + math.cos(math.pi * progress)) / 2


def step_decay(step: int, *, peak: float, every: int, factor: float) -> float:
    """`peak * factor ** floor(step / every)`."""
    return peak * math.pow(factor, step // every)


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
    step: int, *, peak: float, ends: Sequence[float], decay: float, floor: float
) -> float:
    """Half a cosine in every cycle, which ends at `peak * floor`; the next begins anew.

    Source: Loshchilov and Hutter, "SGDR", 2017, equation 5 and section 3.

    Args:
        step: counted from 0; one behind the last cycle has the lowest rate.
        ends: steps after which the cycles end; those of no length are passed over.
        decay: share of its height above the floor that a cycle leaves to the next.
    """
    number, progress = _place(step, ends)
    share = floor + (math.pow(decay, number) - floor) * (1 + math.cos(math.pi * progress)) / 2
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
            every = steps_between_falls(options, steps_per_epoch, steps)
            return lambda step: step_decay(step, peak=peak, every=every, factor=options.factor)
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
                warmup_steps=warmup_steps(options, steps_per_epoch, steps),
                floor=options.floor,
                power=options.power,
            )
        case CosineOptions():
            return lambda step: cosine_decay(
                step,
                peak=peak,
                total_steps=steps,
                warmup_steps=warmup_steps(options, steps_per_epoch, steps),
                floor=options.floor,
            )
        case CosineRestartsOptions():
            ends = restarts(options, steps_per_epoch, steps)
            return lambda step: cosine_restarts(
                step, peak=peak, ends=ends, decay=options.decay, floor=options.floor
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


def warmup_steps(options: WarmupOptions, steps_per_epoch: int, steps: int) -> int:
    """Steps of the warmup in a run of so many steps."""
    if options.warmup_epochs is not None:
        return round(options.warmup_epochs * steps_per_epoch)
    return round((options.warmup or 0.0) * steps)


def steps_between_falls(options: StepOptions, steps_per_epoch: int, steps: int) -> int:
    """Steps after which the rate falls, again and again: at least one."""
    if options.every_epochs is not None:
        return options.every_epochs * steps_per_epoch
    return max(1, round((options.every or 1) * steps))


def restarts(options: CosineRestartsOptions, steps_per_epoch: int, steps: int) -> list[float]:
    """Steps after which the cycles end; the last is the run's, or behind it."""
    if options.cycle_epochs is not None:
        return cycle_ends(options.cycle_epochs * steps_per_epoch, options.multiplier, steps)
    lengths = [options.multiplier**number for number in range(options.cycles or 1)]
    return [round(end / sum(lengths) * steps) for end in accumulate(lengths)]


def adaptive_cycles(options: AdaptiveCosineOptions, epochs: int) -> list[int]:
    """Epochs after which the cycles end; the last is the run's."""
    if options.cycle_epochs is not None:
        return list(range(options.cycle_epochs, epochs + 1, options.cycle_epochs))
    cycles = min(options.cycles or 1, epochs)
    return [round(number / cycles * epochs) for number in range(1, cycles + 1)]


def _place(position: int, ends: Sequence[float]) -> tuple[int, float]:
    """The cycle that a step or an epoch lies in, and the share of it that is over."""
    number = bisect_right(ends, position)
    if number == len(ends):
        return max(0, number - 1), 1.0
    start = ends[number - 1] if number else 0
    return number, (position - start) / (ends[number] - start)


def _progress(step: int, steps: int) -> float:
    """0 at the first of so many steps, 1 at the last and later; a single one is a first one."""
    return min(step / (steps - 1), 1.0) if steps > 1 else 0.0
