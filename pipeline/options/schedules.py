"""Learning-rate schedules. Epochs are counted from 0 and fractions of them count, but where it says
otherwise.
"""

from typing import Literal

from pydantic import Field

from models.options import Options


class ConstantOptions(Options):
    """The peak learning rate throughout (Robbins and Monro 1951)."""

    name: Literal["constant"] = "constant"


class StepOptions(Options):
    """The rate falls at once, every so many epochs (He et al. 2015)."""

    name: Literal["step"] = "step"
    every_epochs: int = Field(10, ge=1)
    """Epochs after which the rate is multiplied by the factor, again and again."""
    factor: float = Field(0.1, gt=0, lt=1)
    """What the rate is multiplied by."""


class ExponentialOptions(Options):
    """The rate falls by the same share in every epoch, at every step (Senior et al. 2013)."""

    name: Literal["exponential"] = "exponential"
    factor: float = Field(0.9, gt=0, lt=1)
    """What an epoch multiplies the rate by."""


class InverseTimeOptions(Options):
    """The peak divided by 1 + decay x epoch (Robbins and Monro 1951)."""

    name: Literal["inverse-time"] = "inverse-time"
    decay: float = Field(0.5, gt=0)
    """How fast the rate falls; after 1 / decay epochs it is half of the peak."""


class PolynomialOptions(Options):
    """A power of the share of steps that is left; 1 is a straight line (Liu et al. 2015)."""

    name: Literal["polynomial"] = "polynomial"
    power: float = Field(1.0, gt=0)
    """Exponent of the share that is left."""
    warmup_epochs: float = Field(0.0, ge=0)
    """Epochs of linear warmup; fractions count."""
    floor: float = Field(0.0, ge=0, lt=1)
    """Last learning rate, as a share of the peak."""


class CosineOptions(Options):
    """Linear warmup, then half a cosine down to the floor (Loshchilov and Hutter 2017)."""

    name: Literal["cosine"] = "cosine"
    warmup_epochs: float = Field(1.0, ge=0)
    """Epochs of linear warmup; fractions count."""
    floor: float = Field(0.01, ge=0, lt=1)
    """Last learning rate, as a share of the peak."""


class CosineRestartsOptions(Options):
    """Half a cosine again and again, from the peak to the floor (Loshchilov and Hutter 2017)."""

    name: Literal["cosine-restarts"] = "cosine-restarts"
    cycle_epochs: int = Field(5, ge=1)
    """Epochs of the first cycle."""
    multiplier: float = Field(2.0, ge=1)
    """How many times as long as the one before each cycle is."""
    decay: float = Field(1.0, gt=0, le=1)
    """What a restart multiplies the peak by."""
    floor: float = Field(0.0, ge=0, lt=1)
    """Lowest learning rate, as a share of the first peak."""


class OneCycleOptions(Options):
    """Up to the peak and down again, by half a cosine each way (Smith and Topin 2018)."""

    name: Literal["one-cycle"] = "one-cycle"
    rise: float = Field(0.3, gt=0, lt=1)
    """Share of all steps in which the rate rises."""
    start: float = Field(0.04, gt=0, lt=1)
    """First learning rate, as a share of the peak."""
    end: float = Field(4e-6, ge=0, lt=1)
    """Last learning rate, as a share of the peak."""


class AdaptiveCosineOptions(Options):
    """Cosine cycles, a rate for each epoch; a cycle worse than the one before lowers its bounds."""

    name: Literal["adaptive-cosine"] = "adaptive-cosine"
    cycle_epochs: int = Field(5, ge=1)
    """Epochs of a cycle, in which the rate falls from the peak towards the floor."""
    floor: float = Field(0.01, ge=0, lt=1)
    """Lowest learning rate, as a share of the peak."""
    factor: float = Field(0.1, gt=0, lt=1)
    """What peak and floor are multiplied by after a cycle of higher loss or lower accuracy."""


class PlateauOptions(Options):
    """The rate falls when for too long no epoch was better, by the figure that picks the best
    (Krizhevsky et al. 2012).
    """

    name: Literal["plateau"] = "plateau"
    patience: int = Field(3, ge=1)
    """Epochs without a better one after which the rate is multiplied by the factor."""
    factor: float = Field(0.1, gt=0, lt=1)
    """What the rate is multiplied by."""
    floor: float = Field(1e-4, ge=0, lt=1)
    """Lowest learning rate, as a share of the peak."""


ByStepOptions = (
    ConstantOptions
    | StepOptions
    | ExponentialOptions
    | InverseTimeOptions
    | PolynomialOptions
    | CosineOptions
    | CosineRestartsOptions
    | OneCycleOptions
)
"""Functions of the step alone."""

ScheduleOptions = ByStepOptions | AdaptiveCosineOptions | PlateauOptions


def does_not_fit(options: ScheduleOptions, epochs: int) -> str | None:
    """Why a schedule is longer or shorter than a run of so many epochs; None if it is not."""
    warmup = getattr(options, "warmup_epochs", 0)
    if warmup > epochs:
        return f"warmup_epochs: expected at most {epochs}, the epochs of the run, got {warmup:g}"
    match options:
        case StepOptions() if options.every_epochs > epochs:
            return (
                f"every_epochs: expected at most {epochs}, the epochs of the run, "
                f"got {options.every_epochs}"
            )
        case AdaptiveCosineOptions():
            ends = _cycle_ends(options.cycle_epochs, 1, epochs)
        case CosineRestartsOptions():
            ends = _cycle_ends(options.cycle_epochs, options.multiplier, epochs)
        case _:
            return None
    if epochs in ends:
        return None
    return (
        f"cycle_epochs: the last cycle would be cut off: cycles end after {_or(ends)} epochs, "
        f"and the run has {epochs}"
    )


def _cycle_ends(first: int, multiplier: float, epochs: int) -> list[float]:
    """The last end of a cycle that is not behind the run's, and the next one."""
    end, length = 0.0, float(first)
    while end + length <= epochs:
        end += length
        length *= multiplier
    return [value for value in (end, end + length) if value]


def _or(numbers: list[float]) -> str:
    return " or ".join(f"{number:g}" for number in numbers)
