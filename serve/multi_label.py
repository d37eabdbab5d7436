"""Multi-label answers: each label has a probability of its own, and an image has every label whose
probability reaches that label's threshold: none, one or several.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from serve.bundle import BundleDocument
from serve.command import LockstepError

MULTI_LABEL = "multi-label"

AT_ANY_THRESHOLD = ("examples", "loss", "average_precision_macro")
"""Figures of a document that do not depend on the thresholds."""


def for_each_label(thresholds: Sequence[float], labels: int) -> tuple[float, ...]:
    """One threshold for each label; a single one counts for all.

    Raises:
        LockstepError: neither one nor as many as there are labels.
    """
    if len(thresholds) not in (1, labels):
        raise LockstepError(
            f"--threshold: expected 1 or {labels} numbers, one for each label, got "
            f"{len(thresholds)}"
        )
    return tuple(thresholds) * labels if len(thresholds) == 1 else tuple(thresholds)


def has_labels(
    probabilities: NDArray[np.float32], thresholds: Sequence[float]
) -> NDArray[np.bool_]:
    """Which labels are given, bool `[..., labels]`.

    Args:
        probabilities: float32 `[..., labels]`.
        thresholds: one for each label, compared as float32; a probability that equals it counts.
    """
    return probabilities >= np.asarray(thresholds, np.float32)


def labels_of(
    probabilities: NDArray[np.float32], class_names: Sequence[str], thresholds: Sequence[float]
) -> list[tuple[str, np.float32]]:
    """The labels of one image with their probabilities, most probable first.

    Args:
        probabilities: float32 `[labels]`. Ties keep the order of the labels.
    """
    given = has_labels(probabilities, thresholds)
    order = np.argsort(-probabilities, kind="stable")
    return [(class_names[index], probabilities[index]) for index in order if given[index]]


def with_thresholds(document: BundleDocument, thresholds: Sequence[float]) -> BundleDocument:
    """The document with other thresholds, and without what was found out at its own.

    Raises:
        LockstepError: the model is not multi-label, or has another number of labels.
    """
    if document.task != MULTI_LABEL:
        raise LockstepError(
            "--threshold: expected a multi-label model, got a single-label one, whose answer is "
            "the most probable class; leave the option out"
        )
    changed = for_each_label(thresholds, len(document.class_names))
    if changed == document.thresholds:
        return document
    metrics = {name: value for name, value in document.metrics.items() if name in AT_ANY_THRESHOLD}
    return dataclasses.replace(document, thresholds=changed, metrics=metrics, verdict=())
