"""The image files in a folder, told by name and content, alike for training and for serving."""

import os
from collections.abc import Iterator
from pathlib import Path

from serve.image_formats import is_image_file

MADE_BY_PROGRAMS = frozenset(("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information"))
"""Folders that an archive, a NAS or Windows adds, with small copies of the images in them."""


def find_image_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Walk a folder at any depth, following links to folders, except back to where they lie.

    Returns:
        The image files (see `serve/image_formats.py`), and all other entries; both sorted. Hidden
        files, what lies in folders `MADE_BY_PROGRAMS`, pipes, dangling links and links that lead
        back are among the others.
    """
    images: list[Path] = []
    others: list[Path] = []
    for path in _walk(folder, ()):
        visible = not any(map(is_hidden, path.relative_to(folder).parts))
        is_image = visible and path.is_file() and is_image_file(path)
        (images if is_image else others).append(path)
    return sorted(images), sorted(others)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is passed over, with all that is in it."""
    return name.startswith(".") or name in MADE_BY_PROGRAMS


def _walk(folder: Path, above: tuple[str, ...]) -> Iterator[Path]:
    """Everything below `folder` that is no folder, and links to the folders `above`."""
    chain = (*above, os.path.realpath(folder))
    with os.scandir(folder) as entries:
        for entry in entries:
            path = folder / entry.name
            if entry.is_dir() and os.path.realpath(path) not in chain:
                yield from _walk(path, chain)
            else:
                yield path
