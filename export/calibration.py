"""Does confidence mean what it says? Calibration error, and when to be uncertain.

Pure functions of probabilities and labels.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 15
MANY = 2000
"""Images in a bin beyond which their draws are summed up by the normal distribution."""


@dataclass(frozen=True)
class Bin:
    """The examples whose confidence lies in one interval."""

    low: float
    high: float
    examples: int
    confidence: float
    accuracy: float


def reliability(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], bins: int = BINS
) -> list[Bin]:
    """Mean confidence and accuracy in `bins` intervals of equal width; empty ones are left out."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, bins + 1)
    position = _bin_of(confidence, bins)
    return [
        Bin(
            low=float(edges[number]),
            high=float(edges[number + 1]),
            examples=int(inside.sum()),
            confidence=float(confidence[inside].mean()),
            accuracy=float(correct[inside].mean()),
        )
        for number in range(bins)
        if (inside := position == number).any()
    ]


def expected_calibration_error(bins: list[Bin]) -> float:
    """Mean distance of confidence and accuracy, weighted by examples (Guo et al. 2017, eq. 3)."""
    total = sum(item.examples for item in bins)
    return sum(item.examples * abs(item.confidence - item.accuracy) for item in bins) / total


def error_by_chance(
    probabilities: NDArray[np.float32], bins: int = BINS, resamples: int = 1000, seed: int = 0
) -> float:
    """The calibration error that a perfectly calibrated model would stay below in 95 % of cases.

    The error of few images is large even where every confidence is right. Consistency resampling
    (Bröcker and Smith 2007; for classifiers Vaicenavicius et al. 2019): answers are drawn to be
    right as often as their confidence says, and the error of each draw is computed.

    Args:
        probabilities: float32 `[examples, classes]`.
    """
    generator = np.random.default_rng(seed)
    confidence = np.clip(probabilities.max(axis=1).astype(np.float64), 0, 1)
    position = _bin_of(confidence, bins)
    errors = np.zeros(resamples)
    for number in range(bins):
        inside = confidence[position == number]
        if len(inside):
            errors += np.abs(_right_answers(inside, resamples, generator) - inside.sum())
    return float(np.quantile(errors / len(confidence), 0.95))


def _right_answers(
    confidence: NDArray[np.float64], resamples: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """How many answers are right, in each of `resamples` draws."""
    if len(confidence) > MANY:  # the sum of so many draws is normal
        spread = float(np.sqrt((confidence * (1 - confidence)).sum()))
        sums: NDArray[np.float64] = confidence.sum() + spread * generator.standard_normal(resamples)
        return sums
    draws: NDArray[np.bool_] = generator.random((resamples, len(confidence))) < confidence
    return np.asarray(draws.sum(axis=1), np.float64)


def _bin_of(confidence: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """Right-closed, as in the paper; 0 itself cannot be a confidence."""
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)


def threshold_for(probabilities: NDArray[np.float32], coverage: float) -> float:
    """The confidence that a share `coverage` of the examples reaches (El-Yaniv and Wiener 2010).

    Args:
        probabilities: float32 `[examples, classes]`, of the validation split.
        coverage: share of answers to give, above 0 and at most 1.
    """
    confidence = np.sort(probabilities.max(axis=1))[::-1]
    return float(confidence[max(1, round(coverage * len(confidence))) - 1])


def coverage_of(probabilities: NDArray[np.float32], threshold: float) -> float:
    """Share of the answers that reach `threshold`."""
    return float((probabilities.max(axis=1) >= np.float32(threshold)).mean())


def selective_accuracy(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], threshold: float
) -> tuple[float, float]:
    """Coverage and accuracy of the answers that reach `threshold`; accuracy 0 if none does."""
    certain = probabilities.max(axis=1) >= np.float32(threshold)
    correct = probabilities.argmax(axis=1) == labels
    return float(certain.mean()), float(correct[certain].mean()) if certain.any() else 0.0


def calibration_figures(
    before: NDArray[np.float32], after: NDArray[np.float32], labels: NDArray[np.int64]
) -> dict[str, Any]:
    """ECE and reliability bins of the test split without and with the temperature."""
    figures: dict[str, Any] = {}
    for name, probabilities in (("before", before), ("after", after)):
        bins = reliability(probabilities, labels)
        figures[name] = {
            "ece": expected_calibration_error(bins),
            "bins": [asdict(item) for item in bins],
        }
    return figures
