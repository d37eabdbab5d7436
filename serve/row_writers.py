"""Which rows the batch command writes, by the model's task and what was asked for."""

from collections.abc import Callable
from typing import Protocol, TextIO

from serve.classifier import Classifier
from serve.command import LockstepError
from serve.multi_label import MULTI_LABEL
from serve.multi_label_rows import MULTI_LABEL_WRITERS
from serve.rows import WRITERS, Prediction

BUNDLE = "bundle"
"""Asks for the bundle's own confidence below which an answer is uncertain."""


class RowWriter(Protocol):
    """Writes predictions, one a row."""

    def write(self, prediction: Prediction) -> None: ...


def row_writers(
    classifier: Classifier,
    form: str,
    *,
    top: int | None,
    all_probabilities: bool,
    uncertain_below: float | str | None,
) -> Callable[[TextIO], RowWriter]:
    """What begins the output of a model on a stream.

    Args:
        form: "csv" or "jsonl".
        top: labels for each image; None is 1, or for a multi-label model those that it has.
        uncertain_below: a number, `BUNDLE`, or None for never.

    Raises:
        LockstepError: the options do not fit the model.
    """
    document = classifier.document
    names = document.class_names
    if document.task != MULTI_LABEL:
        threshold = _smallest_certain(uncertain_below, classifier)
        return lambda stream: WRITERS[form](
            stream,
            names,
            top=min(top or 1, len(names)),
            all_probabilities=all_probabilities,
            threshold=threshold,
        )
    if uncertain_below is not None:
        raise LockstepError(
            f"--uncertain-below: {classifier.path} is a multi-label model, whose answer is every "
            "label that is probable enough; say what is enough with --threshold"
        )
    return lambda stream: MULTI_LABEL_WRITERS[form](
        stream,
        names,
        document.thresholds,
        top=min(top or 0, len(names)),
        all_probabilities=all_probabilities,
    )


def _smallest_certain(asked: float | str | None, classifier: Classifier) -> float | None:
    """The threshold as a number; the bundle's own where that was asked for."""
    if asked != BUNDLE:
        return None if asked is None else float(asked)
    rejection = classifier.document.rejection
    if rejection is None:
        raise LockstepError(
            f"{classifier.path}: the bundle has no threshold of its own; give a number, or train "
            "with --evaluate.coverage"
        )
    return rejection.threshold
