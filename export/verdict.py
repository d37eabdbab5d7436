"""Is the model any good? The findings of its verdict, each one sentence with its figures.

The proof says that every path gives the same answers. The verdict says what these answers are
worth. The sentences are made here and shown as they are by the terminal, the report, the bundle's
document and the server's page.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from export.calibration import error_by_chance, expected_calibration_error, reliability
from export.intervals import paired_interval, wilson_interval
from serve.bundle import Finding
from serve.rounding import percent, points, rounded, share

NEGLIGIBLE = 0.1
"""A model is no better than the commonest class if it saves at most this share of its errors."""

WIDE = 0.1
"""An accuracy that may be so far from the one measured says little: ten points."""

CALIBRATED = 0.05
"""Confidence and accuracy may be so far apart."""

FOUND = 0.5
"""A class counts as never found if its recall is below this with 95 % confidence."""

CHOSEN_BY = "enough validation images"
"""The finding that is about the training and not about the answers."""

CHANCE = 0.05
LISTED = 10
"""So many class names are written out; of more, how many they are."""

Labels = NDArray[np.int64]
Probabilities = NDArray[np.float32]


def judge(
    labels: Labels | None,
    probabilities: Probabilities,
    class_names: Sequence[str],
    *,
    validation_examples: int | None = None,
) -> tuple[Finding, ...]:
    """The verdict on a single-label model.

    Args:
        labels: int64 `[examples]`, the true classes of the images that judge; None if they are not
            known. Then only what the answers alone say is found.
        probabilities: float32 `[examples, classes]`, at least one example; rows sum to 1.
        class_names: name of each column.
        validation_examples: how many images chose the epoch and the temperature; None if that is
            not known.

    Example:
        for finding in judge(labels, probabilities, ["cat", "dog"]):
            print(finding.status, finding.text)
    """
    if len(probabilities) == 0:
        raise ValueError("expected at least one image to judge the model by, got none")
    findings = [_several_answers(labels, probabilities, class_names)]
    if labels is not None:
        findings = [
            _better_than_commonest(labels, probabilities, class_names),
            *findings,
            _every_class_found(labels, probabilities, class_names),
            _enough_images(labels, probabilities),
            _calibrated(labels, probabilities),
        ]
    if validation_examples is not None:
        findings.append(_enough_validation_images(validation_examples))
    return tuple(findings)


def _better_than_commonest(
    labels: Labels, probabilities: Probabilities, class_names: Sequence[str]
) -> Finding:
    name, count = "better than the commonest class", len(labels)
    commonest = int(np.bincount(labels, minlength=len(class_names)).argmax())
    right, baseline = probabilities.argmax(axis=1) == labels, labels == commonest
    if baseline.all():
        text = f"all {_images(count)} are {class_names[commonest]!r}: no other answer was tested"
        return Finding(name, "unknown", text)
    pairs = [(True, True), (True, False), (False, True), (False, False)]
    both, first, second, neither = (
        int(((right == one) & (baseline == other)).sum()) for one, other in pairs
    )
    low, high = paired_interval(both, first, second, neither)
    difference, errors = (first - second) / count, 1 - float(baseline.mean())
    if low > 0:
        status, word = "good", "better than"
    elif difference <= 0 or high <= NEGLIGIBLE * errors:
        status, word = "bad", "no better than"
    else:
        status, word = "unknown", "not proven better than"
    text = (
        f"accuracy {share(float(right.mean()), count)} is {word} "
        f"{share(float(baseline.mean()), count)} for always answering {class_names[commonest]!r}, "
        f"the commonest class: difference {points(difference, count)} points (95 % interval "
        f"{points(low, count)} to {points(high, count)}) on {_images(count)}"
    )
    return Finding(name, status, text)


def _several_answers(
    labels: Labels | None, probabilities: Probabilities, class_names: Sequence[str]
) -> Finding:
    name, count = "more than one answer", len(probabilities)
    answers = np.unique(probabilities.argmax(axis=1))
    if len(answers) > 1:
        text = (
            f"{len(answers)} of {len(class_names)} classes are among the answers for "
            f"{_images(count)}"
        )
        return Finding(name, "good", text)
    answer = class_names[int(answers[0])]
    text = f"the answer for all {_images(count)} is {answer!r}"
    if labels is not None and len(np.unique(labels)) == 1:
        text += f", and all of them are {class_names[int(labels[0])]!r}: no other was tested"
        return Finding(name, "unknown", text)
    if labels is None and len(class_names) ** (1.0 - count) > CHANCE:
        return Finding(name, "unknown", f"{text}; these are too few images to tell")
    if labels is None:
        text += "; if they show several classes, the model is useless"
    return Finding(name, "bad", text)


def _every_class_found(
    labels: Labels, probabilities: Probabilities, class_names: Sequence[str]
) -> Finding:
    """Recall above 0, class by class; what has no image is not tested."""
    name = "every class is found"
    images = np.bincount(labels, minlength=len(class_names))
    right = probabilities.argmax(axis=1) == labels
    hits = np.bincount(labels[right], minlength=len(class_names))
    never = [int(index) for index in np.flatnonzero((images > 0) & (hits == 0))]
    surely = [index for index in never if wilson_interval(0, int(images[index]))[1] < FOUND]
    untested = [repr(class_names[int(index)]) for index in np.flatnonzero(images == 0)]
    parts = []
    if never:
        missed = [f"{class_names[index]!r} (0 of {images[index]})" for index in never]
        parts.append(f"no image was recognized of {listed(missed)}")
        if not surely:
            parts[-1] += "; these are too few images to tell"
    if untested:
        parts.append(f"not tested, without an image: {listed(untested)}")
    if not parts:
        recall = hits / images
        worst = int(recall.argmin())
        parts.append(
            f"at least some images of each of {len(class_names)} classes were recognized; fewest "
            f"of {class_names[worst]!r}: {hits[worst]} of {images[worst]}"
        )
    status = "bad" if surely else "unknown" if never or untested else "good"
    return Finding(name, status, "; ".join(parts))


def _enough_images(labels: Labels, probabilities: Probabilities) -> Finding:
    count = len(labels)
    correct = int((probabilities.argmax(axis=1) == labels).sum())
    low, high = wilson_interval(correct, count)
    measured = correct / count
    text = (
        f"{_images(count)}: the accuracy lies between {rounded(low, count)} and "
        f"{rounded(high, count)} (95 % interval)"
    )
    good = max(measured - low, high - measured) <= WIDE
    if not good:
        text += f", which is more than {100 * WIDE:.0f} points from the {rounded(measured, count)} "
        text += "measured"
    return Finding("enough test images", "good" if good else "unknown", text)


def _enough_validation_images(count: int) -> Finding:
    """One image must not be more than a point: epochs and formats differ by such amounts."""
    text = f"{count:,} validation image{'s' if count != 1 else ''}"
    if count:
        text += f": one of them is {100 / count:.2g} points of the accuracy that chooses"
    good = count >= 100
    return Finding(CHOSEN_BY, "good" if good else "unknown", text)


def _calibrated(labels: Labels, probabilities: Probabilities) -> Finding:
    """Not calibrated: further off than chance explains. Calibrated: more is excluded."""
    count = len(labels)
    error = expected_calibration_error(reliability(probabilities, labels))
    chance = error_by_chance(probabilities)
    correct = int((probabilities.argmax(axis=1) == labels).sum())
    confidence = float(probabilities.max(axis=1).astype(np.float64).mean())
    low, high = wilson_interval(correct, count)
    excluded = max(confidence - low, high - confidence, chance) <= CALIBRATED
    status, word = "unknown", "too few images to tell whether confidence and accuracy agree"
    if error > max(chance, CALIBRATED):
        status, word = "bad", "confidence and accuracy do not agree"
    elif excluded and error <= CALIBRATED:
        status, word = "good", "confidence and accuracy agree"
    text = (
        f"{word}: expected calibration error {percent(error, count)} on {_images(count)}, where "
        f"chance alone gives up to {percent(chance, count)}; mean confidence "
        f"{rounded(confidence, count)}, accuracy {share(correct / count, count)}"
    )
    return Finding("calibrated", status, text)


def _images(count: int) -> str:
    return f"{count:,} image{'s' if count != 1 else ''}"


def listed(items: Sequence[str]) -> str:
    """Names one after the other; of many the first, and how many more there are."""
    more = f" and {len(items) - LISTED} more" if len(items) > LISTED else ""
    return ", ".join(items[:LISTED]) + more
