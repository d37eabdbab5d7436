"""The two figures that every comparison needs: pure functions of labels and probabilities."""

import numpy as np
from numpy.typing import NDArray


def accuracy(labels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> float:
    """Share of examples whose likeliest class is the true one."""
    return float((probabilities.argmax(axis=1) == labels).mean())


def cross_entropy(labels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> float:
    """Mean negative log-likelihood, in nats; probabilities below 1e-12 count as 1e-12."""
    chosen = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(chosen, 1e-12)).mean())
