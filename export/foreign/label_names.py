"""Which label a folder's name means, although it is written otherwise. Pure functions of names.

Tried in this order: the same name; the same but for case, blanks, `_`, `-` and Unicode form; the
same without an index before or behind it ("0 day", "01_dusk", "night,2"); one part of it (a WordNet
id as in "n01440764 tench, Tinca tinca"); the number of the output ("0", "1", ...).
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

LEADING = re.compile(r"^\s*\d+\s*[\s_\-.,:;)]+\s*(?=\S)")
TRAILING = re.compile(r"\s*[\s_\-.,:;(]+\s*\d+\)?\s*$")
IN_LABEL = re.compile(r"^\s*(\d+)\s*[\s_\-.,:;)]+\s*\S|\S\s*[\s,:;]+\s*(\d+)\s*$")
PART = re.compile(r"[\s,;:]+")
WORDNET = re.compile(r"^n\d{8}$")


@dataclass(frozen=True)
class Matches:
    """What the folders' names mean.

    Attributes:
        numbers: the output's number by folder name.
        written_otherwise: folder name and label of those that are not the same text.
        unknown: folder names that mean no label, sorted.
    """

    numbers: dict[str, int] = field(default_factory=dict)
    written_otherwise: dict[str, str] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()


def match_labels(folders: Iterable[str], labels: Sequence[str]) -> Matches:
    """Find the label that each folder's name means.

    A form that two labels share means neither of them.

    Example:
        match_labels(["0 Day", "sea_side"], ["day", "sea side"]).numbers
    """
    names = sorted(set(folders))
    numbers: dict[str, int] = {}
    for form in (str, _plain, _without_index, _first_part, _other_parts):
        known = _by_form(labels, form)
        for name in names:
            found = {known[key] for key in _keys(form, name) if key in known}
            if name not in numbers and len(found) == 1:
                numbers[name] = found.pop()
    if not numbers:
        numbers = _by_number(names, len(labels))
    otherwise = {name: labels[number] for name, number in numbers.items() if name != labels[number]}
    unknown = tuple(name for name in names if name not in numbers)
    return Matches(numbers, otherwise, unknown)


def misplaced(labels: Sequence[str]) -> tuple[int, int] | None:
    """The first label whose own index is not its place, counted from 0 or from 1.

    Returns:
        Line (from 1) and index; None if not every label has an index, or all are in order.
    """
    found = [IN_LABEL.search(label) for label in labels]
    indices = [int(match.group(1) or match.group(2)) for match in found if match]
    start = min(indices, default=0)
    if len(indices) != len(labels) or sorted(indices) != list(range(start, start + len(labels))):
        return None
    if start > 1:
        return None
    wrong = [place for place, index in enumerate(indices) if index != place + start]
    return (wrong[0] + 1, indices[wrong[0]]) if wrong else None


def _by_form(labels: Sequence[str], form: object) -> dict[str, int]:
    """Numbers by the form of the label; forms that are not unique are left out."""
    found: dict[str, set[int]] = {}
    for number, label in enumerate(labels):
        for key in _keys(form, label):
            found.setdefault(key, set()).add(number)
    return {key: next(iter(numbers)) for key, numbers in found.items() if len(numbers) == 1}


def _keys(form: object, name: str) -> list[str]:
    keys = form(name)  # type: ignore[operator]
    return [keys] if isinstance(keys, str) else [key for key in keys if key]


def _plain(name: str) -> str:
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    return " ".join(re.split(r"[\s_\-]+", folded.strip(" _-")))


def _without_index(name: str) -> list[str]:
    """Without an index before or behind the name; and as it is, so that either side may have it."""
    plain = unicodedata.normalize("NFC", name)
    shorter = (LEADING.sub("", plain), TRAILING.sub("", plain))
    keys = dict.fromkeys(_plain(text) for text in (*shorter, plain))
    return [key for key in keys if not key.isdigit()]


def _first_part(name: str) -> list[str]:
    """The first word where it is a WordNet id, else the text before a comma."""
    first, *_ = PART.split(name.strip())
    return [_plain(first)] if WORDNET.match(first) else [_plain(name.split(",")[0])]


def _other_parts(name: str) -> list[str]:
    """Behind a WordNet id: the whole and each synonym. Else each synonym."""
    first, *rest = PART.split(name.strip(), maxsplit=1)
    text = rest[0] if WORDNET.match(first) and rest else name
    return [_plain(text), *(_plain(part) for part in text.split(","))]


def _by_number(names: Sequence[str], labels: int) -> dict[str, int]:
    """Folders called "0", "1", ... are the outputs, where the first is among them."""
    numbers = {name: int(name) for name in names if name.isdecimal()}
    fits = 0 in numbers.values() and max(numbers.values()) < labels
    return numbers if fits and len(set(numbers.values())) == len(numbers) else {}
