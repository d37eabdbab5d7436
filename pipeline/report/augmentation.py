"""Grids of training images: as they are, and as augmentation shows them to the model."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from export.prepared_data import PreparedData
from pipeline.config import Config
from pipeline.options.augment import AugmentOptions, alone, telling

NEGLIGIBLE = 0.005
"""Share of a target that is not worth a word."""


@dataclass(frozen=True)
class Picture:
    """Pixels, uint8 `[height, width, channels]`, and what they are to be taken for."""

    pixels: NDArray[np.uint8]
    target: str


@dataclass(frozen=True)
class Row:
    """One image, and what each of the first epochs shows of it."""

    title: str
    original: Picture
    epochs: list[Picture]


def what_training_saw(config: Config, data: PreparedData, images: int, epochs: int) -> list[Row]:
    """Exactly the pixels and targets of a run of this config; nothing if it changes no image."""
    if config.augment == AugmentOptions():
        return []
    indices = pick(data, images)
    names = data.manifest.class_names
    titles = [f"{names[data.labels[index]]}, example {index}" for index in indices]
    return _rows(config, data, config.augment, indices, titles, epochs)


def each_alone(config: Config, data: PreparedData, epochs: int) -> list[Row]:
    """One image under every operation alone: as strong as configured, or so that it can be seen."""
    height, width, channels = data.images.shape[1:]
    strong = telling(height, width)
    options = strong.model_copy(update=config.augment.turned_on())
    index = pick(data, 1)
    rows = []
    for name in AugmentOptions.model_fields:
        strength = getattr(options, name)
        title = name if strength is True else f"{name} {strength:g}"
        if channels == 1 and name in ("saturation", "hue"):
            title += " (of colours alone)"
        rows += _rows(config, data, alone(options, name), index, [title], epochs)
    return rows


def pick(data: PreparedData, count: int) -> list[int]:
    """Training images, as rows of the arrays: the first of every class, then the second..."""
    training = data.indices("train")
    labels = data.labels[training]
    by_class = [training[labels == label] for label in range(len(data.manifest.class_names))]
    in_turns = [
        int(index) for turn in zip_longest(*by_class) for index in turn if index is not None
    ]
    return in_turns[:count]


def picture_of(rows: Sequence[Row]) -> bytes:
    """The grid as a PNG file."""
    columns = 1 + len(rows[0].epochs)
    figure = Figure(figsize=(1.3 * columns + 0.2, 1.65 * len(rows) + 0.3), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for row, cells in zip(rows, grid, strict=True):
        for number, (cell, picture) in enumerate(
            zip(cells, [row.original, *row.epochs], strict=True)
        ):
            cell.imshow(picture.pixels.squeeze(), cmap="gray", vmin=0, vmax=255)
            cell.set_xticks([])
            cell.set_yticks([])
            cell.set_xlabel(picture.target, fontsize=7)
            cell.set_title(f"epoch {number}" if number else row.title, fontsize=7)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120)
    return stream.getvalue()


def _rows(
    config: Config,
    data: PreparedData,
    augmentation: AugmentOptions,
    indices: Sequence[int],
    titles: Sequence[str],
    epochs: int,
) -> list[Row]:
    from pipeline.input.batches import Examples
    from pipeline.input.seen import seen_in_training
    from pipeline.training.build import batch_and_part

    names = data.manifest.class_names
    seen = seen_in_training(
        Examples(data.images, data.labels, data.indices("train"), len(names)),
        indices,
        epochs,
        batch_size=batch_and_part(config, data)[0],
        seed=config.seed,
        augmentation=augmentation,
    )
    return [
        Row(
            title=title,
            original=Picture(np.asarray(data.images[index]), names[data.labels[index]]),
            epochs=[Picture(pixels, _name(target, names)) for pixels, target in found],
        )
        for title, index, found in zip(titles, indices, seen, strict=True)
    ]


def _name(target: NDArray[np.float32], names: Sequence[str]) -> str:
    """What an image counts as; where it is mixed, a line for each, the largest share first."""
    shares: list[Any] = [
        (float(target[label]), names[label])
        for label in np.argsort(-target)
        if target[label] > NEGLIGIBLE
    ]
    if len(shares) == 1:
        return str(shares[0][1])
    return "\n".join(f"{name}: {100 * share:.0f}\N{NO-BREAK SPACE}%" for share, name in shares)
