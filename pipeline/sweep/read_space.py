"""From the `space` of a file to a checked space, or to one line that says what is wrong."""

import json
from collections.abc import Collection, Iterator, Mapping
from decimal import Decimal
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import Field

from models.options import Options
from pipeline.config import Config
from pipeline.recipe import ConfigError, flat, leaves, resolve, validated
from pipeline.suggestions import suggestion
from pipeline.sweep.space import Choices, Numbers, Space, forms_of, is_there

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


def read_space(entries: Mapping[str, Any], base: Config) -> Space:
    """The space that a file describes, checked against the config tree.

    Args:
        base: what a trial has where nothing is searched.

    Raises:
        ConfigError: an unknown key, a range that is none, or a value that the key cannot have.
    """
    fields = dict(leaves())
    for key in entries:
        _check_key(key, list(fields), flat(base.model_dump()))
    space = {key: _read(key, entry, fields[key].annotation) for key, entry in entries.items()}
    for key, values in space.items():
        _check_values(key, values, space, base)
    return space


def _check_key(key: str, known: list[str], usual: Collection[str]) -> None:
    if key not in known:
        raise ConfigError(f"space: unknown config key {key}{suggestion(key, known, usual)}")
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
    if int in kinds and isinstance(given.step, float):
        raise ConfigError(f"{where}: expected a whole step, got {given.step}")
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
    having = [form for form in forms if is_there(key, {**forms_of(base), **form})] or forms[:1]
    for form in having:
        for value in values.samples:
            resolve(base.model_dump(), {**form, key: value}, origin=f"space: {key}")


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
