"""Keras optimizers from their options."""

import keras

from pipeline.options.optimizers import (
    AdagradOptions,
    AdamOptions,
    AdamwOptions,
    MomentumOptions,
    OptimizerOptions,
    RmspropOptions,
    SgdOptions,
)


def build_optimizer(options: OptimizerOptions) -> keras.optimizers.Optimizer:
    """The optimizer that `options` names, at its peak learning rate."""
    match options:
        case SgdOptions():
            return keras.optimizers.SGD(
                options.learning_rate, weight_decay=options.weight_decay or None
            )
        case MomentumOptions():
            return keras.optimizers.SGD(
                options.learning_rate,
                momentum=options.momentum,
                nesterov=options.nesterov,
                weight_decay=options.weight_decay or None,
            )
        case AdagradOptions():
            return keras.optimizers.Adagrad(
                options.learning_rate,
                initial_accumulator_value=options.initial_accumulator,
                epsilon=options.epsilon,
            )
        case RmspropOptions():
            return keras.optimizers.RMSprop(
                options.learning_rate,
                rho=options.rho,
                momentum=options.momentum,
                epsilon=options.epsilon,
            )
        case AdamOptions():
            return keras.optimizers.Adam(
                options.learning_rate,
                beta_1=options.beta_1,
                beta_2=options.beta_2,
                epsilon=options.epsilon,
            )
        case AdamwOptions():
            return keras.optimizers.AdamW(
                options.learning_rate,
                weight_decay=options.weight_decay,
                beta_1=options.beta_1,
                beta_2=options.beta_2,
                epsilon=options.epsilon,
            )
