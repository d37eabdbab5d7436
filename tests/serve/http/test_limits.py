"""The limits as options: units, defaults, help, and what is refused."""

import argparse
import dataclasses
import re
from typing import get_type_hints

import pytest

from serve.command import CommandParser, LockstepError
from serve.http.limits import (
    Limits,
    Memory,
    add_limits,
    byte_count,
    count,
    limits,
    seconds,
)
from serve.http.messages import HttpError

FIELDS = {field.name: field for field in dataclasses.fields(Limits)}
UNITS = {
    name: hint.__metadata__[0] for name, hint in get_type_hints(Limits, include_extras=True).items()
}


def parser() -> CommandParser:
    made = CommandParser(prog="server", description="", epilog="")
    add_limits(made)
    return made


def read(*arguments: str) -> Limits:
    return limits(parser().parse_args(arguments))


def option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def test_every_limit_is_on_by_default() -> None:
    assert read() == Limits()
    for name, value in dataclasses.asdict(Limits()).items():
        if name != "max_pixels":  # which each model sets
            assert value > 0, name


def test_the_defaults_fit_together() -> None:
    """A request within one limit must be possible within the others."""
    default = Limits()
    assert default.max_json <= default.max_body <= default.max_memory
    assert default.max_head < default.max_json
    assert default.head_timeout <= default.body_timeout <= default.idle_timeout


@pytest.mark.parametrize("name", FIELDS)
def test_every_limit_is_an_option(name: str) -> None:
    text = {"": "7", "pixels": "7", "bytes": "7KiB", "seconds": "7.5"}[UNITS[name]]
    expected = {"": 7, "pixels": 7, "bytes": 7 * 1024, "seconds": 7.5}[UNITS[name]]
    assert read(option(name), text) == Limits(**{**dataclasses.asdict(Limits()), name: expected})


@pytest.mark.parametrize("name", FIELDS)
def test_the_help_says_what_it_is_and_what_it_is_by_default(name: str) -> None:
    text = " ".join(parser().format_help().split())
    found = re.search(rf"{option(name)} (INT|SIZE|SECONDS) (.+?) \(default: (\S+)\)", text)
    assert found, text
    assert (
        found[1] == {"": "INT", "pixels": "INT", "bytes": "SIZE", "seconds": "SECONDS"}[UNITS[name]]
    )
    # What the help calls the default is what the option takes as the default.
    assert read(option(name), found[3]) == Limits()


@pytest.mark.parametrize(
    "text, expected",
    [
        ("1", 1),
        ("65536", 65536),
        ("64KiB", 64 * 2**10),
        ("64kib", 64 * 2**10),
        ("64 MiB", 64 * 2**20),
        ("2GiB", 2 * 2**30),
        ("3kB", 3000),
        ("3MB", 3_000_000),
        ("3GB", 3_000_000_000),
    ],
)
def test_sizes_have_units(text: str, expected: int) -> None:
    assert byte_count(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "0MiB",
        "-1",
        "-1MiB",
        "1.5MiB",
        "MiB",
        "64XiB",
        "64M",
        "64 Mi B",
        "1e6",
        "inf",
    ],
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError):
        byte_count(text)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "", "ten", "1e3", "inf"])
def test_what_is_no_count(text: str) -> None:
    with pytest.raises(ValueError):
        count(text)


@pytest.mark.parametrize("text", ["0", "-1", "", "ten", "inf", "nan", "-inf", "1s"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError):
        seconds(text)


@pytest.mark.parametrize(
    "name, text, expected",
    [
        ("max_body", "much", "a size, as in 64MiB"),
        ("max_images", "0", "an integer of at least 1"),
        ("max_pixels", "250000001", "an integer from 1 to 250000000, or model"),
        ("max_pixels", "0", "an integer from 1 to 250000000, or model"),
        ("max_json_depth", "-3", "an integer of at least 1"),
        ("head_timeout", "never", "a number of seconds above 0"),
        ("write_timeout", "0", "a number of seconds above 0"),
    ],
)
def test_a_bad_value_is_refused_with_what_was_expected(name: str, text: str, expected: str) -> None:
    with pytest.raises(LockstepError) as refused:
        read(f"{option(name)}={text}")
    message = str(refused.value)
    assert message == (
        f"argument {option(name)}: expected {expected}, got {text!r}; see server --help"
    )


def test_limits_are_read_from_a_larger_command_line() -> None:
    options = argparse.Namespace(**dataclasses.asdict(Limits()), port=8000)
    assert limits(options) == Limits()


def test_memory_is_counted() -> None:
    memory = Memory(100)
    memory.take(60)
    memory.take(40)
    with pytest.raises(HttpError) as refused:
        memory.take(1)
    assert refused.value.status == 503
    assert ("Retry-After", "1") in refused.value.headers
    assert memory.held == 100  # what was refused is not counted
    memory.give(60)
    memory.take(1)
    memory.give(41)
    assert memory.held == 0
