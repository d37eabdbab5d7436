"""Keras optimizers from their options."""

import inspect
from collections.abc import Sequence
from typing import Any

import keras

from pipeline.options.optimizers import (
    AdagradOptions,
    AdamOptions,
    AdamwOptions,
    MomentumOptions,
    OptimizerOptions,
    OtherOptimizerOptions,
    RmspropOptions,
    SgdOptions,
)
from pipeline.recipe import ConfigError, nearest


def build_optimizer(
    options: OptimizerOptions, variables: Sequence[keras.Variable]
) -> keras.optimizers.Optimizer:
    """The optimizer that `options` names, at its peak learning rate; not built yet.

    Args:
        variables: the weights that it will train. Keras asks which of them decay before it builds.

    Raises:
        ConfigError: Keras has no such optimizer, or it has not such an argument.
    """
    optimizer = _of_class(options)
    if options.weight_decay_on == "kernels":
        optimizer.exclude_from_weight_decay([each for each in variables if not is_kernel(each)])
    return optimizer


def is_kernel(variable: keras.Variable) -> bool:
    """Whether a weight is the kernel of a layer: an array of two or more axes that is no bias.

    Biases, the scales and offsets of normalizations and LayerScale's factors are none.

    Source: what timm decays (`param_groups_weight_decay`), and big_vision (`.*/kernel$`).
    """
    return len(variable.shape) >= 2 and variable.name not in ("bias", "beta", "gamma")


def _of_class(options: OptimizerOptions) -> keras.optimizers.Optimizer:
    common: dict[str, Any] = {
        "learning_rate": options.learning_rate,
        "weight_decay": options.weight_decay or None,
        "clipvalue": options.clip_value,
        "clipnorm": options.clip_norm,
        "global_clipnorm": options.clip_global_norm,
    }
    match options:
        case SgdOptions():
            return keras.optimizers.SGD(**common)
        case MomentumOptions():
            return keras.optimizers.SGD(
                momentum=options.momentum, nesterov=options.nesterov, **common
            )
        case AdagradOptions():
            return keras.optimizers.Adagrad(
                initial_accumulator_value=options.initial_accumulator,
                epsilon=options.epsilon,
                **common,
            )
        case RmspropOptions():
            return keras.optimizers.RMSprop(
                rho=options.rho, momentum=options.momentum, epsilon=options.epsilon, **common
            )
        case AdamOptions():
            return keras.optimizers.Adam(
                beta_1=options.beta_1, beta_2=options.beta_2, epsilon=options.epsilon, **common
            )
        case AdamwOptions():
            # Without decay it is Adam, and Keras's AdamW refuses to have none.
            kind = keras.optimizers.AdamW if options.weight_decay else keras.optimizers.Adam
            return kind(
                beta_1=options.beta_1, beta_2=options.beta_2, epsilon=options.epsilon, **common
            )
        case OtherOptimizerOptions():
            return _other(options, common)


def _other(options: OtherOptimizerOptions, common: dict[str, Any]) -> keras.optimizers.Optimizer:
    known = {
        name: value
        for name, value in vars(keras.optimizers).items()
        if inspect.isclass(value)
        and issubclass(value, keras.optimizers.Optimizer)
        and value is not keras.optimizers.Optimizer
        and name not in WRAPPERS
    }
    if options.optimizer not in known:
        raise ConfigError(
            f"train.optimizer.optimizer: expected one of {', '.join(sorted(known))}; got "
            f"{options.optimizer!r}{nearest(options.optimizer, list(known))}"
        )
    kind = known[options.optimizer]
    parameters = inspect.signature(kind).parameters
    own = {
        name: parameter.default
        for name, parameter in parameters.items()
        if name not in (*common, *NOT_ITS_OWN) and parameter.kind is not parameter.VAR_KEYWORD
    }
    for name, value in options.arguments.items():
        if name not in own:
            raise ConfigError(
                f"train.optimizer.arguments: {options.optimizer} has {', '.join(own)}; got "
                f"{name!r}{nearest(name, list(own))}"
            )
        if own[name] is not None and _kind(value) != _kind(own[name]):
            raise ConfigError(
                f"train.optimizer.arguments: {name}: expected {_kind(own[name])}, as {own[name]} "
                f"is; got {value!r}"
            )
    decay: dict[str, Any] = {}
    if parameters["weight_decay"].default is not None:  # AdamW's, which takes no None for none
        decay["weight_decay"] = options.weight_decay
    if SECOND_DECAY in own:
        decay[SECOND_DECAY] = options.weight_decay
    try:
        return kind(**{**common, **decay, **options.arguments})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"train.optimizer.arguments: {error}") from error


def _kind(value: object) -> str:
    """Keras takes whatever it is given, and fails or goes astray at the first step."""
    if isinstance(value, bool):
        return "true or false"
    return "a number" if isinstance(value, int | float) else "a word"


SECOND_DECAY = "adam_weight_decay"
"""Muon's, of all weights but matrices: what Keras sets it to would shrink them unasked."""
WRAPPERS = ("LossScaleOptimizer", "MultiOptimizer")
NOT_ITS_OWN = (
    *("name", "use_ema", "ema_momentum", "ema_overwrite_frequency"),
    *("loss_scale_factor", "gradient_accumulation_steps"),
)
"""Arguments that are options of the training, not of an optimizer."""
