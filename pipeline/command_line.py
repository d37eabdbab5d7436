"""Command lines with one option for every key of the config tree, and that of `pipeline.run`."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from models.options import Options
from pipeline.config import Config
from pipeline.recipe import (
    ConfigError,
    flat,
    leaves,
    load_recipe,
    option_forms,
    parse_value,
    recipe_names,
    resolve,
)
from pipeline.suggestions import suggestion
from serve.command import CommandParser

EPILOG = """\
examples:
  python -m pipeline.run
  python -m pipeline.run --recipe fashion-mnist
  python -m pipeline.run --recipe my.yaml --train.epochs 30 --train.optimizer.name adam
  python -m pipeline.run --data folder:photos

The same command again continues, whatever ended the one before: finished stages whose inputs did
not change are skipped, and a training goes on where it was, with the same result to the last bit.
"""


@dataclass(frozen=True)
class Invocation:
    """What the person asked for."""

    config: Config
    run_dir: Path
    fresh: bool


def parse(arguments: list[str] | None = None) -> Invocation:
    """Read the command line of `pipeline.run`, the recipe it names, and validate the result.

    Raises:
        ConfigError: an unknown option, a bad value, or an unreadable recipe.
    """
    parser = config_parser(
        prog="python -m pipeline.run",
        description=(
            "Images in, a proven ONNX bundle out: prepare, train, evaluate, export, quantize, "
            "verify, report."
        ),
        epilog=EPILOG,
        usage="%(prog)s [--recipe NAME|FILE] [--run-dir DIR] [--fresh] [--KEY VALUE ...]",
    )
    parser.add_argument(
        "--run-dir", metavar="DIR", help="where the run lives (default: runs/<recipe>)"
    )
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="start an unfinished training over, from its first step",
    )
    config, name, options = read_config(parser, arguments)
    return Invocation(config, Path(options.run_dir or Path("runs") / name), options.fresh)


def config_parser(*, prog: str, description: str, epilog: str, usage: str) -> CommandParser:
    """A parser with `--recipe` and an option for every key; a command adds its own to it."""
    parser = CommandParser(prog=prog, description=description, epilog=epilog, usage=usage)
    parser.add_argument(
        "--recipe",
        metavar="NAME|FILE",
        help=f"start from a recipe ({', '.join(recipe_names())}) or a YAML file "
        "(default: the one named like --data, else the defaults below)",
    )
    add_config_options(parser)
    return parser


def read_config(
    parser: CommandParser, arguments: list[str] | None
) -> tuple[Config, str, argparse.Namespace]:
    """What a command line with the options of `config_parser` asks for.

    Returns:
        The config; the name of the recipe or of the data, fit for a directory; and all options.

    Raises:
        ConfigError: an unknown option, a bad value, or an unreadable recipe.
    """
    options = parse_known(parser, arguments)
    overrides = read_overrides(options)
    recipe = options.recipe or _recipe_of(overrides.get("data", "digits"))
    values = load_recipe(recipe) if recipe else {}
    resolve(values, {}, origin=recipe)  # so that an error names the recipe if it is the recipe's
    config = resolve(values, overrides)
    return config, Path(recipe).stem if recipe else run_name(config.data), options


def parse_known(parser: CommandParser, arguments: list[str] | None) -> argparse.Namespace:
    """What `parser` reads.

    Raises:
        ConfigError: names an unknown option, and those that may have been meant.
    """
    given = sys.argv[1:] if arguments is None else arguments
    options, unknown = parser.parse_known_args(given)
    if unknown:
        raise ConfigError(f"unknown argument {unknown[0]}{_hint(parser, unknown[0], given)}")
    return options


def _hint(parser: CommandParser, unknown: str, given: Sequence[str]) -> str:
    known = [name[2:] for action in parser._actions for name in action.option_strings]
    if unknown.startswith("-"):
        word = unknown.lstrip("-").partition("=")[0]
        usual = {*flat(Config().model_dump()), *(name for name in known if "." not in name)}
        return suggestion(word, [name for name in known if name], usual, prefix="--")
    place = len(given) - 1 - list(reversed(given)).index(unknown)
    starts = [index for index in range(place) if given[index].startswith("--")]
    if not starts or given[starts[-1]][2:] not in known or starts[-1] == place - 1:
        return ""
    values = list(takewhile(lambda word: not word.startswith("--"), given[starts[-1] + 1 :]))
    return f"; several values are one word: {given[starts[-1]]} {','.join(values)}"


def add_config_options(parser: CommandParser) -> None:
    """One option for every key of the config tree."""
    _add_options(parser, parser.add_argument_group("config"), Config, "")


def accept_config_options(parser: CommandParser) -> None:
    """The same without a word of them in the help, where that is about something else."""
    for key, field in dict(leaves()).items():
        _add(parser, key, field.annotation, argparse.SUPPRESS)


def read_overrides(options: argparse.Namespace) -> dict[str, Any]:
    """The values of the config keys that were given, by dotted key."""
    keys = {key for key, _ in leaves()}
    # Paths and names after `data` are text even where YAML would see something else.
    return {
        key: text if key == "data" else parse_value(text, f"--{key}")
        for key, text in vars(options).items()
        if key in keys
    }


def _recipe_of(data: str) -> str | None:
    """Without `--recipe`: the one named like the data; other data take the tree's defaults."""
    return data if data in recipe_names() else None


