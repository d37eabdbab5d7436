"""Image files in folders: one subfolder per class, or `train/ val/ test/` above them.

One folder around all of it is looked through. Splits are known by many names: see
`pipeline/data/sources/split_names.py`.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from export.prepared_data import Split
from pipeline.data.class_names import in_order, normalized
from pipeline.data.sources import Example, Source, SourceError
from pipeline.data.sources.folder_layout import Layout, LayoutError, Tree, shown, understand
from pipeline.data.sources.split_names import lies_beside
from serve.image_files import find_image_files, is_hidden
from serve.image_formats import READABLE


@dataclass(frozen=True)
class _File:
    path: Path
    class_name: str
    split: Split | None


@dataclass(frozen=True)
class _Found:
    """Attributes:
    files: the images, in sorted order.
    ignored: names of all files that are no images.
    outside: names of images that lie in no class folder.
    notes: how the folders were understood, in sentences.
    """

    files: list[_File]
    ignored: list[str]
    outside: list[str]
    notes: tuple[str, ...]


def identity(place: str) -> list[list[str | int]]:
    root = _root(place)
    return [
        [str(file.path.relative_to(root)), status.st_size, status.st_mtime_ns]
        for file in _find_files(place, root).files
        for status in [file.path.stat()]
    ]


def open_source(place: str) -> Source:
    root = _root(place)
    found = _find_files(place, root)
    folders = in_order({normalized(file.class_name) for file in found.files})
    spellings = {file.class_name for file in found.files}
    class_names = tuple(
        name for folder in folders for name in sorted(spellings) if normalized(name) == folder
    )
    labels = {name: label for label, name in enumerate(class_names)}

    def examples() -> Iterator[Example]:
        for file in found.files:
            name = str(file.path.relative_to(root))
            yield Example(name, labels[file.class_name], file.path, file.split)

    return Source(
        class_names,
        len(found.files),
        examples,
        image_size=None,
        channels=None,
        ignored=tuple(found.ignored),
        outside=tuple(found.outside),
        notes=found.notes,
    )


def _root(place: str) -> Path:
    root = Path(place).expanduser().resolve()
    if not root.is_dir():
        raise SourceError(f"folder:{place}: no such folder")
    return root


def _find_files(place: str, root: Path) -> _Found:
    """Raises: SourceError: the folders cannot be understood, or a class has no image."""
    images, others = find_image_files(root)
    for path in images + others:
        _check_name(path)
    inside = {path: path.relative_to(root).parts for path in images}
    try:
        layout = understand(Tree.of(inside.values()))
    except LayoutError as error:
        raise SourceError(f"folder:{place}: {error}") from None
    files: list[_File] = []
    outside: list[str] = []
    for path, parts in inside.items():
        parent = next((base for base in layout.parents if parts[: len(base)] == base), None)
        if parent is None or len(parts) <= len(parent) + 1:
            outside.append("/".join(parts))
        else:
            files.append(_File(path, parts[len(parent)], layout.parents[parent]))
    ignored = [str(path.relative_to(root)) for path in others]
    if not files:
        raise SourceError(
            f"folder:{place}: no images in subfolders; expected one subfolder per class, with "
            f"images ({READABLE}), got {len(outside)} images and {len(others)} other files"
        )
    empty = [
        f"{shown(base)}: no image in a class folder"
        for base, split in layout.parents.items()
        if not any(file.path.is_relative_to(root.joinpath(*base)) for file in files)
    ]
    notes = (*layout.notes, *empty, *_check_empty(place, root, layout, files, others))
    return _Found(files, ignored, outside, notes)


def _check_empty(
    place: str, root: Path, layout: Layout, files: Sequence[_File], others: Sequence[Path]
) -> list[str]:
    """Notes on class folders without images where another split has some.

    Raises:
        SourceError: a class has no image at all.
    """
    known = {normalized(file.class_name) for file in files}
    with_images = {(file.split, normalized(file.class_name)) for file in files}
    counts = Counter(parent for path in others for parent in path.parents)
    missing: list[str] = []
    notes: list[str] = []
    for base, split in layout.parents.items():
        for name in _subfolders(root.joinpath(*base)):
            folder = shown((*base, name))
            count = counts[root.joinpath(*base, name)]
            if (split, normalized(name)) in with_images:
                continue
            if normalized(name) in known or (count and lies_beside(name)):
                notes.append(f"{folder}: holds no image")
            else:
                missing.append(f"{folder} ({count} other files)")
    if missing:
        raise SourceError(
            f"folder:{place}: {', '.join(missing)}: a class without an image; expected "
            f"{READABLE}: add images or remove the folder"
        )
    return notes


def _subfolders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(
            entry.name for entry in entries if entry.is_dir() and not is_hidden(entry.name)
        )


def _check_name(path: Path) -> None:
    if "\n" in str(path) or "\r" in str(path):
        raise SourceError(f"{str(path)!a}: expected a file name without line breaks; rename it")
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise SourceError(
            f"{str(path)!a}: expected a file name in UTF-8, so that it can be recorded; rename it"
        ) from None
