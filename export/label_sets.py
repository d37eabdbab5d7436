"""Are the labels that a path gives an image those that its probabilities and thresholds ask for?"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from export.examples import Examples, PathError

Labels = Sequence[tuple[str, float]]
"""Names with their probabilities."""


def check_label_set(
    where: str, given: Labels, probabilities: NDArray[np.float32], examples: Examples
) -> None:
    """Hold the labels of one image to its probabilities, float32 `[labels]`.

    Args:
        where: what the answer is about, for the error.

    Raises:
        PathError: a label is missing, is one too many, has another probability than the image's, or
            stands before a more probable one.
    """
    values = dict(zip(examples.class_names, probabilities, strict=True))
    limits = zip(examples.class_names, examples.thresholds, strict=True)
    expected = {name for name, threshold in limits if values[name] >= np.float32(threshold)}
    names = [name for name, _ in given]
    if sorted(names) != sorted(expected):
        raise PathError(
            f"{where}: got the labels {sorted(names)}, expected those from their thresholds on: "
            f"{sorted(expected)}"
        )
    for name, probability in given:
        if np.float32(probability) != values[name]:
            raise PathError(f"{where}: {name} {probability} contradicts its {values[name]}")
    ranking = [probability for _, probability in given]
    if ranking != sorted(ranking, reverse=True):
        raise PathError(f"{where}: the labels are not ordered by probability")
