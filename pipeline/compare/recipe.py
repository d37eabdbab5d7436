"""Comparison recipes: several runs that differ in some options, in one YAML file.

    recipe: digits                    # optional: an ordinary recipe that all runs start from
    common: {train.epochs: 20}        # optional: options of all runs
    runs:                             # a name for each run, and the options that are its own
      slow: {train.optimizer.learning_rate: 0.01}
      fast: {train: {optimizer: {learning_rate: 0.3}}}

Defaults of the tree < recipe < common < the run's own < command line.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config import Config
from pipeline.recipe import ConfigError, load_recipe, load_yaml, packaged_names, resolve

KEYS = ("recipe", "common", "runs")


@dataclass(frozen=True)
class Comparison:
    """Runs to be made and compared.

    Attributes:
        data: what they are on, unless one says otherwise.
        runs: name to config.
    """

    data: str
    runs: dict[str, Config]


def comparison_names() -> list[str]:
    """The comparison recipes that come with the package."""
    return packaged_names("pipeline.comparisons")


def load_comparison(name: str, overrides: Mapping[str, Any]) -> Comparison:
    """Read a comparison recipe: one that comes with the package, or a YAML file.

    Args:
        overrides: by dotted key, laid over every run.

    Raises:
        ConfigError: names the recipe, and the run whose options do not fit.
    """
    values = load_yaml(name, "pipeline.comparisons", "comparison recipe")
    unknown = [key for key in values if key not in KEYS]
    if unknown:
        raise ConfigError(f"{name}: unknown key {unknown[0]}; expected {', '.join(KEYS)}")
    common = resolve(_base(values, name), {})
    common = _lay(common, values.get("common"), f"{name}: common")
    runs = values.get("runs")
    if not isinstance(runs, dict) or len(runs) < 2:
        raise ConfigError(f"{name}: runs: expected names of at least two runs, each with options")
    configs: dict[str, Config] = {}
    for run, options in runs.items():
        if not isinstance(run, str) or not NAME.fullmatch(run):
            raise ConfigError(
                f"{name}: runs: {run!r:.60} names a directory; expected letters, digits, -, _ and "
                "., in quotes if it is a number"
            )
        config = _lay(common, options, f"{name}: run {run}")
        config = resolve(config.model_dump(), overrides, origin=f"run {run}")
        for other, its in configs.items():
            if config == its:
                raise ConfigError(
                    f"{name}: expected runs that differ, but {other} and {run} do not"
                )
        configs[run] = config
    return Comparison(overrides.get("data", common.data), configs)


NAME = re.compile(r"(?!comparison\.|curves\.)[A-Za-z0-9][\w.-]*", re.ASCII)
"""Of a run; the page and the tables lie beside the runs' directories."""


def _base(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    recipe = values.get("recipe")
    if recipe is None:
        return {}
    if not isinstance(recipe, str):
        raise ConfigError(f"{name}: recipe: expected the name of a recipe, got {recipe!r:.60}")
    return load_recipe(recipe)


def _lay(config: Config, options: Any, origin: str) -> Config:
    """`options`, by dotted key or nested, over a config."""
    if options is None:  # a run, as it were, of the common options alone
        return config
    if not isinstance(options, dict):
        raise ConfigError(f"{origin}: expected a mapping of options, got {options!r:.60}")
    texts = {str(key): value for key, value in options.items()}
    return resolve(config.model_dump(), texts, origin=origin)
