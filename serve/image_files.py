"""The image files in a folder, told by their names, alike for training and for serving."""

import os
from collections.abc import Iterator
from pathlib import Path

from serve.images import EXTENSIONS


def find_image_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Walk a folder at any depth, following links to folders, except back to where they lie.

    Returns:
        The files whose name ends like an image's (`EXTENSIONS`), and all other entries; both
        sorted. Hidden files, pipes, dangling links and links that lead back are among the others.
    """
    images: list[Path] = []
    others: list[Path] = []
    for path in _walk(folder, ()):
        visible = not any(part.startswith(".") for part in path.relative_to(folder).parts)
        is_image = visible and path.suffix.lower() in EXTENSIONS and path.is_file()
        (images if is_image else others).append(path)
    return sorted(images), sorted(others)


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
