"""Does a rounded model answer as the float model does? With what the images can tell of it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.intervals import paired_interval
from export.parity import MAX_DROP
from export.verdict import WIDE
from serve.rounding import points


@dataclass(frozen=True)
class Agreement:
    """Two classifiers on the same labelled images.

    Attributes:
        same: on how many images they give the same label,
        examples: of so many.
        difference: accuracy of the answer minus that of the reference.
        low, high: its 95 % interval.
    """

    same: int
    examples: int
    difference: float
    low: float
    high: float

    @property
    def reason(self) -> str:
        """Why these images cannot hold the one to the other, or ""."""
        if self.low >= -WIDE:
            return ""
        return (
            f"{self.examples} test images are too few: they cannot exclude that int8 costs "
            f"{-100 * self.low:.0f} points of accuracy"
        )

    @property
    def text(self) -> str:
        """For people; claims no more than the interval does."""
        text = (
            f"the label of Keras on {self.same:,} of {self.examples:,} test images, accuracy "
            f"{points(self.difference, self.examples)} points (95 % interval "
            f"{points(self.low, self.examples)} to {points(self.high, self.examples)})"
        )
        if self.low < -MAX_DROP:
            text += f"; {self.examples:,} images cannot exclude a loss of {100 * MAX_DROP:g} points"
        return text


def agreement(
    labels: NDArray[np.int64],
    reference: NDArray[np.float32],
    answer: NDArray[np.float32],
) -> Agreement:
    """Hold the labels of `answer` to those of `reference`; both float32 `[examples, classes]`."""
    one, other = answer.argmax(axis=1), reference.argmax(axis=1)
    right, expected = one == labels, other == labels
    counts = [
        int(((right == first) & (expected == second)).sum())
        for first, second in ((True, True), (True, False), (False, True), (False, False))
    ]
    low, high = paired_interval(*counts)
    difference = (counts[1] - counts[2]) / len(labels)
    return Agreement(int((one == other).sum()), len(labels), difference, low, high)
