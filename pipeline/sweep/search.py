"""What a sweep is asked for: the space file, its defaults, and what the command line adds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from optuna.trial import FrozenTrial
from pydantic import Field, field_validator

from models.options import Options
from pipeline.config import Config
from pipeline.recipe import (
    ConfigError,
    load_recipe,
    load_yaml,
    packaged_names,
    recipe_names,
    resolve,
    validated,
)
from pipeline.sweep.read_space import read_space
from pipeline.sweep.space import Space, forms_first, grid

TRIALS = 20


class NoPrunerOptions(Options):
    """Every trial trains to its end."""

    name: Literal["none"] = "none"


class MedianOptions(Options):
    """Ends a trial whose best epoch so far is worse than the median of the others at this epoch."""

    name: Literal["median"] = "median"
    startup_trials: int = Field(5, ge=0)
    """Trials that must have trained to their end before any is pruned."""
    warmup_epochs: int = Field(1, ge=0)
    """Epochs that every trial gets."""


class HyperbandOptions(Options):
    """Many trials get few epochs, the best of them more (Li et al. 2018)."""

    name: Literal["hyperband"] = "hyperband"
    min_epochs: int = Field(1, ge=1)
    """Epochs that every trial gets."""
    factor: int = Field(3, ge=2)
    """One of so many trials goes on, to so many times the epochs."""


class SearchOptions(Options):
    """The space file."""

    recipe: str | None = None
    """Where every trial begins: a recipe or a YAML file; null takes the one named like the data."""
    data: str | None = None
    """Source of images, as in a recipe."""
    config: dict[str, Any] = {}
    """What all trials have in common besides, as in a recipe."""
    objective: Literal["val_accuracy", "val_loss", "accuracy", "loss"] | None = None
    """Figure of the kept epoch that is searched for; null takes that of train.monitor."""
    trials: int | None = Field(None, ge=1)
    """How many; null takes 20, or all points of a grid."""
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    """tpe learns from the trials before, random does not, grid takes every point once."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Decides the draws."""
    pruner: Annotated[
        NoPrunerOptions | MedianOptions | HyperbandOptions, Field(discriminator="name")
    ] = NoPrunerOptions()
    """Ends trials that look poor: none, median or hyperband."""
    space: Annotated[dict[str, Any], Field(min_length=1)]
    """From dotted config key to {low, high, log, step} or to a list of values."""

    @field_validator("pruner", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


@dataclass(frozen=True)
class Search:
    """A sweep, checked and complete.

    Attributes:
        options: as written to sweep.yaml, where `config` is the whole tree.
        base: the config of a trial where nothing is searched.
        trials: how many there are to be.
    """

    options: SearchOptions
    base: Config
    space: Space
    objective: str
    trials: int

    def config(self, trial: FrozenTrial) -> Config:
        """The config of a trial.

        Raises:
            ConfigError: what was drawn for it does not fit together.
        """
        return resolve(self.base.model_dump(), self.values(trial))

    def values(self, trial: FrozenTrial) -> dict[str, Any]:
        """What was drawn for a trial, by dotted key."""
        return {
            key: self.space[key].value(trial.params[key])
            for key in forms_first(self.space)
            if key in trial.params
        }

    @property
    def most_epochs(self) -> int:
        """Those of the longest trial that there can be."""
        epochs = self.space.get("train.epochs")
        return int(max(epochs.samples)) if epochs else self.base.train.epochs

    def document(self) -> dict[str, Any]:
        """What decides the trials, as plain values: a space file itself."""
        tree = self.options.model_dump(exclude={"recipe", "data", "trials"})
        tree["config"], tree["objective"] = self.base.model_dump(), self.objective
        return tree


def space_names() -> list[str]:
    """The spaces that come with the package."""
    return packaged_names("pipeline.spaces")


def load_search(
    name: str, overrides: Mapping[str, Any] | None = None, *, trials: int | None = None
) -> Search:
    """Read a space file, or one that comes with the package.

    Args:
        overrides: config values for all trials, by dotted key.
        trials: stands instead of the file's.

    Raises:
        ConfigError: there is no such file, or something in it is wrong.
    """
    overrides = overrides or {}
    options = validated(SearchOptions, load_yaml(name, "pipeline.spaces", "space"), name)
    for key in overrides:
        if key in options.space:
            raise ConfigError(f"{key}: expected a value or a search, got --{key} and space: {key}")
    given = {**options.config, **({} if options.data is None else {"data": options.data})}
    data = str(overrides.get("data", given.get("data", "digits")))
    recipe = options.recipe or (data if data in recipe_names() else None)
    recipe_values = load_recipe(recipe) if recipe else {}
    resolve(recipe_values, {}, origin=recipe)  # so that an error names the recipe if it is its own
    common = resolve(recipe_values, given, origin=f"{name}: config")
    base = resolve(common.model_dump(), overrides)
    try:
        space = read_space(options.space, base)
        points = len(grid(space, base)) if options.sampler == "grid" else None
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
    wanted = trials or options.trials or points or TRIALS
    return Search(
        options=options,
        base=base,
        space=space,
        objective=options.objective or base.train.monitor,
        trials=wanted if points is None else min(wanted, points),
    )
