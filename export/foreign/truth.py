"""Which image has which labels: a table that a person gives with `--truth`.

    path,cat,dog              path,labels
    a.jpg,1,0          or     a.jpg,cat
    more/b.jpg,1,1            more/b.jpg,cat|dog

One column names the image: `path`, `image`, `file` and the like, else the first. Then there is
either a column for each label that holds 0 or 1, or a column `labels` (or the only other one) with
names that are separated by `|` (as the batch command writes them), `;` or a comma. Label names are
matched as folder names are. Rows and images without a counterpart are counted and told.
"""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.foreign.label_names import match_labels
from serve.command import LockstepError
from serve.label_list import split_labels

SHOWN = 10
PATHS = ("path", "image", "file", "filename", "imagepath", "filepath", "imagename", "imageid", "id")
LISTS = ("labels", "label", "tags", "tag", "classes", "class", "targets", "target")
YES = ("1", "1.0", "true", "yes")
NO = ("0", "0.0", "false", "no")


class TruthError(LockstepError):
    """A table that does not say which image has which labels."""


@dataclass(frozen=True)
class Truth:
    """What a table says of the images that were read.

    Attributes:
        known: int64 positions of the images with a row, ascending.
        values: bool `[known, labels]`.
        told: what was matched how, and what was not, in lines for the terminal.
    """

    known: NDArray[np.int64]
    values: NDArray[np.bool_]
    told: tuple[str, ...]


def read_truth(
    table: Path, folder: Path, files: Sequence[Path], read: Sequence[Path], labels: Sequence[str]
) -> Truth:
    """Read a table for images in a folder.

    Args:
        files: all image files in the folder; a row about one of them is no mistake.
        read: those whose truth is wanted.
        labels: the names of the model's outputs.

    Raises:
        TruthError: it is no such table, contradicts itself, or is about none of the images.
    """
    header, rows = _rows(table)
    place = next((i for i, name in enumerate(header) if _letters(name) in PATHS), 0)
    sets, told = _label_sets(table, header, rows, place, labels)
    find = _Finder(folder, files)
    found: dict[Path, NDArray[np.bool_]] = {}
    strangers = []
    for number, (row, values) in enumerate(zip(rows, sets, strict=True), start=2):
        file = find(row[place])
        if file is None:
            strangers.append(row[place])
        elif file in found and (found[file] != values).any():
            raise TruthError(f"{table}: line {number} contradicts another about {row[place]}")
        else:
            found[file] = values
    missing = [str(path.relative_to(folder)) for path in read if path not in found]
    known = np.asarray([i for i, path in enumerate(read) if path in found], np.int64)
    if not len(known):
        raise TruthError(
            f"{table}: no row is about an image in {folder}: its column {header[place]!r} begins "
            f"with {rows[0][place]!r}, the images with {str(read[0].relative_to(folder))!r}"
        )
    told += _counted("rows of --truth about no image there", strangers)
    told += _counted("images without a row in --truth, not measured on", missing)
    values = np.stack([found[read[number]] for number in known])
    empty = [labels[int(number)] for number in np.flatnonzero(~values.any(axis=0))]
    told += _counted("labels that no image has", empty)
    return Truth(known, values, tuple(told))


