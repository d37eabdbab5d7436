"""Would the labels in another order fit the images far better? Pure functions."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from export.foreign.trials import surely_more
from export.intervals import wilson_interval
from export.multi_label import average_precision
from export.multi_label_verdict import ranking_test

FAR_BETTER = 0.2
"""Another order is spoken of only if it gains so much accuracy."""

LISTED = 12


def other_order(
    labels: NDArray[np.int64], answers: NDArray[np.int64], class_names: Sequence[str]
) -> str | None:
    """One sentence with a better order, or None if the labels fit or too few images can tell.

    The order is the assignment of outputs to labels with the most right answers (Kuhn 1955), so
    it always fits at least as well; it counts only where even the lower end of its interval is
    above the upper end of the other's, and most images with a label moved are right then.

    Args:
        labels, answers: int64 `[images]`, true label and answer as positions in `class_names`.
    """
    count = len(class_names)
    confusion = np.zeros((count, count), np.int64)
    np.add.at(confusion, (answers, labels), 1)
    # Equal choices stay as they are: half an image for the label that is there.
    outputs, better = linear_sum_assignment(2 * confusion + np.eye(count), maximize=True)
    moved = np.asarray(better)[np.argsort(outputs)]
    right, then = answers == labels, moved[answers] == labels
    gained = float(then.mean() - right.mean())
    low = wilson_interval(int(then.sum()), len(labels))[0]
    high = wilson_interval(int(right.sum()), len(labels))[1]
    if gained < FAR_BETTER or low <= high or not surely_more(then, right):
        return None
    return (
        f"the labels look {_order(moved, class_names)}: the accuracy would be {then.mean():.2f} "
        f"instead of {right.mean():.2f} on {len(labels)} images; --labels must name the outputs "
        "in the order in which the model was trained"
    )


def other_order_of_several(
    truth: NDArray[np.bool_], probabilities: NDArray[np.float32], class_names: Sequence[str]
) -> str | None:
    """The same for a multi-label model: the assignment with the highest mean average precision.

    It counts only where every label that is moved is told apart by its new output beyond chance.

    Args:
        truth: bool `[images, labels]`.
        probabilities: float32 `[images, outputs]`.
    """
    tested = truth.any(axis=0) & ~truth.all(axis=0)
    if not tested.all():
        return None  # what no image shows fits anywhere
    count = len(class_names)
    precision = np.array([
        [average_precision(truth[:, label], probabilities[:, output]) for label in range(count)]
        for output in range(count)
    ])  # fmt: skip
    outputs, better = linear_sum_assignment(precision + 1e-9 * np.eye(count), maximize=True)
    moved = np.asarray(better)[np.argsort(outputs)]
    now, then = float(np.diag(precision).mean()), float(precision[outputs, better].mean())
    changed = np.flatnonzero(moved != np.arange(count))
    surely = all(ranking_test(truth[:, moved[i]], probabilities[:, i])[1] for i in changed)
    if then - now < FAR_BETTER or not surely:
        return None
    return (
        f"the labels look {_order(moved, class_names)}: the mean average precision would be "
        f"{then:.2f} instead of {now:.2f} on {len(truth)} images; --labels must name the outputs "
        "in the order in which the model was trained"
    )


def _order(moved: NDArray[np.int64], class_names: Sequence[str]) -> str:
    names = [class_names[number] for number in moved]
    if (moved == np.arange(len(moved))[::-1]).all():
        word = "reversed"
    elif names == sorted(class_names):
        word = "out of alphabetical order, which Keras's loaders use"
    else:
        word = "to be in another order"
    listed = ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "")
    return f"{word} (better: {listed})"
