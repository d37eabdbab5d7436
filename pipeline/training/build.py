"""Model, batches and learning rate of a training, from its config."""

from functools import partial

import keras
import tensorflow as tf

import models
from export.prepared_data import PreparedData, Split
from pipeline.config import Config
from pipeline.input.batches import (
    Examples,
    evaluation_batches,
    steps_per_epoch,
    training_batches,
    training_parts,
    training_views,
)
from pipeline.options.schedules import AdaptiveCosineOptions, PlateauOptions
from pipeline.options.training import MONITORS
from pipeline.recipe import ConfigError
from pipeline.training.callbacks import AdaptiveCosine, LearningRate, Plateau
from pipeline.training.loop import Plan
from pipeline.training.losses import build_loss
from pipeline.training.optimizers import build_optimizer
from pipeline.training.schedules import adaptive_cycles, build_schedule

PART_OF_FULL = 512
"""Images of a full batch that are computed at once, where the config does not say."""


def build_model(config: Config, data: PreparedData) -> keras.Model:
    """The untrained model for this data set, normalization included.

    Raises:
        ConfigError: these options and images do not go together.
    """
    manifest = data.manifest
    try:
        return models.build(
            config.model,
            manifest.image_spec().shape,
            len(manifest.class_names),
            mean=manifest.mean,
            std=manifest.std,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error


def compile_model(
    model: keras.Model, config: Config, data: PreparedData, learning_rate: float | None = None
) -> None:
    """Attach a new optimizer, loss and metrics, and make their variables.

    Args:
        learning_rate: None takes the optimizer's own.
    """
    counts = data.manifest.counts["train"]
    options = config.train.optimizer
    if learning_rate:
        options = options.model_copy(update={"learning_rate": learning_rate})
    model.compile(
        optimizer=build_optimizer(options, model.trainable_variables),
        loss=build_loss(config.train.loss, [counts[name] for name in data.manifest.class_names]),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    build_variables(model)


def build_variables(model: keras.Model) -> None:
    """Make every variable that the first step would: the optimizer's, and the metrics'."""
    model.optimizer.build(model.trainable_variables)
    nothing = tf.zeros([1, model.output_shape[-1]])
    model.compute_metrics(None, nothing, nothing)
    model.reset_metrics()


def batch_and_part(config: Config, data: PreparedData) -> tuple[int, int]:
    """Images of a batch, and those of it that are computed at once."""
    options, examples = config.train, len(data.indices("train"))
    if options.batch_size == "full":
        return examples, min(examples, options.part_size or PART_OF_FULL)
    return options.batch_size, min(options.batch_size, options.part_size or options.batch_size)


def make_plan(
    config: Config, data: PreparedData, first: int = 0, end: int | None = None, name: str = ""
) -> Plan:
    """Batches, epochs and steps of the classifier's training.

    Args:
        first, end: the epochs of this part of it; None for the last one.
    """
    options = config.train
    batch, part = batch_and_part(config, data)
    training = _examples(data, "train")

    def batches(first_step: int) -> tf.data.Dataset:
        make = partial(training_parts, part_size=part) if part < batch else training_batches
        return make(
            training,
            batch_size=batch,
            epochs=options.epochs,
            seed=config.seed,
            augmentation=config.augment,
            first_step=first_step,
        )

    return Plan(
        batches=batches,
        validation=evaluation_batches(_examples(data, "validation"), batch_size=256),
        epochs=(first, options.epochs if end is None else end),
        steps_per_epoch=steps_per_epoch(len(training), batch),
        most_steps=options.max_steps,
        name=name,
    )


def make_pretraining_plan(config: Config, data: PreparedData, epochs: int) -> Plan:
    """Batches of two views of each image."""
    batch, _ = batch_and_part(config, data)
    training = _examples(data, "train")
    return Plan(
        batches=lambda first_step: training_views(
            training,
            batch_size=batch,
            epochs=epochs,
            seed=config.seed,
            augmentation=config.augment,
            first_step=first_step,
        ),
        validation=evaluation_batches(_examples(data, "validation"), batch_size=256),
        epochs=(0, epochs),
        steps_per_epoch=steps_per_epoch(len(training), batch),
        name="pretraining, ",
    )


def learning_rate(config: Config, plan: Plan) -> LearningRate | AdaptiveCosine | Plateau:
    """The callback that sets the rate as `config` has it."""
    options, peak = config.train.schedule, config.train.optimizer.learning_rate
    match options:
        case AdaptiveCosineOptions():
            return AdaptiveCosine(
                highest=peak,
                lowest=peak * options.floor,
                ends=adaptive_cycles(options, plan.epochs[1] - plan.epochs[0]),
                factor=options.factor,
            )
        case PlateauOptions():
            return Plateau(
                peak=peak,
                lowest=peak * options.floor,
                factor=options.factor,
                patience=options.patience,
                monitor=config.train.monitor,
                mode=MONITORS[config.train.monitor],
            )
        case _:
            return LearningRate(
                build_schedule(
                    options, peak=peak, steps_per_epoch=plan.steps_per_epoch, steps=plan.steps
                )
            )


def _examples(data: PreparedData, split: Split) -> Examples:
    return Examples(data.images, data.labels, data.indices(split), len(data.manifest.class_names))