def _rows(table: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows, whichever of comma, semicolon and tab separates the columns."""
    try:
        text = table.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TruthError(f"{table}: expected UTF-8 text: {error}") from None
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    lines = [row for row in csv.reader(io.StringIO(text, ""), delimiter=delimiter) if row]
    if len(lines) < 2 or len(lines[0]) < 2:
        raise TruthError(
            f"{table}: expected a header and rows of two columns at least, the image and its "
            f"labels, got {len(lines)} lines"
        )
    for number, row in enumerate(lines[1:], start=2):
        if len(row) != len(lines[0]):
            raise TruthError(
                f"{table}: line {number} has {len(row)} fields, expected {len(lines[0])} as in the "
                "header"
            )
    return lines[0], lines[1:]


def _label_sets(
    table: Path, header: Sequence[str], rows: Sequence[Sequence[str]], place: int,
    labels: Sequence[str],
) -> tuple[list[NDArray[np.bool_]], list[str]]:  # fmt: skip
    """The labels of each row, bool `[labels]`, and what was matched how."""
    others = [i for i in range(len(header)) if i != place]
    listing = next((i for i in others if _letters(header[i]) in LISTS), None)
    matches = match_labels([header[i] for i in others], labels)
    columns = {number: header.index(name) for name, number in matches.numbers.items()}
    if len(columns) == len(labels):
        passed_over = [header[i] for i in others if i not in columns.values()]
        told = _otherwise("columns", matches.written_otherwise)
        told += _counted("columns of --truth that are no labels, passed over", passed_over)
        return [_marked(table, line, row, header, columns) for line, row in _numbered(rows)], told
    if listing is None and len(others) == 1:
        listing = others[0]
    if listing is None:
        absent = [repr(name) for i, name in enumerate(labels) if i not in columns]
        raise TruthError(
            f"{table}: expected a column for each label or one called 'labels'; there is none for "
            f"{_listed(absent)}"
        )
    return _from_lists([row[listing] for row in rows], labels)


def _numbered(rows: Sequence[Sequence[str]]) -> list[tuple[int, Sequence[str]]]:
    return list(enumerate(rows, start=2))


def _marked(
    table: Path, line: int, row: Sequence[str], header: Sequence[str], columns: Mapping[int, int]
) -> NDArray[np.bool_]:
    values = np.zeros(len(columns), bool)
    for number, column in columns.items():
        text = row[column].strip().lower()
        if text not in YES + NO:
            raise TruthError(
                f"{table}: line {line}, column {header[column]!r}: expected 0 or 1, got "
                f"{row[column]!r:.40}"
            )
        values[number] = text in YES
    return values


def _from_lists(
    texts: Sequence[str], labels: Sequence[str]
) -> tuple[list[NDArray[np.bool_]], list[str]]:
    """Names in one field, by the separator with which most of them are labels as they stand."""
    exact = {label.casefold() for label in labels}
    ways = [[_split(text, separator) for text in texts] for separator in ("|", ";", ",")]
    way = max(
        ways, key=lambda way: sum(name.casefold() in exact for names in way for name in names)
    )
    known = match_labels((name for names in way for name in names), labels)
    unknown = Counter(name for names in way for name in names if name not in known.numbers)
    sets = []
    for names in way:
        values = np.zeros(len(labels), bool)
        values[[known.numbers[name] for name in names if name in known.numbers]] = True
        sets.append(values)
    told = _otherwise("names", known.written_otherwise)
    strange = [f"{name!r} ({count})" for name, count in sorted(unknown.items())]
    return sets, told + _counted("names in --truth that are no labels, passed over", strange)


def _split(text: str, separator: str) -> list[str]:
    parts = split_labels(text) if separator == "|" else text.split(separator)
    return [part.strip() for part in parts if part.strip()]


class _Finder:
    """Finds the file that a row means: by its path from the folder, as it stands, or by its name,
    with or without its ending, where only one file has it."""

    def __init__(self, folder: Path, files: Sequence[Path]) -> None:
        self._known: dict[str, Path] = {}
        for keys in ([path.stem for path in files], [path.name for path in files]):
            counts = Counter(keys)
            pairs = zip(keys, files, strict=True)
            self._known |= {key: path for key, path in pairs if counts[key] == 1}
        self._known |= {str(path.resolve()): path for path in files}
        self._known |= {path.relative_to(folder).as_posix(): path for path in files}

    def __call__(self, text: str) -> Path | None:
        written = text.strip().replace("\\", "/").removeprefix("./")
        found = self._known.get(written) or self._known.get(str(Path(written).resolve()))
        if found is None and "/" in written:  # from another folder above: train/a.jpg for a.jpg
            found = self._known.get(written.rpartition("/")[2])
        return found


def _letters(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def _otherwise(what: str, matched: Mapping[str, str]) -> list[str]:
    named = [f"{name!r} is {label!r}" for name, label in sorted(matched.items())]
    text = f"{what} of --truth taken for labels although written otherwise: {_listed(named)}"
    return [text] if named else []


def _counted(what: str, items: Sequence[str]) -> list[str]:
    return [f"{what}: {len(items):,}, {_listed(items)}"] if items else []


def _listed(items: Sequence[str]) -> str:
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more
