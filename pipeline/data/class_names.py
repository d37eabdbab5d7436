"""Names of classes: which are the same, in which order they stand, and which look alike."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


def normalized(name: str) -> str:
    """The name in Unicode's form NFC: "é" is one letter there, and two as a Mac writes it."""
    return unicodedata.normalize("NFC", name)


def same_name(name: str) -> str:
    """What is left of a name without case and surrounding blanks, to find those that look alike."""
    return " ".join(normalized(name).casefold().split())


def in_order(names: Iterable[str]) -> list[str]:
    """Numbers first, by their value, then the other names by their letters."""

    def key(name: str) -> tuple[bool, float, str]:
        is_number = bool(_NUMBER.fullmatch(name))
        return not is_number, float(name) if is_number else 0.0, name

    return sorted(names, key=key)


@dataclass(frozen=True)
class MergedNames:
    """Class names of which some were the same.

    Attributes:
        names: each once, in the order of the first.
        labels: for each given name the position of its class in `names`.
        merged: the classes that were given under several names.
    """

    names: tuple[str, ...]
    labels: tuple[int, ...]
    merged: tuple[str, ...]


def merge(names: Sequence[str]) -> MergedNames:
    """Make one class of all names that are equal after Unicode NFC."""
    places: dict[str, int] = {}
    labels = tuple(places.setdefault(normalized(name), len(places)) for name in names)
    spellings = defaultdict(set)
    for name, label in zip(names, labels, strict=True):
        spellings[label].add(name)
    found = tuple(places)
    merged = tuple(found[label] for label, given in spellings.items() if len(given) > 1)
    return MergedNames(found, labels, merged)


def look_alike(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of different names that differ only in case or blanks."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[same_name(name)].append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]
