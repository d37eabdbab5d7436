"""From a recipe and overrides to a valid config, or to one line that says what is wrong.

    defaults of the tree  <  recipe (YAML)  <  overrides ({"train.epochs": 30})

Validation is pydantic's, YAML is ruamel.yaml's (YAML 1.2: `1e-3` is a number and `no` is text).
"""

import difflib
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from models.options import Options
from pipeline.config import Config
from pipeline.options.schedules import IN_EPOCHS
from pipeline.suggestions import suggestion
from serve.command import LockstepError

A_LIST = "a list, as 8,16 or [8, 16]"

Group = TypeVar("Group", bound=Options)


class ConfigError(LockstepError):
    """A recipe or an override that does not fit the config tree."""


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return packaged_names("pipeline.recipes")


def load_recipe(name: str) -> dict[str, Any]:
    """The plain values of a recipe: one that comes with the package, or a YAML file."""
    return load_yaml(name, "pipeline.recipes", "recipe")


def packaged_names(package: str) -> list[str]:
    """The YAML files of a package, without their ending."""
    files = (Path(item.name) for item in resources.files(package).iterdir())
    return sorted(file.stem for file in files if file.suffix == ".yaml")


def load_yaml(name: str, package: str, kind: str) -> dict[str, Any]:
    """A mapping from a YAML file: one of a package by its name alone, or any other by its path.

    Args:
        kind: what it is called in errors.

    Raises:
        ConfigError: there is no such file, or it holds no mapping.
    """
    names, path = packaged_names(package), Path(name)
    if name in names:
        return parse_mapping(
            resources.files(package).joinpath(f"{name}.yaml").read_text("utf-8"), name
        )
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        raise ConfigError(
            f"no {kind} {name!r}{nearest(name, names)}; expected one of {', '.join(names)}, "
            "or a YAML file"
        )
    try:
        return parse_mapping(path.read_text("utf-8"), name)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: expected UTF-8 text: {error}") from None


def parse_mapping(text: str, origin: str) -> dict[str, Any]:
    """Read a YAML mapping; `origin` names it in errors."""
    value = parse_value(text, origin)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{origin}: expected a mapping of options, got {value!r:.60}")
    return value


def parse_value(text: str, origin: str) -> Any:
    """Read one YAML value, as on the right of `--train.epochs 30`."""
    try:
        return YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{origin}: not valid YAML: {error}") from None


def resolve(
    recipe: Mapping[str, Any], overrides: Mapping[str, Any], *, origin: str | None = None
) -> Config:
    """Lay the recipe and then the overrides, keyed by dotted path, over the defaults.

    Args:
        origin: names the recipe in errors, where they are the recipe's.

    Raises:
        ConfigError: names the key, the value, what was expected and, for a typo, the nearest key.
    """
    tree = Config().model_dump()
    _merge(tree, recipe)
    _merge(tree, _nested(overrides))
    return validated(Config, tree, origin)


def validated(root: type[Group], values: Mapping[str, Any], origin: str | None = None) -> Group:
    """The options that a tree of plain values asks for.

    Args:
        origin: stands before the message of an error.

    Raises:
        ConfigError: as `resolve` does.
    """
    try:
        return root.model_validate(values)
    except ValidationError as error:
        prefix = f"{origin}: " if origin else ""
        dashes = "" if origin else "--"
        raise ConfigError(prefix + _one_line(error, root, dashes)) from None


def to_yaml(config: Config) -> str:
    """The whole tree, every default written out."""
    return dump_yaml(config.model_dump())


def dump_yaml(tree: Mapping[str, Any]) -> str:
    """Plain values as YAML, in their order."""
    stream = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(tree, stream)
    return stream.getvalue()


def fingerprint(value: Any) -> str:
    """SHA-256 of a plain value (anything JSON can hold), as 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def differing_keys(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """`key old -> new` for every dotted key in which two trees differ."""
    old, new = flat(one), flat(other)
    return [
        f"{key} {old.get(key)} -> {new.get(key)}"
        for key in dict.fromkeys((*old, *new))
        if old.get(key) != new.get(key)
    ]


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of a tree by dotted key, in its order."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            leaves.update(flat(value, f"{prefix}{key}."))
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def leaves(options: type[Options] = Config, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every dotted key of the tree with its field; a choice gives the keys of every form."""
    for name, field in options.model_fields.items():
        forms = option_forms(field)
        if not forms:
            yield f"{prefix}{name}", field
        for form in forms:
            yield from leaves(form, f"{prefix}{name}.")


def option_forms(field: FieldInfo) -> list[type[Options]]:
    """The option groups that a field may hold: none for a plain value, several for a choice."""
    return _forms(field.annotation)


