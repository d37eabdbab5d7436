"""The space of a sweep: config keys, and the values that each of them may take.

A key belongs to the form that has it: `train.optimizer.momentum` is drawn where the trial's
`train.optimizer.name` is `momentum`, and not at all for a form without it.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import optuna

from models.options import Options
from pipeline.config import Config
from pipeline.recipe import ConfigError, option_forms


@dataclass(frozen=True)
class Numbers:
    """A range of whole or of real numbers."""

    low: float
    high: float
    log: bool
    step: float | None
    whole: bool

    @property
    def samples(self) -> list[Any]:
        """Values that stand for all in a check."""
        return [self.low, self.high]

    def suggest(self, key: str, trial: optuna.Trial) -> Any:
        """Draw one."""
        if self.whole:
            step = int(self.step or 1)
            return trial.suggest_int(key, int(self.low), int(self.high), step=step, log=self.log)
        return trial.suggest_float(key, self.low, self.high, step=self.step, log=self.log)

    def known_as(self, value: Any) -> Any:
        """The value as Optuna has it."""
        return value

    def value(self, known_as: Any) -> Any:
        """The value that Optuna has so."""
        return known_as

    def points(self, key: str) -> list[Any]:
        """All of them, for a grid.

        Raises:
            ConfigError: they are without number.
        """
        step = Decimal(str(self.step or (1 if self.whole and not self.log else 0)))
        if not step:
            raise ConfigError(f"space: {key}: a grid needs a step, or a list of values")
        low = Decimal(str(self.low))
        count = int((Decimal(str(self.high)) - low) / step) + 1
        return [(int if self.whole else float)(low + step * index) for index in range(count)]


@dataclass(frozen=True)
class Choices:
    """Values of any kind."""

    values: tuple[Any, ...]

    @property
    def samples(self) -> list[Any]:
        """Values that stand for all in a check: all of them."""
        return list(self.values)

    def suggest(self, key: str, trial: optuna.Trial) -> Any:
        """Draw one."""
        return self.value(trial.suggest_categorical(key, [self.known_as(v) for v in self.values]))

    def known_as(self, value: Any) -> Any:
        """The value as Optuna has it: of any kind, but as text."""
        return json.dumps(value)

    def value(self, known_as: Any) -> Any:
        """The value that Optuna has so."""
        return json.loads(known_as)

    def points(self, key: str) -> list[Any]:
        """All of them, for a grid."""
        return self.samples


Space = dict[str, Numbers | Choices]


def forms_first(space: Space) -> list[str]:
    """The keys in the order in which they are drawn."""
    return sorted(space, key=lambda key: not key.endswith(".name"))


def draw(space: Space, base: Config, trial: optuna.Trial) -> None:
    """Draw a value for every key that the drawn forms have."""
    forms = forms_of(base)
    for key in forms_first(space):
        if is_there(key, forms):
            forms[key] = space[key].suggest(key, trial)


def grid(space: Space, base: Config) -> list[dict[str, Any]]:
    """Every point of the space once.

    Raises:
        ConfigError: a range without a step.
    """
    points: list[dict[str, Any]] = [{}]
    for key in forms_first(space):
        values = space[key].points(key)
        points = [
            {**point, key: value} if present else point
            for point in points
            for present in [is_there(key, {**forms_of(base), **point})]
            for value in (values if present else [None])
        ]
    return points


def is_there(key: str, forms: Mapping[str, Any]) -> bool:
    """Whether the forms that `forms` names, by keys that end in .name, have this key."""
    options: type[Options] = Config
    *sections, leaf = key.split(".")
    path = ""
    for section in sections:
        path += f"{section}."
        candidates = option_forms(options.model_fields[section])
        chosen = [
            form
            for form in candidates
            if len(candidates) == 1 or form.model_fields["name"].default == forms[f"{path}name"]
        ]
        if not chosen:
            return False
        options = chosen[0]
    return leaf in options.model_fields


def forms_of(base: Config) -> dict[str, Any]:
    """`{"model.name": "cnn", ...}`: every choice among forms, by its key."""

    def names(options: Options, prefix: str) -> Iterator[tuple[str, Any]]:
        for field in type(options).model_fields:
            value = getattr(options, field)
            if isinstance(value, Options):
                yield from names(value, f"{prefix}{field}.")
            elif field == "name":
                yield f"{prefix}name", value

    return dict(names(base, ""))
