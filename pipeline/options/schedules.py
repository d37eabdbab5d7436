"""Learning-rate schedules.

Lengths are shares of the run, so that the same schedule fits a shorter or a longer one:
`warmup: 0.05`. Each may be given in epochs instead (`warmup_epochs: 2`), and is then checked
against the epochs of the run. The run of a schedule begins after the frozen epochs.
"""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from models.options import Options

IN_EPOCHS = {"warmup": "warmup_epochs", "every": "every_epochs", "cycles": "cycle_epochs"}
"""Each length that follows the run, and the option that stands instead of it."""


class TwoWaysOptions(Options):
    """A length that is given in one of two ways."""

    @model_validator(mode="before")
    @classmethod
    def _given_before_default(cls, values: Any) -> Any:
        """What is given in epochs stands instead of the default share."""
        if not isinstance(values, Mapping):
            return values
        given = [name for name, epochs in IN_EPOCHS.items() if values.get(epochs) is not None]
        return {**dict.fromkeys(given), **values}

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        for name, in_epochs in IN_EPOCHS.items():
            if name in type(self).model_fields:
                share, epochs = getattr(self, name), getattr(self, in_epochs)
                if (share is None) == (epochs is None):
                    got = "neither" if share is None else f"both: {share:g} and {epochs:g}"
                    raise ValueError(f"expected {name} or {in_epochs}, got {got}")
        return self


class WarmupOptions(TwoWaysOptions):
    """A schedule that begins with a linear warmup."""

    name: str
    warmup: float | None = Field(0.0, ge=0, lt=1)
    """Linear warmup, as a share of the run; 0.05 is the first twentieth of its steps."""
    warmup_epochs: float | None = Field(None, ge=0)
    """Instead of warmup: its length in epochs; fractions count."""


class ConstantOptions(Options):
    """The peak learning rate throughout (Robbins and Monro 1951)."""

    name: Literal["constant"] = "constant"


class StepOptions(TwoWaysOptions):
    """The rate falls at once, at equal distances (He et al. 2015)."""

    name: Literal["step"] = "step"
    every: float | None = Field(0.5, gt=0, le=1)
    """Share of the run after which the rate is multiplied by the factor, again and again."""
    every_epochs: int | None = Field(None, ge=1)
    """Instead of every: that distance in epochs."""
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


class PolynomialOptions(WarmupOptions):
    """A power of the share of steps that is left; 1 is a straight line (Liu et al. 2015)."""

    name: Literal["polynomial"] = "polynomial"
    power: float = Field(1.0, gt=0)
    """Exponent of the share that is left."""
    floor: float = Field(0.0, ge=0, lt=1)
    """Last learning rate, as a share of the peak."""


class CosineOptions(WarmupOptions):
    """Linear warmup, then half a cosine down to the floor (Loshchilov and Hutter 2017)."""

    name: Literal["cosine"] = "cosine"
    warmup: float | None = Field(0.05, ge=0, lt=1)
    """Linear warmup, as a share of the run; 0.05 is the first twentieth of its steps."""
    floor: float = Field(0.01, ge=0, lt=1)
    """Last learning rate, as a share of the peak."""


class CosineRestartsOptions(TwoWaysOptions):
    """Half a cosine again and again, from the peak to the floor (Loshchilov and Hutter 2017)."""

    name: Literal["cosine-restarts"] = "cosine-restarts"
    cycles: int | None = Field(3, ge=1)
    """Cycles in the run; the last one ends with it."""
    cycle_epochs: int | None = Field(None, ge=1)
    """Instead of cycles: the length of the first one in epochs."""
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


class AdaptiveCosineOptions(TwoWaysOptions):
    """Cosine cycles, a rate for each epoch; a cycle worse than the one before lowers its bounds."""

    name: Literal["adaptive-cosine"] = "adaptive-cosine"
    cycles: int | None = Field(4, ge=1)
    """Cycles in the run, of equal length but for one epoch; more than epochs are one for each."""
    cycle_epochs: int | None = Field(None, ge=1)
    """Instead of cycles: the length of each in epochs."""
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


def does_not_fit(options: ScheduleOptions, epochs: int, frozen: int = 0) -> str | None:
    """Why lengths in epochs do not fit a run; None if they do.

    The text begins with the option, and says which values or runs would fit.

    Args:
        epochs: those that the schedule covers.
        frozen: those before them, which it does not.
    """
    run = f"{epochs}, the epochs {'after the frozen ones' if frozen else 'of the run'}"
    match options:
        case WarmupOptions(warmup_epochs=float(warmup)) if warmup > epochs:
            return (
                f"warmup_epochs: expected at most {run}, got {warmup:g}; give a share of the run "
                "instead, as warmup: 0.05"
            )
        case StepOptions(every_epochs=int(every)) if every > epochs:
            return (
                f"every_epochs: expected at most {run}, got {every}; give a share of the run "
                "instead, as every: 0.5"
            )
        case AdaptiveCosineOptions(cycle_epochs=int(cycle)):
            return _cut_off(cycle, 1, epochs, run)
        case CosineRestartsOptions(cycle_epochs=int(cycle)):
            return _cut_off(cycle, options.multiplier, epochs, run)
    return None


def cycle_ends(first: float, multiplier: float, length: float) -> list[float]:
    """Ends of the cycles that reach a run's end: the last is the first at `length` or behind it.

    Args:
        first: length of the first cycle; each is `multiplier` times as long as the one before.
    """
    ends: list[float] = []
    end, cycle = 0.0, float(first)
    while end < length:
        end += cycle
        cycle *= multiplier
        ends.append(end)
    return ends


def _cut_off(first: int, multiplier: float, epochs: int, run: str) -> str | None:
    """Why the run would end within a cycle; None if it does not."""
    ends = cycle_ends(first, multiplier, epochs)[-2:]
    if epochs in ends:
        return None
    fitting = " or ".join(f"{end:g}" for end in ends)
    return (
        f"cycle_epochs: expected a cycle to end after {run}; got ends after {fitting}; give "
        "cycles: 3 instead, which fits any run"
    )