def _forms(annotation: Any) -> list[type[Options]]:
    if get_origin(annotation) is Annotated:
        return _forms(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [form for part in get_args(annotation) for form in _forms(part)]
    is_group = isinstance(annotation, type) and issubclass(annotation, Options)
    return [annotation] if is_group else []


def _nested(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted path as a tree; of a value given twice, the later one counts."""
    tree: dict[str, Any] = {}
    for path, value in overrides.items():
        for part in reversed(path.split(".")):
            value = {part: value}
        _lay_over(tree, value)
    return tree


def _lay_over(tree: dict[str, Any], new: Mapping[str, Any]) -> None:
    for key, value in new.items():
        current = tree.get(key)
        if isinstance(value, Mapping) and isinstance(current, dict):
            _lay_over(current, value)
        else:
            tree[key] = dict(value) if isinstance(value, Mapping) else value


def _merge(tree: dict[str, Any], new: Mapping[str, Any]) -> None:
    """Lay `new` over `tree`.

    A group that changes its `name` drops the options of the old form. A length given in one way
    (`warmup_epochs`) puts the other (`warmup`) out of force.
    """
    for key, value in new.items():
        current = tree.get(key)
        if isinstance(value, Mapping) and isinstance(current, dict):
            if value.get("name", current.get("name")) != current.get("name"):
                current.clear()
            _merge(current, value)
        elif value is None and isinstance(current, dict):
            continue  # a section whose options are all commented out
        else:
            tree[key] = value
    for one, other in (*IN_EPOCHS.items(), *((value, key) for key, value in IN_EPOCHS.items())):
        if new.get(one) is not None and new.get(other) is None and other in tree:
            tree[other] = None


def _one_line(error: ValidationError, root: type[Options], dashes: str) -> str:
    """Of several problems the first.

    Args:
        dashes: before a key that the person is told to add, as on their command line or recipe.
    """
    problems: dict[str, list[Any]] = {}
    for problem in error.errors():
        problems.setdefault(_key(problem["loc"], root), []).append(problem)
    key, (first, *alternatives) = next(iter(problems.items()))
    known = [name for name, _ in leaves(root)]
    if first["type"] == "extra_forbidden" and key in known:
        message = _of_other_forms(key, str(first["loc"][-2]), root, dashes)
    elif first["type"] == "extra_forbidden":
        message = f"unknown config key {key}{suggestion(key, *_all_keys(root))}"
    elif first["type"] == "missing":
        message = f"{key}: missing"
    elif first["type"] == "union_tag_invalid":
        context = first["ctx"]
        expected = str(context["expected_tags"]).replace("'", "")
        hint = nearest(str(context["tag"]), expected.split(", "))
        message = f"{key}.name: expected one of {expected}; got {context['tag']!r}{hint}"
    elif first["type"] == "value_error":
        message = _of_a_branch(key, str(first["ctx"]["error"]), known)
    else:
        texts = [item["msg"].removeprefix("Input should be ") for item in (first, *alternatives)]
        text = " or ".join(dict.fromkeys(texts)).replace("a valid list", A_LIST)
        message = f"{key}: expected {text}; got {first['input']!r}{_as_a_form(key, first, known)}"
    others = len(problems) - 1
    return message + (f" (and {others} more)" if others else "")


def _all_keys(root: type[Options]) -> tuple[list[str], set[str]]:
    """Every key and section of the tree; and those that it has by default."""
    known = list(dict.fromkeys(name for name, _ in leaves(root)))
    usual = set(flat(root().model_dump())) if root is Config else set(known)
    sections = {
        name[:index]: None for name in known for index, letter in enumerate(name) if letter == "."
    }
    return [*known, *sections], usual | set(sections)


def _of_other_forms(key: str, chosen: str, root: type[Options], dashes: str) -> str:
    """What is wrong with an option of a form that was not chosen, and how to choose it."""
    choice, _, option = key.rpartition(".")
    fields = root.model_fields
    *sections, last = choice.split(".")
    for section in sections:
        (form,) = option_forms(fields[section])
        fields = form.model_fields
    having = [
        form.model_fields["name"].default
        for form in option_forms(fields[last])
        if option in form.model_fields
    ]
    return (
        f"{key}: {choice}.name {chosen} has no such option; add {dashes}{choice}.name "
        f"{' or '.join(having)}"
    )


def _as_a_form(key: str, problem: Any, known: list[str]) -> str:
    """How to name a form, where its name stands in place of its options."""
    if isinstance(problem["input"], str) and f"{key}.name" in known:
        return f"; write {key}: {{name: {problem['input']}}}"
    return ""


def _of_a_branch(key: str, text: str, known: list[str]) -> str:
    """What a branch as a whole says, which may name one of its own keys first."""
    if not key:
        return text
    own = f"{key}.{text}"
    return own if own.partition(":")[0] in known else f"{key}: {text}"


def _key(location: tuple[int | str, ...], root: type[Options]) -> str:
    """The dotted key of an error; pydantic also names forms and types, which are no keys."""
    parts: list[str] = []
    forms = [root]
    for part in location:
        names = [form.model_fields["name"].default for form in forms if "name" in form.model_fields]
        if len(forms) > 1 and part in names:
            forms = [form for form in forms if form.model_fields["name"].default == part]
            continue
        if not forms and isinstance(part, str):  # below a plain value: the name of a type
            continue
        parts.append(str(part))
        fields = [form.model_fields[str(part)] for form in forms if part in form.model_fields]
        forms = option_forms(fields[0]) if fields else []
    return ".".join(parts)


def nearest(word: str, candidates: list[str]) -> str:
    """`; did you mean CANDIDATE?`, or nothing where none is near."""
    matches = difflib.get_close_matches(word, candidates, n=1, cutoff=0.6)
    return f"; did you mean {matches[0]}?" if matches else ""
