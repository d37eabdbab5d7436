"""The space of a sweep: config keys, and the values that each of them may take.

A key belongs to the form that has it: `train.optimizer.momentum` is drawn where the trial's
`train.optimizer.name` is `momentum`, and not at all for a form without it.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import optuna
from pydantic import Field

from models.options import Options
from pipeline.config import Config
from pipeline.recipe import ConfigError, leaves, nearest, option_forms, resolve, validated

JUDGES = ("data", "seed", "prepare.validation_share", "prepare.test_share")
"""Keys that decide which images judge a trial."""


class RangeOptions(Options):
    """Numbers from low to high, both included."""

    low: int | float
    high: int | float
    log: bool = False
    """Draw the logarithm evenly: for rates, whose order of magnitude is what matters."""
    step: Annotated[int | float, Field(gt=0)] | None = None
    """Only low, low + step, low + 2 step, ..."""


class ChoicesOptions(Options):
    """The long form of a list of values."""

    choices: list[Any]


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


def read_space(entries: Mapping[str, Any], base: Config) -> Space:
    """The space that a file describes, checked against the config tree.

    Args:
        base: what a trial has where nothing is searched.

    Raises:
        ConfigError: an unknown key, a range that is none, or a value that the key cannot have.
    """
    fields = dict(leaves())
    for key in entries:
        _check_key(key, list(fields))
    space = {key: _read(key, entry, fields[key].annotation) for key, entry in entries.items()}
    for key, values in space.items():
        _check_values(key, values, space, base)
    return space


def forms_first(space: Space) -> list[str]:
    """The keys in the order in which they are drawn."""
    return sorted(space, key=lambda key: not key.endswith(".name"))


def draw(space: Space, base: Config, trial: optuna.Trial) -> None:
    """Draw a value for every key that the drawn forms have."""
    forms = _forms_of(base)
    for key in forms_first(space):
        if _is_there(key, forms):
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
            for present in [_is_there(key, {**_forms_of(base), **point})]
            for value in (values if present else [None])
        ]
    return points


def _check_key(key: str, known: list[str]) -> None:
    if key not in known:
        near = f"; expected {key}.name" if f"{key}.name" in known else nearest(key, known)
        raise ConfigError(f"space: unknown config key {key}{near}")
    if key in JUDGES:
        raise ConfigError(
            f"space: {key} decides which images judge a trial, so that trials could not be compared"
        )
    section = key.partition(".")[0]
    if section not in ("prepare", "augment", "model", "train") or key == "train.checkpoint_minutes":
        raise ConfigError(
            f"space: {key} changes no training; expected a key of prepare, augment, model or train"
        )


def _read(key: str, entry: Any, annotation: Any) -> Numbers | Choices:
    where = f"space: {key}"
    if isinstance(entry, Mapping) and "choices" in entry:
        entry = validated(ChoicesOptions, entry, where).choices
    if isinstance(entry, list):
        texts = [_json(value, where) for value in entry]
        if not entry or len(set(texts)) < len(texts):
            raise ConfigError(f"{where}: expected different values to choose from, got {entry}")
        return Choices(tuple(entry))
    if not isinstance(entry, Mapping):
        raise ConfigError(
            f"{where}: expected a range {{low: ..., high: ...}} or a list of values, got {entry!r}"
        )
    given = validated(RangeOptions, entry, where)
    kinds = set(_kinds(annotation))
    if not kinds & {int, float}:
        raise ConfigError(f"{where}: is no number, so expected a list of values, got a range")
    if given.low > given.high:
        raise ConfigError(f"{where}: expected low <= high, got {given.low} and {given.high}")
    if given.log and given.low <= 0:
        raise ConfigError(f"{where}: expected low > 0 with log, got {given.low}")
    if given.log and given.step is not None:
        raise ConfigError(f"{where}: expected log or step, got both")
    if given.step is not None and _remainder(given.low, given.high, given.step):
        raise ConfigError(
            f"{where}: expected high to be a whole number of steps above low, "
            f"got {given.low}, {given.high} and step {given.step}"
        )
    return Numbers(given.low, given.high, given.log, given.step, whole=int in kinds)


def _check_values(key: str, values: Numbers | Choices, space: Space, base: Config) -> None:
    """Try the values in every form that has the key."""
    section = f"{key.rpartition('.')[0]}.name"
    names = space[section].samples if section in space and key != section else [None]
    forms = [{} if name is None else {section: name} for name in names]
    having = [form for form in forms if _is_there(key, {**_forms_of(base), **form})] or forms[:1]
    for form in having:
        for value in values.samples:
            resolve(base.model_dump(), {**form, key: value}, origin=f"space: {key}")
    if (
        isinstance(values, Numbers)
        and values.whole
        and values.step not in (None, int(values.step or 0))
    ):
        raise ConfigError(f"space: {key}: expected a whole step, got {values.step}")


def _is_there(key: str, forms: Mapping[str, Any]) -> bool:
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


def _forms_of(base: Config) -> dict[str, Any]:
    """`{"model.name": "cnn", ...}`: every choice among forms, by its key."""

    def names(options: Options, prefix: str) -> Iterator[tuple[str, Any]]:
        for field in type(options).model_fields:
            value = getattr(options, field)
            if isinstance(value, Options):
                yield from names(value, f"{prefix}{field}.")
            elif field == "name":
                yield f"{prefix}name", value

    return dict(names(base, ""))


def _kinds(annotation: Any) -> Iterator[Any]:
    """The plain types that a value may have."""
    if get_origin(annotation) is Annotated:
        yield from _kinds(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for part in get_args(annotation):
            yield from _kinds(part)
    else:
        yield annotation


def _remainder(low: float, high: float, step: float) -> Decimal:
    return (Decimal(str(high)) - Decimal(str(low))) % Decimal(str(step))


def _json(value: Any, where: str) -> str:
    try:
        return json.dumps(value)
    except TypeError:
        raise ConfigError(f"{where}: expected plain values, got {value!r}") from None
