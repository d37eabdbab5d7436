"""Is a multi-label model any good? Its verdict, as `export.verdict` has it for single-label ones.

The sentences are made here and shown as they are by the terminal, the document and the page.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from export.intervals import Z, wilson_interval
from export.multi_label import LabelFigures, MultiLabelFigures, multi_label_figures
from serve.bundle import Finding
from serve.multi_label import has_labels
from serve.rounding import rounded

BETTER = "better than guessing"
SEVERAL = "more than one answer"
FOUND = "every label is found"
ENOUGH = "enough test images"

CHANCE = 0.05
ONE_SIDED = 1.644854
"""The 95 % point of the normal distribution."""

NEGLIGIBLE = 0.6
"""A label that an image with it gets a higher probability for this often is as good as guessed."""

HALF = 0.5
"""A label counts as never found, or as always given, if that is below this with 95 % confidence."""

WIDE = 0.1
"""A share that may be so far from the one measured says little: ten points."""

LISTED = 10

Truth = NDArray[np.bool_]
Probabilities = NDArray[np.float32]


def judge_multi_label(
    truth: Truth | None,
    probabilities: Probabilities,
    class_names: Sequence[str],
    thresholds: Sequence[float],
) -> tuple[Finding, ...]:
    """The verdict on a multi-label model.

    Args:
        truth: bool `[images, labels]`; None if it is not known. Then only what the answers alone
            say is found.
        probabilities: float32 `[images, labels]`, at least one image.
        class_names: name of each label.
        thresholds: of each label.
    """
    if len(probabilities) == 0:
        raise ValueError("expected at least one image to judge the model by, got none")
    several = _several_answers(truth, has_labels(probabilities, thresholds))
    if truth is None:
        return (several,)
    figures = multi_label_figures(truth, probabilities, class_names, thresholds)
    return (
        _better_than_guessing(truth, probabilities, figures),
        several,
        _every_label_found(figures),
        _enough_images(figures),
    )


def ranking_test(
    truth: NDArray[np.bool_], scores: NDArray[np.floating]
) -> tuple[float, bool, bool]:
    """Does a label's probability tell images with the label from images without it?

    Args:
        truth: bool `[images]`, some true and some false.
        scores: `[images]`.

    Returns:
        The area under the ROC curve, which is how often an image with the label gets the higher
        probability; whether that is more than chance gives (Mann and Whitney 1947, one-sided at
        5 %, ties corrected); and whether it is surely no more than `NEGLIGIBLE` (the interval of
        Hanley and McNeil 1982, or all probabilities equal).
    """
    positives, negatives = int(truth.sum()), int((~truth).sum())
    values, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    pairs = positives * negatives
    area = float((ranks[truth].sum() - positives * (positives + 1) / 2) / pairs)
    count = positives + negatives
    ties = float((counts.astype(np.float64) ** 3 - counts).sum()) / (count * (count - 1))
    chance = math.sqrt((count + 1 - ties) / (12 * pairs))
    can_tell = math.comb(count, positives) > 1 / CHANCE  # orders of so few images
    is_better = can_tell and len(values) > 1 and area - 0.5 > ONE_SIDED * chance
    one, other = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (positives - 1) * (one - area**2)
    spread = math.sqrt(max(0.0, spread + (negatives - 1) * (other - area**2)) / pairs)
    is_negligible = len(values) == 1 or (count > 10 and area + Z * spread <= NEGLIGIBLE)
    return area, is_better, is_negligible


def _better_than_guessing(
    truth: Truth, probabilities: Probabilities, figures: MultiLabelFigures
) -> Finding:
    """Label by label, and the mean: average precision against the share of images with the label,
    which is what a ranking by chance gives."""
    examples = figures.examples
    testable = [
        index for index, label in enumerate(figures.labels) if 0 < label.positives < examples
    ]
    if not testable:
        text = f"no label was tested: each is on all or on none of {_images(examples)}"
        return Finding(BETTER, "unknown", text)
    undecided, useless = [], []
    for index in testable:
        _, is_better, is_negligible = ranking_test(truth[:, index], probabilities[:, index])
        if is_negligible:
            useless.append(repr(figures.labels[index].name))
        elif not is_better:
            undecided.append(repr(figures.labels[index].name))
    labels = [figures.labels[index] for index in testable]
    mean = sum(label.average_precision for label in labels) / len(labels)
    guessed = sum(label.positives for label in labels) / (len(labels) * examples)
    status = "good" if not useless and not undecided else "unknown"
    if useless or mean <= guessed:
        status = "bad"
    word = {"good": "better than", "unknown": "not proven better for every label than"}
    text = (
        f"mean average precision {rounded(mean, examples)} is "
        f"{word.get(status, 'no better for every label than')} {rounded(guessed, examples)}, which "
        f"guessing gives, over {len(labels)} labels on {_images(examples)}"
    )
    if useless:
        text += f"; no better than guessing: {_listed(useless)}"
    if undecided:
        text += f"; too few images to tell: {_listed(undecided)}"
    return Finding(BETTER, status, text)


def _several_answers(truth: Truth | None, given: Truth) -> Finding:
    """Not all images get the same labels."""
    count = len(given)
    answers = len(np.unique(given, axis=0))
    if answers > 1:
        text = f"{answers} different sets of labels are among the answers for {_images(count)}"
        return Finding(SEVERAL, "good", text)
    text = f"all {_images(count)} get the same labels"
    if truth is not None and len(np.unique(truth, axis=0)) == 1:
        return Finding(SEVERAL, "unknown", f"{text}, and have the same: no others were tested")
    if truth is None and count < 5:
        return Finding(SEVERAL, "unknown", f"{text}; these are too few images to tell")
    if truth is None:
        text += "; if they show different things, the model or its thresholds are useless"
    return Finding(SEVERAL, "bad", text)


def _every_label_found(figures: MultiLabelFigures) -> Finding:
    """No label is on images and found on none, or given to all images although some lack it."""
    examples = figures.examples
    missed = [label for label in figures.tested if not label.hits]
    lavish = [
        label for label in figures.labels if label.given == examples and label.positives < examples
    ]
    untested = [repr(label.name) for label in figures.labels if not label.positives]
    parts = []
    if missed:
        counts = [f"{label.name!r} (0 of {label.positives})" for label in missed]
        parts.append(f"found on no image that has it: {_listed(counts)}")
    if lavish:
        parts.append(f"given to every image: {_listed([repr(label.name) for label in lavish])}")
    surely = any(_is_sure(label.positives) for label in missed) or any(
        _is_sure(examples - label.positives) for label in lavish
    )
    if parts and not surely:
        parts.append("these are too few images to tell")
    if untested:
        parts.append(f"not tested, without an image: {_listed(untested)}")
    status = "bad" if surely else "unknown" if parts else "good"
    return Finding(FOUND, status, "; ".join(parts) or _worst(figures.tested))


def _worst(labels: Sequence[LabelFigures]) -> str:
    worst = min(labels, key=lambda label: label.recall)
    return (
        f"each of {len(labels)} labels was found on some images that have it; on fewest "
        f"{worst.name!r}: {worst.hits} of {worst.positives}"
    )


def _is_sure(images: int) -> bool:
    """None of so many is no chance."""
    return images > 0 and wilson_interval(0, images)[1] < HALF


def _enough_images(figures: MultiLabelFigures) -> Finding:
    examples, measured = figures.examples, figures.accuracy
    low, high = wilson_interval(round(measured * examples), examples)
    fewest = min(figures.labels, key=lambda label: label.positives)
    good = max(measured - low, high - measured) <= WIDE
    text = (
        f"{_images(examples)}: the share with exactly the right labels lies between "
        f"{rounded(low, examples)} and {rounded(high, examples)} (95 % interval); fewest have "
        f"{fewest.name!r}: {fewest.positives}"
    )
    return Finding(ENOUGH, "good" if good else "unknown", text)


def _images(count: int) -> str:
    return f"{count:,} image{'s' if count != 1 else ''}"


def _listed(items: Sequence[str]) -> str:
    more = f" and {len(items) - LISTED} more" if len(items) > LISTED else ""
    return ", ".join(items[:LISTED]) + more
