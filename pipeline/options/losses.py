"""Losses, of logits and one-hot targets."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from models.options import Options, list_of

Weight = Annotated[float, Field(ge=0)]
Weights = Annotated[list[Weight], BeforeValidator(list_of)]


class WeightedOptions(Options):
    """What every loss of single images can do."""

    class_weights: Literal["balanced"] | Weights | None = None
    """How much images of each class count: balanced, by one over how many there are; or a list."""


class CrossEntropyOptions(WeightedOptions):
    """Cross-entropy of the softmax (Bridle 1990)."""

    name: Literal["cross-entropy"] = "cross-entropy"
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of the target spread evenly over all classes (Szegedy et al. 2015)."""


class FocalOptions(WeightedOptions):
    """Cross-entropy that counts sure answers less (Lin et al. 2017)."""

    name: Literal["focal"] = "focal"
    gamma: float = Field(2.0, ge=0)
    """Exponent of 1 - probability, by which each image is weighed; 0 is cross-entropy."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of the target spread evenly over all classes."""


class SquaredErrorOptions(WeightedOptions):
    """Mean squared error of the probabilities against one-hot targets (Brier 1950)."""

    name: Literal["squared-error"] = "squared-error"


LossOptions = CrossEntropyOptions | FocalOptions | SquaredErrorOptions
