"""Optimizers."""

from typing import Literal

from pydantic import Field

from models.options import Options


class SgdOptions(Options):
    """Plain stochastic gradient descent."""

    name: Literal["sgd"] = "sgd"
    learning_rate: float = Field(0.1, gt=0)
    """Peak learning rate."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay."""


class MomentumOptions(Options):
    """SGD with momentum, optionally Nesterov's."""

    name: Literal["momentum"] = "momentum"
    learning_rate: float = Field(0.05, gt=0)
    """Peak learning rate."""
    momentum: float = Field(0.9, gt=0, lt=1)
    """Decay of the velocity."""
    nesterov: bool = False
    """Look ahead along the velocity (Nesterov)."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay."""


class AdagradOptions(Options):
    """AdaGrad (Duchi et al. 2011)."""

    name: Literal["adagrad"] = "adagrad"
    learning_rate: float = Field(0.05, gt=0)
    """Peak learning rate."""
    initial_accumulator: float = Field(0.1, ge=0)
    """Start of the sum of squared gradients."""
    epsilon: float = Field(1e-7, gt=0)
    """Added to the denominator."""


class RmspropOptions(Options):
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


class AdamOptions(Options):
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


class AdamwOptions(Options):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    name: Literal["adamw"] = "adamw"
    learning_rate: float = Field(0.001, gt=0)
    """Peak learning rate."""
    weight_decay: float = Field(0.004, ge=0)
    """Decoupled weight decay."""
    beta_1: float = Field(0.9, gt=0, lt=1)
    """Decay of the mean of gradients."""
    beta_2: float = Field(0.999, gt=0, lt=1)
    """Decay of the mean of squared gradients."""
    epsilon: float = Field(1e-7, gt=0)
    """Added to the denominator."""


OptimizerOptions = (
    SgdOptions | MomentumOptions | AdagradOptions | RmspropOptions | AdamOptions | AdamwOptions
)
