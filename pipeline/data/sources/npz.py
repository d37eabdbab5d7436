"""Arrays in a NumPy `.npz` file.

Either `images` and `labels`, or `x_train, y_train` with any of `x_val, y_val, x_test, y_test`.
Images are uint8 `[examples, height, width]` or `[examples, height, width, 1 or 3]`; labels are
integers from 0. An optional `class_names` gives the names in order; one that no label uses is left
out.
"""

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.prepared_data import Split
from pipeline.data.sources import Example, Source, SourceError

PARTS: dict[str, tuple[str, Split | None]] = {
    "images": ("labels", None),
    "x_train": ("y_train", "train"),
    "x_val": ("y_val", "validation"),
    "x_test": ("y_test", "test"),
}

# What NumPy and zipfile raise on a damaged archive.
_DAMAGED = (ValueError, EOFError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error)


def identity(place: str) -> list[int]:
    status = _file(place).stat()
    return [status.st_size, status.st_mtime_ns]


def open_source(place: str) -> Source:
    arrays = _load(_file(place))
    parts: list[tuple[Split | None, NDArray[np.uint8], NDArray[np.int64]]] = []
    for images_key, (labels_key, split) in PARTS.items():
        if images_key in arrays or labels_key in arrays:
            if images_key not in arrays or labels_key not in arrays:
                raise SourceError(f"npz:{place}: expected both {images_key} and {labels_key}")
            images = _images(place, images_key, arrays[images_key])
            labels = _labels(place, labels_key, arrays[labels_key], len(images))
            parts.append((split, images, labels))
    splits = [split for split, _, _ in parts]
    if splits[:1] not in ([None], ["train"]) or (None in splits and len(parts) > 1):
        raise SourceError(
            f"npz:{place}: expected images and labels, or x_train and y_train with any of x_val, "
            f"y_val, x_test, y_test; got {', '.join(sorted(arrays)) or 'nothing'}"
        )
    shapes = {images.shape[1:] for _, images, _ in parts}
    if len(shapes) > 1:
        raise SourceError(f"npz:{place}: expected images of one shape, got {sorted(shapes)}")
    (shape,) = shapes
    count = sum(len(labels) for _, _, labels in parts)
    highest = max(int(labels.max()) for _, _, labels in parts)
    if highest >= count:
        raise SourceError(
            f"npz:{place}: expected labels from 0 without gaps, "
            f"got the label {highest} in a set of {count} images"
        )
    class_names = _class_names(place, arrays.get("class_names"), highest + 1)

    def examples() -> Iterator[Example]:
        for split, images, labels in parts:
            for index, (image, label) in enumerate(zip(images, labels, strict=True)):
                yield Example(f"{split or 'images'}/{index}", int(label), image, split)

    return Source(class_names, count, examples, shape[:2], shape[2] if len(shape) > 2 else 1)


def _file(place: str) -> Path:
    path = Path(place).expanduser()
    if not path.is_file():
        raise SourceError(f"npz:{place}: no such file")
    return path


def _load(path: Path) -> dict[str, NDArray[np.generic]]:
    try:
        with open(path, "rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise SourceError(f"npz:{path}: expected an archive of arrays, got a single array")
            return {name: np.asarray(archive[name]) for name in archive.files}
    except _DAMAGED as error:
        reason = str(error).partition(". ")[0]  # NumPy goes on to advise unpickling
        raise SourceError(
            f"npz:{path}: expected arrays without pickled objects: {reason}"
        ) from None


def _images(place: str, key: str, images: NDArray[np.generic]) -> NDArray[np.uint8]:
    good = images.ndim in (3, 4) and images.shape[3:] in ((), (1,), (3,)) and images.size
    if images.dtype != np.uint8 or not good:
        raise SourceError(
            f"npz:{place}: expected {key} as uint8 [examples, height, width] or "
            f"[examples, height, width, 1 or 3], got {images.dtype} {list(images.shape)}"
        )
    return images.view(np.ndarray)  # type: ignore[return-value]


def _labels(place: str, key: str, labels: NDArray[np.generic], count: int) -> NDArray[np.int64]:
    is_integer = np.issubdtype(labels.dtype, np.integer)
    flat = labels.reshape(-1).astype(np.int64) if is_integer else None
    if flat is None or len(flat) != count or flat.min() < 0:
        raise SourceError(
            f"npz:{place}: expected {key} as {count} integers from 0, "
            f"got {labels.dtype} {list(labels.shape)}"
        )
    return flat


def _class_names(place: str, names: NDArray[np.generic] | None, classes: int) -> tuple[str, ...]:
    if names is None:
        return tuple(str(label) for label in range(classes))
    texts = tuple(str(name) for name in names.reshape(-1))
    if len(texts) < classes or len(set(texts)) != len(texts):
        raise SourceError(
            f"npz:{place}: expected at least {classes} different class_names, got {list(texts)}"
        )
    return texts
