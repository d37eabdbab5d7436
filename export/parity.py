"""Do two classifiers give the same answers? Pure functions of their probabilities."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export import figures
from export.scoring import Scoring, Truth

TOLERANCE = 1e-4
"""Largest difference of a probability that counts as the same answer, for float formats."""

MAX_DROP = 0.005
"""Largest loss of accuracy that an int8 model may cost: half a point."""

MAX_LOSS_RISE = 0.05
"""Largest rise of the cross-entropy, in nats: its confidence must stay worth something, too."""

BATCH_SIZES = (1, 7, 256)

Check = dict[str, Any]
"""One path's result: `passed`, `reason`, and the figures of a comparison where there was one."""

HUGE = float(np.finfo(np.float64).max)
"""Stands for a difference that cannot be told; the largest number that JSON can hold."""


@dataclass(frozen=True)
class Comparison:
    """One path against the reference.

    Attributes:
        passed: it kept what was asked of it; else `reason` says what it did not keep.
        max_difference, mean_difference: absolute, over all probabilities and runs.
        run_difference: largest difference between a path's own answers in two runs.
        label_agreement: share of examples with the reference's label in every run, or with another
            one whose reference probability is within the tolerance of the best. Multi-label: with
            the same set of labels, where a label may differ whose reference probability is within
            the tolerance of its threshold.
        accuracy: lowest of all runs; None without labels. Multi-label: of the images with exactly
            the right set of labels.
        accuracy_difference: that minus the accuracy of the reference.
        loss_difference: highest cross-entropy of all runs minus the reference's, in nats.
        worst_example: position (in the compared examples) of the largest difference, and there
        worst_run: in which run, and
        worst_reference, worst_answer: the label and probability of both.
        reason: why it failed, or "".
    """

    passed: bool
    examples: int
    max_difference: float
    mean_difference: float
    run_difference: float
    label_agreement: float
    accuracy: float | None
    accuracy_difference: float | None
    loss_difference: float | None
    worst_example: int
    worst_run: str
    worst_reference: tuple[str, float]
    worst_answer: tuple[str, float]
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values for parity.json."""
        return asdict(self)


def compare(
    reference: NDArray[np.float32],
    runs: Mapping[str, NDArray[np.float32]],
    labels: Truth | None,
    class_names: Sequence[str],
    *,
    scoring: Scoring | None = None,
    tolerance: float = TOLERANCE,
    allowed_drop: float | None = None,
) -> Comparison:
    """Hold the answers of one path to the reference.

    Args:
        reference: float32 `[examples, classes]`.
        runs: the path's probabilities of the same shape, by the name of what was different:
            the batch size, the number of threads.
        labels: int64 `[examples]`, the true classes, where they are known; of a multi-label model
            bool `[examples, labels]`.
        scoring: what an answer is; None for the most probable class.
        tolerance: largest difference of a probability, between runs too; every label must agree.
        allowed_drop: hold accuracy and cross-entropy to the reference's, and not every answer:
            int8 rounds. Different runs must still give the same. Needs labels.
    """
    scoring = scoring or SINGLE_LABEL
    differences: dict[str, NDArray[np.float64]] = {}
    agree = np.full(len(reference), True)
    unfit: NDArray[np.bool_] = np.full(len(reference), False)
    unfit[~np.isfinite(reference).all(axis=1)] = True
    total = 0.0
    lowest = np.full(reference.shape, np.inf, np.float32)
    highest = np.full(reference.shape, -np.inf, np.float32)
    for name, answer in runs.items():
        if answer.shape != reference.shape:
            raise ValueError(
                f"expected answers of shape {reference.shape} at {name}, got {answer.shape}"
            )
        unfit[~np.isfinite(answer).all(axis=1)] = True
        with np.errstate(invalid="ignore"):  # what is not finite is reported below
            difference = np.abs(answer.astype(np.float64) - reference)
        differences[name] = difference.max(axis=1)
        total += float(difference.mean())
        agree[~scoring.agree(reference, answer, tolerance)] = False
        np.minimum(lowest, answer, out=lowest)
        np.maximum(highest, answer, out=highest)
    if unfit.any():
        return _not_finite(reference, runs, unfit, class_names, scoring)

    largest = {name: float(values.max()) for name, values in differences.items()}
    worst_run = max(largest, key=largest.__getitem__)
    worst = int(differences[worst_run].argmax())
    spread = float((highest.astype(np.float64) - lowest).max())
    accuracy = accuracy_difference = loss_difference = None
    if labels is not None:
        accuracy = min(scoring.accuracy(labels, answer) for answer in runs.values())
        accuracy_difference = accuracy - scoring.accuracy(labels, reference)
        loss_difference = max(scoring.cross_entropy(labels, answer) for answer in runs.values())
        loss_difference -= scoring.cross_entropy(labels, reference)

    reasons = []
    if allowed_drop is None:
        if largest[worst_run] > tolerance:
            reasons.append(f"max difference {largest[worst_run]:.2g} is above {tolerance:.0e}")
        if not agree.all():
            reasons.append(f"{int((~agree).sum())} labels differ")
    elif accuracy_difference is None or loss_difference is None:
        raise ValueError("expected labels to hold the accuracy to")
    else:
        if drops_too_far(accuracy_difference, allowed_drop):
            reasons.append(
                f"accuracy drops by {-100 * accuracy_difference:.2f} points, more than "
                f"{100 * allowed_drop:.2f}"
            )
        if loss_difference > MAX_LOSS_RISE:
            reasons.append(
                f"cross-entropy rises by {loss_difference:.3f} nats, more than {MAX_LOSS_RISE}"
            )
    of_reference, of_answer = scoring.columns(reference[worst], runs[worst_run][worst])
    if spread > tolerance:
        reasons.append(f"answers differ by {spread:.2g} between {', '.join(runs)}")
    return Comparison(
        passed=not reasons,
        examples=len(reference),
        max_difference=largest[worst_run],
        mean_difference=total / len(runs),
        run_difference=spread,
        label_agreement=float(agree.mean()),
        accuracy=accuracy,
        accuracy_difference=accuracy_difference,
        loss_difference=loss_difference,
        worst_example=worst,
        worst_run=worst_run,
        worst_reference=(class_names[of_reference], float(reference[worst, of_reference])),
        worst_answer=(class_names[of_answer], float(runs[worst_run][worst, of_answer])),
        reason="; ".join(reasons),
    )


def drops_too_far(accuracy_difference: float, allowed_drop: float = MAX_DROP) -> bool:
    """Whether an accuracy fell by more than is allowed; exactly as much is allowed."""
    return accuracy_difference < -allowed_drop - 1e-9


def _not_finite(
    reference: NDArray[np.float32],
    runs: Mapping[str, NDArray[np.float32]],
    unfit: NDArray[np.bool_],
    class_names: Sequence[str],
    scoring: Scoring,
) -> Comparison:
    """Failed: no difference can be told."""
    worst = int(unfit.argmax())
    run = next((name for name, answer in runs.items() if not np.isfinite(answer[worst]).all()), "")
    run = run or next(iter(runs))  # the reference itself is no number
    expected, found = np.nan_to_num(reference[worst]), np.nan_to_num(runs[run][worst])
    of_reference, of_answer = scoring.columns(expected, found)
    return Comparison(
        passed=False,
        examples=len(reference),
        max_difference=HUGE,
        mean_difference=HUGE,
        run_difference=HUGE,
        label_agreement=0.0,
        accuracy=None,
        accuracy_difference=None,
        loss_difference=None,
        worst_example=worst,
        worst_run=run,
        worst_reference=(class_names[of_reference], float(expected[of_reference])),
        worst_answer=(class_names[of_answer], float(found[of_answer])),
        reason=f"{int(unfit.sum())} answers are not finite numbers",
    )


def _labels_agree(
    reference: NDArray[np.float32], answer: NDArray[np.float32], tolerance: float
) -> NDArray[np.bool_]:
    """Whether each answer is a label that the reference itself holds for the best one.

    More than one is where others are within the tolerance of its best probability.
    """
    given = reference[np.arange(len(reference)), answer.argmax(axis=1)]
    agree: NDArray[np.bool_] = given >= reference.max(axis=1) - tolerance
    return agree


def _best(
    reference: NDArray[np.floating[Any]], answer: NDArray[np.floating[Any]]
) -> tuple[int, int]:
    return int(reference.argmax()), int(answer.argmax())


SINGLE_LABEL = Scoring(_labels_agree, figures.accuracy, figures.cross_entropy, _best)
"""One class of several is the answer: the most probable one."""
