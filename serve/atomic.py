"""Outputs that are complete or absent: written under a temporary name, then renamed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block ends well, it takes `path`'s name.

    Works for a file and for a directory. On an error the temporary is removed and whatever stood at
    `path` stays. The temporary keeps the suffix, since some writers choose their format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".partial-{path.name}")
    aside = path.with_name(f".old-{path.name}")
    remove(temporary)
    try:
        yield temporary
        sync(temporary)
        if temporary.is_dir() and path.exists():  # a directory cannot replace another in one step
            remove(aside)
            path.replace(aside)
        temporary.replace(path)
        _sync_one(path.parent)
        remove(aside)
    except BaseException as error:
        # "No space left on device" alone helps nobody, nor does the temporary's name.
        if isinstance(error, OSError) and error.filename in (None, str(temporary), temporary):
            error.filename = str(path)
        if aside.exists() and not path.exists():
            aside.replace(path)
        remove(temporary)
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) to `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def remove(path: Path) -> None:
    """Remove a file or a directory tree if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file or a tree to the disk, so that a rename never outlives the bytes it names."""
    for item in (path, *path.rglob("*")):
        _sync_one(item)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
