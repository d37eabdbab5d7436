"""The temperature: one number that divides the logits, so that confidence means what it says.

Fitted on the validation split, and only as far as that knows. Pure functions of logits and labels.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from export.calibration import expected_calibration_error, reliability
from export.intervals import Z

TEMPERATURES = (0.05, 20.0)
"""Searched; a minimum at either end is none."""

PRIOR = 0.35
"""Standard deviation of the logarithm of the temperature, before any image was seen: 95 % of
temperatures lie between 0.5 and 2. It weighs as much as some 30 images: an overconfident model of
five classes, whose temperature should be 2.5, gets 1.2 from 20 images, 1.6 from 60, and 2.5 from
2,000 (tests/export/test_temperature.py)."""

FOLDS = 5

Logits = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Temperature:
    """What was fitted.

    Attributes:
        value: the logits are to be divided by it; 1 changes nothing.
        examples: how many images it was fitted on.
        kept_because: why it stayed 1, or "".
        loss_at_one, loss: cross-entropy of the same images in nats, as trained, and with the
            temperatures that the other folds would fit; None where nothing was cross-validated.
    """

    value: float
    examples: int
    kept_because: str = ""
    loss_at_one: float | None = None
    loss: float | None = None

    @property
    def text(self) -> str:
        """For people."""
        images = f"{self.examples:,} validation image{'s' if self.examples != 1 else ''}"
        if self.kept_because:
            do = "do" if self.examples != 1 else "does"
            return f"temperature 1: {images} {do} not support another ({self.kept_because})"
        return f"temperature {self.value:.2g}, fitted on {images}"


def fit_temperature(logits: Logits, labels: Labels) -> Temperature:
    """The temperature that the images support, or 1.

    Temperature scaling (Guo et al. 2017, section 4.2) with a prior on the logarithm of the
    temperature: the most probable value of `log T ~ Normal(0, PRIOR)` given the images. It stays 1
    unless all of these hold:

    - The images contradict 1: the score test (Rao 1948) at 5 %. Its variance is the one that the
      model's own probabilities imply, so a few right answers cannot prove that all will be right.
    - The cross-validated cross-entropy is lower than that of 1.
    - The cross-validated expected calibration error is not higher than that of 1.
    - The value lies inside `TEMPERATURES`.

    Args:
        logits: float32 `[examples, classes]`, of the validation split.
        labels: int64 `[examples]`.

    Returns:
        Its value is rounded to 6 digits: what is recorded is what is used.
    """
    values, count = logits.astype(np.float64), len(labels)
    if count < 2 or not _contradicts_one(values, labels):
        return Temperature(1.0, count, "they agree with the confidence as trained")
    held_out = _cross_validated(values, labels)
    as_trained = log_softmax(values, axis=1)
    loss_at_one, loss = _loss(as_trained, labels), _loss(held_out, labels)
    kept_because = ""
    temperature = _most_probable(values, labels)
    if not loss < loss_at_one:
        kept_because = "the cross-validated loss would not fall"
    elif _calibration_error(held_out, labels) > _calibration_error(as_trained, labels):
        kept_because = "the cross-validated calibration error would rise"
    elif not TEMPERATURES[0] * 1.01 < temperature < TEMPERATURES[1] / 1.01:
        low, high = TEMPERATURES
        kept_because = f"no temperature from {low:g} to {high:g} fits"
    value = 1.0 if kept_because else round(temperature, 6)
    return Temperature(value, count, kept_because, loss_at_one, loss)


def _most_probable(values: NDArray[np.float64], labels: Labels) -> float:
    """The temperature with the least cross-entropy, summed up, and cost of the prior."""

    def cost(log_temperature: float) -> float:
        scaled = log_softmax(values / math.exp(log_temperature), axis=1)
        prior = (log_temperature / PRIOR) ** 2 / 2
        return float(prior - scaled[np.arange(len(labels)), labels].sum())

    found = minimize_scalar(cost, bounds=np.log(TEMPERATURES), method="bounded")
    return float(np.exp(found.x))


def _contradicts_one(values: NDArray[np.float64], labels: Labels) -> bool:
    """The score test of T = 1: the derivative of the log-likelihood by log T, and its variance."""
    shifted = values - values.max(axis=1, keepdims=True)
    shares = softmax(shifted, axis=1)
    mean = (shares * shifted).sum(axis=1)
    variance = (shares * (shifted - mean[:, None]) ** 2).sum()
    score = (shifted[np.arange(len(labels)), labels] - mean).sum()
    return bool(abs(score) > Z * math.sqrt(variance))


def _cross_validated(values: NDArray[np.float64], labels: Labels) -> NDArray[np.float64]:
    """Log-probabilities `[examples, classes]`; each fold with the temperature of all others.

    The folds are stratified and depend on nothing but the order of the images.
    """
    fold = np.empty(len(labels), np.int64)
    fold[np.argsort(labels, kind="stable")] = np.arange(len(labels)) % FOLDS
    found = np.empty_like(values)
    for number in np.unique(fold):
        inside = fold == number
        temperature = _most_probable(values[~inside], labels[~inside])
        found[inside] = log_softmax(values[inside] / temperature, axis=1)
    return found


def _loss(log_probabilities: NDArray[np.float64], labels: Labels) -> float:
    return float(-log_probabilities[np.arange(len(labels)), labels].mean())


def _calibration_error(log_probabilities: NDArray[np.float64], labels: Labels) -> float:
    return expected_calibration_error(
        reliability(np.exp(log_probabilities).astype(np.float32), labels)
    )
