"""What every path of a proof is run on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.scoring import Truth
from serve.command import LockstepError


class PathError(LockstepError):
    """A path that gives no complete answer."""


@dataclass(frozen=True)
class Examples:
    """What a proof is made on.

    Attributes:
        images: uint8 `[all, height, width, channels]`, typically memory-mapped.
        rows: int64 `[examples]`, the images that are proven.
        labels: int64 `[examples]`, or None where they are not known; of a multi-label model bool
            `[examples, labels]`.
        files: the encoded file of each example.
        reference: float32 `[examples, classes]`, Keras's probabilities.
        class_names: label of each column.
        threshold: probability below which an answer is uncertain, if there is one.
        thresholds: of a multi-label model, for each label the probability from which on an example
            has it; empty for a single-label one.
    """

    images: NDArray[np.uint8]
    rows: NDArray[np.int64]
    labels: Truth | None
    files: Sequence[Path]
    reference: NDArray[np.float32]
    class_names: Sequence[str]
    threshold: float | None = None
    thresholds: Sequence[float] = ()

    def batches(self, size: int) -> Iterator[NDArray[np.uint8]]:
        """The images in order, `size` at a time."""
        for start in range(0, len(self.rows), size):
            yield self.images[self.rows[start : start + size]]