def run_name(data: str) -> str:
    """A name for a directory, from that of a source of images."""
    kind, _, place = data.partition(":")
    words = place
    if kind in ("folder", "npz"):
        path = Path(place).expanduser().resolve()
        words = path.stem if kind == "npz" else path.name
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in words or kind)


def _add_options(
    parser: argparse.ArgumentParser,
    group: argparse._ArgumentGroup,
    options: type[Options],
    prefix: str,
) -> None:
    sections = []
    for name, field in options.model_fields.items():
        forms = option_forms(field)
        if forms:
            sections.append((name, field, forms))
        else:
            _add(group, f"{prefix}{name}", field.annotation, _help(field))
    for name, field, forms in sections:
        key = f"{prefix}{name}"
        section = parser.add_argument_group(key, None if len(forms) > 1 else forms[0].__doc__)
        if len(forms) == 1:
            _add_options(parser, section, forms[0], f"{key}.")
        else:
            _add_choice(section, key, field, forms)


def _add_choice(
    group: argparse._ArgumentGroup, key: str, field: FieldInfo, forms: list[type[Options]]
) -> None:
    """One `--KEY.name`, and each option once with the forms that have it and their defaults."""
    names = [form.model_fields["name"].default for form in forms]
    group.add_argument(
        f"--{key}.name",
        metavar="NAME",
        dest=f"{key}.name",
        default=argparse.SUPPRESS,
        help=f"one of {', '.join(names)} (default: {field.default.name})",
    )
    options: dict[str, list[tuple[str, FieldInfo]]] = {}
    for form, form_name in zip(forms, names, strict=True):
        for name, option in form.model_fields.items():
            if name != "name":
                options.setdefault(name, []).append((form_name, option))
    for name, owners in options.items():
        defaults = {form_name: _show(option.default) for form_name, option in owners}
        if len(set(defaults.values())) == 1:
            note = f"{', '.join(defaults)}; default: {next(iter(defaults.values()))}"
        else:
            note = "default: " + ", ".join(
                f"{value} for {form}" for form, value in defaults.items()
            )
        option = owners[0][1]
        _add(group, f"{key}.{name}", option.annotation, f"{option.description} ({note})")


def _add(group: argparse._ActionsContainer, key: str, annotation: Any, text: str) -> None:
    alone: dict[str, Any] = {"nargs": "?", "const": "true"} if annotation is bool else {}
    group.add_argument(
        f"--{key}",
        metavar=_metavar(annotation),
        dest=key,
        default=argparse.SUPPRESS,
        help=text.replace("%", "%%"),
        **alone,
    )


def _help(field: FieldInfo) -> str:
    return f"{field.description} (default: {_show(field.default)})"


def _show(value: Any) -> str:
    return json.dumps(value).strip('"')


def _metavar(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "{" + ",".join(map(str, get_args(annotation))) + "}"
    if annotation in (int, float, str, bool):
        return str(annotation.__name__).upper()
    parts = [part for part in get_args(annotation) if part is not type(None)]
    if get_origin(annotation) is list:
        return f"[{_metavar(parts[0])},...]"
    if get_origin(annotation) is Annotated:
        return _metavar(parts[0])
    return "|".join(_metavar(part) for part in parts)
