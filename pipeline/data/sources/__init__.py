"""Where labelled images come from: `NAME` or `NAME:PLACE`, one module for each name.

A source module has two functions:

    identity(place) -> a plain value that changes when the data change; quick, reads no image
    open_source(place) -> Source
"""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.prepared_data import Split
from pipeline.data.class_names import look_alike, merge
from serve.command import LockstepError

PLACES = {
    "digits": None,
    "fashion-mnist": None,
    "folder": "PATH",
    "npz": "PATH",
    "tfds": "NAME",
}
"""Name of each source, and what stands after its colon."""


class SourceError(LockstepError):
    """A source that is missing, empty, or not a set of labelled images."""


@dataclass(frozen=True)
class Example:
    """One labelled image.

    `image` is a file, encoded bytes, or uint8 `[height, width]` or `[height, width, 1 or 3]`.
    """

    name: str
    label: int
    image: Path | bytes | NDArray[np.uint8]
    split: Split | None = None


@dataclass(frozen=True)
class Source:
    """A set of labelled images.

    Attributes:
        class_names: label `i` means `class_names[i]`.
        count: how many examples there are.
        examples: starts an iteration over all of them, in the same order every time.
        image_size: height and width that all images share, or None where they differ.
        channels: 1 if all are grey, else 3; None where the source does not say.
        ignored: files that were passed over since they are no images.
        outside: images that were passed over since they belong to no class.
        notes: how the source was understood, and what is odd about it, in sentences.
    """

    class_names: tuple[str, ...]
    count: int
    examples: Callable[[], Iterator[Example]]
    image_size: tuple[int, int] | None
    channels: int | None
    ignored: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def identity(data: str) -> Any:
    """A plain value that changes when the data behind `data` change."""
    module, place = _find(data)
    return module.identity(place)


def same(one: str, other: str) -> bool:
    """Whether two settings of `data` name the same source, however its path is written."""

    def resolved(data: str) -> tuple[str, str]:
        name, _, place = data.partition(":")
        is_path = PLACES.get(name) == "PATH"
        return name, str(Path(place).expanduser().resolve()) if is_path else place

    return resolved(one) == resolved(other)


def open_source(data: str) -> Source:
    """Open the source that `data` names.

    Raises:
        SourceError: there is no such source, or it holds no usable data.
    """
    module, place = _find(data)
    source = _with_sound_names(module.open_source(place))
    if len(source.class_names) < 2:
        raise SourceError(
            f"{data}: expected at least 2 classes, got {len(source.class_names)} "
            f"({', '.join(source.class_names)})"
        )
    return source


def _with_sound_names(source: Source) -> Source:
    """Class names in Unicode's form NFC; those that are equal then are one class."""
    merged = merge(source.class_names)
    labels = merged.labels

    def examples() -> Iterator[Example]:
        for example in source.examples():
            yield replace(example, label=labels[example.label])

    notes = [
        *source.notes,
        *(f"class {name!r}: two spellings in Unicode, taken as one" for name in merged.merged),
        *(f"classes that differ only in case or blanks: {', '.join(map(repr, names))}"
          for names in look_alike(merged.names)),
    ]  # fmt: skip
    return replace(
        source,
        class_names=merged.names,
        examples=examples if merged.merged else source.examples,
        notes=tuple(notes),
    )


def _find(data: str) -> tuple[ModuleType, str]:
    name, _, place = data.partition(":")
    expected = ", ".join(key if kind is None else f"{key}:{kind}" for key, kind in PLACES.items())
    if name not in PLACES or bool(place) != bool(PLACES[name]):
        raise SourceError(f"data: expected one of {expected}; got {data!r}")
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}"), place
