"""From which confidence on are as many images answered as was asked for?"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.calibration import coverage_of, selective_accuracy, threshold_for
from serve.bundle import Rejection
from serve.rounding import percent, rounded, share

TIED = 0.05
"""A confidence that so many more of the validation images share than were asked for is a tie."""


@dataclass(frozen=True)
class Search:
    """What was asked for and what was found.

    Attributes:
        asked: share of the images to answer.
        rejection: the threshold, and what it does to the test split; None where there is none.
        examples: test images.
        reason: why there is none, or "".
    """

    asked: float
    rejection: Rejection | None
    examples: int
    reason: str = ""

    @property
    def text(self) -> str:
        """For people, without claiming a selection where none was made."""
        asked = f"a coverage of {100 * self.asked:g} %"
        if self.rejection is None:
            return f"no threshold for {asked}: {self.reason}"
        covered = round(self.rejection.coverage * self.examples)
        return (
            f"accuracy {share(self.rejection.accuracy, covered)} on the surest "
            f"{percent(self.rejection.coverage, self.examples)} of the test images (asked for "
            f"{asked})"
        )


def find_rejection(
    asked: float,
    validation: NDArray[np.float32],
    test: NDArray[np.float32],
    labels: NDArray[np.int64],
) -> Search:
    """The threshold that a share `asked` of the validation images reaches, on the test split.

    There is none where it would not do what it is for: where so many images have the same
    confidence that it cannot be told who is surer, and where it calls no test image, or every one,
    uncertain.

    Args:
        validation, test: float32 `[examples, classes]`, the probabilities of both splits.
        labels: int64 `[test examples]`.
    """
    threshold = threshold_for(validation, asked)
    reached = coverage_of(validation, threshold)
    coverage, accuracy = selective_accuracy(test, labels, threshold)
    images, confidence = f"{len(validation):,} validation images", rounded(threshold, 1000)
    reason = ""
    if reached > asked + max(TIED, 1 / len(validation)):
        reason = (
            f"{percent(reached, len(validation))} of {images} have a confidence of {confidence} or "
            "more, and too many of them exactly that"
        )
    elif asked < 1 and coverage == 1:
        reason = f"no test image is below the confidence of {confidence} that {images} give"
    elif coverage == 0:
        reason = f"no test image reaches the confidence of {confidence} that {images} give"
    found = None if reason else Rejection(threshold, coverage, accuracy)
    return Search(asked, found, len(test), reason)
