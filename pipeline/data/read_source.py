"""Decode all images of a source, in parallel and in order, into one array file."""

import hashlib
import math
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from export.prepared_data import Rejection, Split
from pipeline.data.array_writer import ArrayWriter
from pipeline.data.sources import Example, Source
from serve.image_spec import ImageSpec
from serve.images import ImageError, fit_pixels, read_image

CHUNK_BYTES = 16_000_000
"""About how many bytes of pixels are held in memory at a time."""


@dataclass
class Read:
    """What was learnt while reading.

    Attributes:
        positions: of each row of the array file, the place of its example in the source; `names`,
            `labels`, `given_splits` and `digests` (of its pixels) are likewise one for each row.
        rejected: the images that could not be read.
        rejected_labels: how many of them each label has.
    """

    positions: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    given_splits: list[Split | None] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)
    rejected_labels: Counter[int] = field(default_factory=Counter)


def read_source(source: Source, spec: ImageSpec, path: Path) -> Read:
    """Write the pixels of all readable images to `path`, in the order of the source."""
    read = Read()
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        ArrayWriter(path, spec.shape) as writer,
        tqdm(total=source.count, desc="prepare", unit=" images", disable=None) as progress,
    ):
        examples = enumerate(source.examples())
        while chunk := list(islice(examples, chunk_size(spec.shape))):
            decoded = pool.map(lambda item: _decode(item[1], spec), chunk)
            for (position, example), pixels in zip(chunk, decoded, strict=True):
                if isinstance(pixels, ImageError):
                    read.rejected.append(Rejection(name=example.name, reason=str(pixels)))
                    read.rejected_labels[example.label] += 1
                    continue
                writer.append(pixels)
                read.positions.append(position)
                read.names.append(example.name)
                read.labels.append(example.label)
                read.given_splits.append(example.split)
                read.digests.append(hashlib.sha256(pixels.tobytes()).digest())
            progress.update(len(chunk))
    return read


def chunk_size(image_shape: tuple[int, ...]) -> int:
    """Images of one chunk: enough to keep every core busy, few enough for a lively progress bar."""
    return max(os.cpu_count() or 1, min(1024, CHUNK_BYTES // math.prod(image_shape)))


def _decode(example: Example, spec: ImageSpec) -> NDArray[np.uint8] | ImageError:
    try:
        if isinstance(example.image, np.ndarray):
            return fit_pixels(example.image, spec)
        return read_image(example.image, spec)
    except ImageError as error:
        return error
