"""Image files in folders: one subfolder per class, or `train/ val/ test/` above them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from export.prepared_data import Split
from pipeline.data.sources import Example, Source, SourceError
from serve.image_files import find_image_files
from serve.images import EXTENSIONS

SPLIT_FOLDERS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}


@dataclass(frozen=True)
class _File:
    path: Path
    class_name: str
    split: Split | None


def identity(place: str) -> list[list[str | int]]:
    root = _root(place)
    files, _ = _find_files(root)
    return [
        [str(file.path.relative_to(root)), status.st_size, status.st_mtime_ns]
        for file in files
        for status in [file.path.stat()]
    ]


def open_source(place: str) -> Source:
    root = _root(place)
    files, ignored = _find_files(root)
    class_names = tuple(sorted({file.class_name for file in files}))
    if not files:
        raise SourceError(
            f"folder:{place}: no images in subfolders; expected one subfolder per class with files "
            f"that end in {', '.join(sorted(EXTENSIONS))}"
        )
    labels = {name: label for label, name in enumerate(class_names)}

    def examples() -> Iterator[Example]:
        for file in files:
            name = str(file.path.relative_to(root))
            yield Example(name, labels[file.class_name], file.path, file.split)

    return Source(class_names, len(files), examples, None, 3, tuple(ignored))


def _root(place: str) -> Path:
    root = Path(place).expanduser().resolve()
    if not root.is_dir():
        raise SourceError(f"folder:{place}: no such folder")
    return root


def _find_files(root: Path) -> tuple[list[_File], list[str]]:
    """The image files, in sorted order, and the names of all others; hidden ones are others."""
    files: list[_File] = []
    images, others = find_image_files(root)
    for path in images + others:
        _check_name(path)
    has_splits = _has_splits(root, images)
    depth = 2 if has_splits else 1
    for path in images:
        parts = path.relative_to(root).parts
        if len(parts) <= depth:  # beside the class folders
            others.append(path)
            continue
        split = SPLIT_FOLDERS[parts[0].lower()] if has_splits else None
        files.append(_File(path, parts[depth - 1], split))
    return files, [str(path.relative_to(root)) for path in sorted(others)]


def _has_splits(root: Path, images: list[Path]) -> bool:
    """Whether the folders below `root` are splits, with the classes one level further down."""
    names = {path.relative_to(root).parts[0] for path in images if path.parent != root}
    splits = {SPLIT_FOLDERS[name.lower()] for name in names if name.lower() in SPLIT_FOLDERS}
    if "train" in splits and all(name.lower() in SPLIT_FOLDERS for name in names):
        return True
    if len(splits) > 1:  # one alone may be a class: bus, car, train
        raise SourceError(
            f"folder:{root}: expected one subfolder per class, or train/ val/ test/ above them; "
            f"got both or half of it: {', '.join(sorted(names))}; move or rename what does not fit"
        )
    return False


def _check_name(path: Path) -> None:
    if "\n" in str(path) or "\r" in str(path):
        raise SourceError(f"{str(path)!a}: expected a file name without line breaks; rename it")
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise SourceError(
            f"{str(path)!a}: expected a file name in UTF-8, so that it can be recorded; rename it"
        ) from None
