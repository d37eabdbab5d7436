"""What can be said of a config before any image is read, and hours before a training says it."""

import os
from pathlib import Path

from models import backbones
from models.checks import check
from models.options import PretrainedOptions
from pipeline.config import Config
from pipeline.options.optimizers import OtherOptimizerOptions
from pipeline.recipe import ConfigError
from pipeline.training.model_file import model_file

SIZES = {"digits": (8, 8), "fashion-mnist": (28, 28)}
"""Of the images of sources that come along."""


def check_model(config: Config, *, weights: bool = True) -> None:
    """Look at all that a training would refuse, as far as it is known without the images.

    Args:
        weights: whether the weights that it starts from have to be there still.

    Raises:
        ConfigError: the model, its weights, the optimizer or the loss cannot be had like this.
    """
    size = config.prepare.image_size
    known = (size[0], size[1]) if size else SIZES.get(config.data)
    try:
        check(config.model, known)
        if weights and isinstance(config.model, PretrainedOptions):
            backbones.check_weights_can_be_had(config.model, known)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if weights:
        _check_start(config.model.init_from)
    _check_optimizer(config)
    _check_class_weights(config)


def check_writable(folder: Path) -> None:
    """Raises ConfigError: nothing can be written there."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"{folder}: expected a directory that can be written to, got {there}")


def _check_start(origin: str | None) -> None:
    if origin and not model_file(origin).is_file():
        raise ConfigError(
            "model.init_from: expected a run directory with a trained model, or a .keras file; "
            f"got {origin}"
        )


def _check_optimizer(config: Config) -> None:
    """Keras itself knows its optimizers and their arguments; all others are checked as options."""
    if isinstance(config.train.optimizer, OtherOptimizerOptions):
        from export.quiet_tensorflow import import_tensorflow

        import_tensorflow()
        from pipeline.training.optimizers import build_optimizer

        build_optimizer(config.train.optimizer, [])


def _check_class_weights(config: Config) -> None:
    """How many classes there are is known later, and then the number of weights is checked."""
    given = config.train.loss.class_weights
    if isinstance(given, list) and len(given) < 2:
        raise ConfigError(
            f"train.loss.class_weights: expected one for each class; got {len(given)}"
        )
    if isinstance(given, list) and not any(given):
        raise ConfigError("train.loss.class_weights: expected some image to count")
