"""The image files in a folder, told by their names, alike for training and for serving."""

import os
from pathlib import Path

from serve.images import EXTENSIONS


def find_image_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Walk a folder at any depth, following links to folders, each folder once.

    Returns:
        The files whose name ends like an image's (`EXTENSIONS`), and all other entries; both
        sorted. Hidden files, pipes and dangling links are among the others.
    """
    images: list[Path] = []
    others: list[Path] = []
    visited = set()
    for directory, folders, files in os.walk(folder, followlinks=True):
        place = os.path.realpath(directory)
        if place in visited:
            folders.clear()
            continue
        visited.add(place)
        for name in files:
            path = Path(directory, name)
            parts = path.relative_to(folder).parts
            visible = not any(part.startswith(".") for part in parts)
            is_image = visible and path.suffix.lower() in EXTENSIONS and path.is_file()
            (images if is_image else others).append(path)
    return sorted(images), sorted(others)
