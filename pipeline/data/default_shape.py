"""The size and the channels of the prepared images where the config leaves them open."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from pipeline.config import PrepareOptions
from pipeline.data.sources import Example, Source
from serve.image_spec import ImageSpec
from serve.images import upright_size

FALLBACK = (96, 96)
"""Height and width where the images give none."""

MOST_SIDE = 512
"""Longest side that is taken from the images by default; larger ones would train for days."""

_CHUNK = 1024
Size = tuple[int, int]


def image_spec(source: Source, options: PrepareOptions) -> tuple[ImageSpec, str]:
    """The image spec, and in one sentence why it has this size and these channels."""
    seen = _look(source, options)
    size, size_reason = _size(seen, options)
    channels, channels_reason = _channels(seen, options)
    spec = options.image_spec(size, channels)
    shape = f"{spec.height}x{spec.width}x{spec.channels}"
    return spec, f"{shape}: {size_reason}; {channels_reason}"


@dataclass
class _Seen:
    """What is known of the images: the names of the first two that differ in size, by size."""

    sizes: dict[Size, str] = field(default_factory=dict)
    colour: str | None = None
    count: int = 0


def _look(source: Source, options: PrepareOptions) -> _Seen:
    """Read headers, in parallel, until nothing more can be learnt from them."""
    seen = _Seen()
    size = source.image_size if options.image_size is None else None
    if size:
        seen.sizes[size], seen.count = "", source.count
    if source.channels == 3:
        seen.colour = ""
    needs_size = not (options.image_size or size)
    needs_channels = not (options.channels or source.channels)
    examples = source.examples()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while (needs_size and len(seen.sizes) < 2) or (needs_channels and seen.colour is None):
            chunk = list(islice(examples, _CHUNK))
            if not chunk:
                break
            for example, header in zip(chunk, pool.map(_header, chunk), strict=True):
                if header is None:
                    continue
                size, is_grey = header
                seen.count += 1
                if needs_size and len(seen.sizes) < 2:
                    seen.sizes.setdefault(size, example.name)
                if not is_grey and seen.colour is None:
                    seen.colour = example.name
    return seen


def _header(example: Example) -> tuple[Size, bool] | None:
    if isinstance(example.image, np.ndarray):
        shape = example.image.shape
        return (shape[0], shape[1]), shape[2:] in ((), (1,))
    return upright_size(example.image)


def _size(seen: _Seen, options: PrepareOptions) -> tuple[Size, str]:
    if options.image_size:
        return (options.image_size[0], options.image_size[1]), "size by --prepare.image_size"
    how = "--prepare.image_size [224,224] sets another"
    if not seen.sizes:
        return FALLBACK, f"no image says its size; {how}"
    size, *others = seen.sizes
    if others:
        found = ", ".join(_shown(seen.sizes))
        return FALLBACK, f"the images differ in size ({found}); {how}"
    if max(size) > MOST_SIDE:
        return FALLBACK, (
            f"all images are {size[0]}x{size[1]}, more than {MOST_SIDE} pixels along a side; {how}"
        )
    return size, "the size of all images"


def _shown(sizes: dict[Size, str]) -> Iterator[str]:
    for (height, width), name in sizes.items():
        yield f"{height}x{width} {name}"


def _channels(seen: _Seen, options: PrepareOptions) -> tuple[int, str]:
    if options.channels:
        return options.channels, "channels by --prepare.channels"
    if seen.colour is None and (seen.count or not seen.sizes):
        return (1, "all are grey") if seen.count else (3, "channels as of a colour image")
    return 3, "RGB" if not seen.colour else f"RGB, as {seen.colour} is stored in colour"
