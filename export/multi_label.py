"""Figures of a multi-label model: pure functions of truth and probabilities.

Precision, recall and F1 are those at the thresholds, average precision is that of the ranking and
needs none; all are scikit-learn's (`zero_division=0`), and a test holds them to it. A label that no
image has was not tested: it has no figures and does not count in a mean over labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.scoring import binary_cross_entropy, exact_match, label_accuracy
from serve.multi_label import has_labels
from serve.rounding import rounded

Truth = NDArray[np.bool_]
"""bool `[images, labels]`: which image has which label."""

Probabilities = NDArray[np.float32]


@dataclass(frozen=True)
class LabelFigures:
    """One label.

    Attributes:
        threshold: probability from which on an image gets it.
        positives: images that have it; without one the figures are those of nothing.
        given: images that get it.
        hits: images that have it and get it.
        average_precision: mean precision over all places in the ranking where recall rises.
    """

    name: str
    threshold: float
    positives: int
    given: int
    hits: int
    average_precision: float

    @property
    def precision(self) -> float:
        return self.hits / max(self.given, 1)

    @property
    def recall(self) -> float:
        return self.hits / max(self.positives, 1)

    @property
    def f1(self) -> float:
        return 2 * self.hits / max(self.given + self.positives, 1)


@dataclass(frozen=True)
class MultiLabelFigures:
    """All figures.

    Attributes:
        examples: images.
        accuracy: share of images with exactly the right labels (scikit-learn's accuracy).
        label_accuracy: share of right decisions, one for each image and label.
        loss: binary cross-entropy, in nats, mean over images and labels.
    """

    examples: int
    accuracy: float
    label_accuracy: float
    loss: float
    labels: tuple[LabelFigures, ...]

    @property
    def tested(self) -> tuple[LabelFigures, ...]:
        """The labels that some image has: the means over labels are over these."""
        return tuple(label for label in self.labels if label.positives)

    def macro(self, name: str) -> float:
        """The mean of a figure over the tested labels; 0 if there are none."""
        values = [float(getattr(label, name)) for label in self.tested]
        return sum(values) / max(len(values), 1)

    @property
    def total(self) -> LabelFigures:
        """All labels as one, for precision, recall and F1 over all decisions (micro)."""
        positives, given, hits = (
            sum(int(getattr(label, name)) for label in self.labels) for name in _COUNTS
        )
        return LabelFigures("micro", 0.0, positives, given, hits, average_precision=0.0)

    def headline(self) -> dict[str, float]:
        """The figures that a bundle carries along."""
        total = self.total
        return {
            "examples": self.examples,
            "accuracy": self.accuracy,
            "label_accuracy": self.label_accuracy,
            "loss": self.loss,
            **{f"{name}_macro": self.macro(name) for name in _FIGURES},
            **{f"{name}_micro": float(getattr(total, name)) for name in _FIGURES[:3]},
            "labels_tested": len(self.tested),
        }


_COUNTS = ("positives", "given", "hits")
_FIGURES = ("precision", "recall", "f1", "average_precision")


def multi_label_figures(
    truth: Truth,
    probabilities: Probabilities,
    class_names: Sequence[str],
    thresholds: Sequence[float],
) -> MultiLabelFigures:
    """Measure a model's answers.

    Args:
        truth: bool `[images, labels]`, at least one image.
        probabilities: float32 `[images, labels]`.
        class_names: name of each label.
        thresholds: of each label.
    """
    given = has_labels(probabilities, thresholds)
    labels = [
        LabelFigures(
            name,
            thresholds[index],
            positives=int(truth[:, index].sum()),
            given=int(given[:, index].sum()),
            hits=int((truth & given)[:, index].sum()),
            average_precision=average_precision(truth[:, index], probabilities[:, index]),
        )
        for index, name in enumerate(class_names)
    ]
    return MultiLabelFigures(
        examples=len(truth),
        accuracy=exact_match(truth, probabilities, thresholds),
        label_accuracy=label_accuracy(truth, probabilities, thresholds),
        loss=binary_cross_entropy(truth, probabilities),
        labels=tuple(labels),
    )


def average_precision(truth: NDArray[np.bool_], scores: NDArray[np.floating]) -> float:
    """Area under the steps of precision over recall; 0 where nothing is true.

    Args:
        truth: bool `[images]`.
        scores: `[images]`, higher for images that rather have the label. Images with equal scores
            are one step, whatever their order.
    """
    if not truth.any():
        return 0.0
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(truth[order])
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    precision = hits[ends] / (ends + 1)
    steps = np.diff(hits[ends], prepend=0) / hits[-1]
    return float((precision * steps).sum())


def format_figures(figures: MultiLabelFigures) -> str:
    """A table for the terminal: a line for each label, and the means."""
    width = max(len("macro"), *(len(label.name) for label in figures.labels))
    head = f"{'label':<{width}} {'images':>7} {'threshold':>10} {'precision':>10} {'recall':>7}"
    lines = [f"{head} {'F1':>7} {'average precision':>18}"]
    lines += [_line(label, width, figures.examples) for label in figures.labels]
    untested = len(figures.labels) - len(figures.tested)
    values = [rounded(figures.macro(name), figures.examples) for name in _FIGURES]
    over = f"mean of {len(figures.tested)} labels"
    if untested:
        over += f"; {untested} without an image {'are' if untested > 1 else 'is'} not tested"
    lines.append(
        f"{'macro':<{width}} {'':>7} {'':>10} {values[0]:>10} {values[1]:>7} {values[2]:>7} "
        f"{values[3]:>18}  {over}"
    )
    return "\n".join(lines)


def _line(label: LabelFigures, width: int, examples: int) -> str:
    start = f"{label.name:<{width}} {label.positives:>7,} {label.threshold:>10.4g}"
    if not label.positives:
        return f"{start} {'not tested':>10}"
    precision, recall, f1, average = (rounded(getattr(label, name), examples) for name in _FIGURES)
    return f"{start} {precision:>10} {recall:>7} {f1:>7} {average:>18}"
