"""Fashion-MNIST (Xiao, Rasul, Vollgraf 2017): 60,000 + 10,000 grey images of 28x28 pixels.

Read from Debian's package `dataset-fashion-mnist` where it is installed, else by way of
tensorflow-datasets, which downloads it.
"""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.prepared_data import Split
from pipeline.data.sources import Example, Source, SourceError, tfds

DIRECTORY = Path("/usr/share/datasets/fashion-mnist")
CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
FILES: dict[Split, str] = {"train": "train", "test": "t10k"}


def identity(place: str) -> str:
    return "fashion-mnist"


def open_source(place: str) -> Source:
    if not DIRECTORY.is_dir():
        return tfds.open_source("fashion_mnist")
    parts: list[tuple[Split, NDArray[np.uint8], NDArray[np.uint8]]] = [
        (split, read_idx(DIRECTORY / f"{prefix}-images-idx3-ubyte.gz"),
         read_idx(DIRECTORY / f"{prefix}-labels-idx1-ubyte.gz"))
        for split, prefix in FILES.items()
    ]  # fmt: skip

    def examples() -> Iterator[Example]:
        for split, images, labels in parts:
            for index, (image, label) in enumerate(zip(images, labels, strict=True)):
                yield Example(f"{split}/{index:05}", int(label), image, split)

    count = sum(len(labels) for _, _, labels in parts)
    return Source(CLASS_NAMES, count, examples, (28, 28), 1)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """A gzipped idx file of unsigned bytes: two zero bytes, type 8, rank, then big-endian sizes.

    Raises:
        SourceError: the file is not such a file, or its length contradicts its header.
    """
    try:
        content = gzip.decompress(path.read_bytes())
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise SourceError(f"{path}: damaged gzip file: {error}") from None
    if content[:3] != b"\0\0\x08" or len(content) < 4 or len(content) < 4 + 4 * content[3]:
        raise SourceError(f"{path}: expected an idx file of unsigned bytes")
    rank = content[3]
    shape = tuple(np.frombuffer(content, ">u4", rank, offset=4).astype(int))
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * rank)
    if len(values) != np.prod(shape):
        raise SourceError(f"{path}: expected {shape} values, got {len(values)}")
    return values.reshape(shape)
