"""Logits to probabilities, and what answers look like that already are some."""

import numpy as np
from numpy.typing import NDArray

ROUNDING = 1e-3
"""How far a sum of probabilities may be from 1, and a probability outside of 0 to 1."""


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 `[batch, classes]` to probabilities that sum to 1."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 of any shape to probabilities that stand for themselves."""
    powers = np.exp(-np.abs(logits))  # at most 1, so that nothing overflows
    return np.where(logits >= 0, 1 / (1 + powers), powers / (1 + powers)).astype(np.float32)


def sums_to_one(answers: NDArray[np.float32], tolerance: float = ROUNDING) -> bool:
    """Whether every row `[classes]` is a distribution."""
    sums = answers.sum(axis=1)
    return bool((answers >= 0).all() and (np.abs(sums - 1) <= tolerance).all())


def are_shares(answers: NDArray[np.float32], tolerance: float = ROUNDING) -> bool:
    """Whether every number lies between 0 and 1, so that it may be a probability."""
    return bool((answers >= -tolerance).all() and (answers <= 1 + tolerance).all())
