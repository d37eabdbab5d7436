"""Optimizers."""

from typing import Literal, Self

from pydantic import Field, model_validator

from models.options import Options

CLIPS = ("clip_value", "clip_norm", "clip_global_norm")


class CommonOptions(Options):
    """What every optimizer can do."""

    weight_decay: float = Field(0.0, ge=0)
    """Share of the weights that a step takes away, times the rate (Loshchilov and Hutter 2019)."""
    weight_decay_on: Literal["kernels", "all"] = "kernels"
    """kernels (no bias and no normalization decays, He et al. 2019), or all weights."""

    clip_value: float | None = Field(None, gt=0)
    """Largest absolute value of each component of a gradient (Mikolov 2012)."""
    clip_norm: float | None = Field(None, gt=0)
    """Largest norm of each weight's gradient (Pascanu et al. 2013)."""
    clip_global_norm: float | None = Field(None, gt=0)
    """Largest norm of all gradients together (Pascanu et al. 2013)."""

    @model_validator(mode="after")
    def _one_clip(self) -> Self:
        given = [name for name in CLIPS if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"expected one way to clip, got {' and '.join(given)}")
        return self


class SgdOptions(CommonOptions):
    """Plain stochastic gradient descent (Robbins and Monro 1951)."""

    name: Literal["sgd"] = "sgd"
    learning_rate: float = Field(0.1, gt=0)
    """Peak learning rate."""


class MomentumOptions(CommonOptions):
    """SGD with momentum, optionally Nesterov's (Polyak 1964; Nesterov 1983)."""

    name: Literal["momentum"] = "momentum"
    learning_rate: float = Field(0.05, gt=0)
    """Peak learning rate."""
    momentum: float = Field(0.9, gt=0, lt=1)
    """Decay of the velocity."""
    nesterov: bool = False
    """Look ahead along the velocity (Nesterov)."""


class AdagradOptions(CommonOptions):
    """AdaGrad (Duchi et al. 2011)."""

    name: Literal["adagrad"] = "adagrad"
    learning_rate: float = Field(0.05, gt=0)
    """Peak learning rate."""
    initial_accumulator: float = Field(0.1, ge=0)
    """Start of the sum of squared gradients."""
    epsilon: float = Field(1e-7, gt=0)
    """Added to the denominator."""


class RmspropOptions(CommonOptions):
    """RMSprop (Tieleman and Hinton 2012)."""

    name: Literal["rmsprop"] = "rmsprop"
    learning_rate: float = Field(0.001, gt=0)
    """Peak learning rate."""
    rho: float = Field(0.9, gt=0, lt=1)
    """Decay of the mean of squared gradients."""
    momentum: float = Field(0.0, ge=0, lt=1)
    """Decay of the velocity."""
    epsilon: float = Field(1e-7, gt=0)
    """Added to the denominator."""


class AdamOptions(CommonOptions):
    """Adam (Kingma and Ba 2015)."""

    name: Literal["adam"] = "adam"
    learning_rate: float = Field(0.001, gt=0)
    """Peak learning rate."""
    beta_1: float = Field(0.9, gt=0, lt=1)
    """Decay of the mean of gradients."""
    beta_2: float = Field(0.999, gt=0, lt=1)
    """Decay of the mean of squared gradients."""
    epsilon: float = Field(1e-7, gt=0)
    """Added to the denominator."""


class AdamwOptions(CommonOptions):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    name: Literal["adamw"] = "adamw"
    learning_rate: float = Field(0.001, gt=0)
    """Peak learning rate."""
    weight_decay: float = Field(0.004, ge=0)
    """Share of the weights that a step takes away, times the rate (Loshchilov and Hutter 2019)."""
    beta_1: float = Field(0.9, gt=0, lt=1)
    """Decay of the mean of gradients."""
    beta_2: float = Field(0.999, gt=0, lt=1)
    """Decay of the mean of squared gradients."""
    epsilon: float = Field(1e-7, gt=0)
    """Added to the denominator."""


class OtherOptimizerOptions(CommonOptions):
    """Any other optimizer of Keras 3, by the name of its class (Keras 2023)."""

    name: Literal["keras"] = "keras"
    optimizer: str = "Lion"
    """Class in keras.optimizers: Adadelta, Adafactor, Adamax, Ftrl, Lamb, Lion, Nadam, ..."""
    learning_rate: float = Field(0.001, gt=0)
    """Peak learning rate."""
    arguments: dict[str, bool | int | float | str] = {}
    """Its own arguments, as {beta_1: 0.95}."""


OptimizerOptions = (
    SgdOptions
    | MomentumOptions
    | AdagradOptions
    | RmspropOptions
    | AdamOptions
    | AdamwOptions
    | OtherOptimizerOptions
)
