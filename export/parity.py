"""Do two classifiers give the same answers? Pure functions of their probabilities."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 1e-4
"""Largest difference of a probability that counts as the same answer, for float formats."""

BATCH_SIZES = (1, 7, 256)


@dataclass(frozen=True)
class Comparison:
    """One path against the reference.

    Attributes:
        passed: within tolerance, no label flipped, finite, and independent of the batch size.
        max_difference, mean_difference: absolute, over all probabilities and batch sizes.
        batch_difference: largest difference between a path's own answers at two batch sizes.
        label_agreement: share of examples with the reference's label; ties within the tolerance
            agree with either.
        accuracy_difference: accuracy of this path minus that of the reference.
        worst_example: position (in the compared examples) of the largest difference, and there
        worst_reference, worst_answer: the label and probability of both.
        reason: why it failed, or "".
    """

    passed: bool
    examples: int
    max_difference: float
    mean_difference: float
    batch_difference: float
    label_agreement: float
    accuracy_difference: float
    worst_example: int
    worst_reference: tuple[str, float]
    worst_answer: tuple[str, float]
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values for parity.json."""
        return asdict(self)


def compare(
    reference: NDArray[np.float32],
    answers: Mapping[int, NDArray[np.float32]],
    labels: NDArray[np.int64],
    class_names: Sequence[str],
    *,
    tolerance: float = TOLERANCE,
) -> Comparison:
    """Hold the answers of one path to the reference.

    Args:
        reference: float32 `[examples, classes]`.
        answers: for each batch size, the path's probabilities of the same shape.
        labels: int64 `[examples]`, the true classes.
    """
    for size, answer in answers.items():
        if answer.shape != reference.shape:
            raise ValueError(
                f"expected answers of shape {reference.shape} at batch size {size}, "
                f"got {answer.shape}"
            )
    stacked = np.stack(list(answers.values())).astype(np.float64)
    everything = np.concatenate([stacked, reference[None]])
    finite: NDArray[np.bool_] = np.isfinite(everything).all(axis=(0, 2))
    if not finite.all():
        return _not_finite(reference, stacked, ~finite, class_names)
    difference = np.abs(stacked - reference)
    spread = float(np.ptp(stacked, axis=0).max())
    largest = float(difference.max())
    worst = int(difference.max(axis=(0, 2)).argmax())
    worst_run = int(difference[:, worst].max(axis=1).argmax())
    agree = np.all([_labels_agree(reference, answer, tolerance) for answer in stacked], axis=0)
    accuracies = [
        float((values.argmax(axis=1) == labels).mean()) for values in (stacked[0], reference)
    ]

    reasons = []
    if largest > tolerance:
        reasons.append(f"max difference {largest:.2g} is above {tolerance:.0e}")
    if not agree.all():
        reasons.append(f"{int((~agree).sum())} labels differ")
    if spread > tolerance:
        reasons.append(f"answers depend on the batch size by {spread:.2g}")
    return Comparison(
        passed=not reasons,
        examples=len(reference),
        max_difference=largest,
        mean_difference=float(difference.mean()),
        batch_difference=spread,
        label_agreement=float(agree.mean()),
        accuracy_difference=accuracies[0] - accuracies[1],
        worst_example=worst,
        worst_reference=_answer(reference[worst], class_names),
        worst_answer=_answer(stacked[worst_run, worst], class_names),
        reason="; ".join(reasons),
    )


def _not_finite(
    reference: NDArray[np.float32],
    stacked: NDArray[np.float64],
    bad: NDArray[np.bool_],
    class_names: Sequence[str],
) -> Comparison:
    """Failed, with the largest numbers that JSON can hold: no difference can be told."""
    huge = float(np.finfo(np.float64).max)
    worst = int(bad.argmax())
    return Comparison(
        passed=False,
        examples=len(reference),
        max_difference=huge,
        mean_difference=huge,
        batch_difference=huge,
        label_agreement=0.0,
        accuracy_difference=0.0,
        worst_example=worst,
        worst_reference=_answer(np.nan_to_num(reference[worst]), class_names),
        worst_answer=_answer(np.nan_to_num(stacked[0, worst]), class_names),
        reason=f"{int(bad.sum())} answers are not finite numbers",
    )


def _labels_agree(
    reference: NDArray[np.float32], answer: NDArray[np.float64], tolerance: float
) -> NDArray[np.bool_]:
    """Same label, or a reference whose two best are so close that either may come first."""
    best = np.sort(reference, axis=1)[:, -2:]
    tied = best[:, 1] - best[:, 0] <= tolerance
    same: NDArray[np.bool_] = reference.argmax(axis=1) == answer.argmax(axis=1)
    return same | tied


def _answer(row: NDArray[np.floating[Any]], class_names: Sequence[str]) -> tuple[str, float]:
    best = int(row.argmax())
    return class_names[best], float(row[best])
