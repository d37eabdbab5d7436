"""Losses from their options: of logits `[batch, classes]` and targets that sum to 1."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from pipeline.options.losses import (
    CrossEntropyOptions,
    FocalOptions,
    LossOptions,
    SquaredErrorOptions,
)
from pipeline.recipe import ConfigError


def build_loss(options: LossOptions, counts: Sequence[int]) -> keras.losses.Loss:
    """The loss that `options` names.

    Args:
        counts: training images of each class.

    Raises:
        ConfigError: there are more or fewer weights than classes.
    """
    weights = class_weights(options, counts)
    match options:
        case CrossEntropyOptions():
            return CrossEntropy(weights, options.label_smoothing)
        case FocalOptions():
            return Focal(weights, options.label_smoothing, options.gamma)
        case SquaredErrorOptions():
            return SquaredError(weights)


def class_weights(options: LossOptions, counts: Sequence[int]) -> NDArray[np.float32] | None:
    """float32 `[classes]`, whose mean over the training images is 1; None if all count alike.

    "balanced" has every class count alike: `images / (classes * count)`, as scikit-learn has it.
    """
    given = options.class_weights
    if given is None:
        return None
    if given == "balanced":
        weights = np.asarray([sum(counts) / (len(counts) * count) for count in counts])
        return weights.astype(np.float32)
    if len(given) != len(counts):
        raise ConfigError(
            f"train.loss.class_weights: expected {len(counts)}, one for each class; "
            f"got {len(given)}"
        )
    mean = sum(weight * count for weight, count in zip(given, counts, strict=True)) / sum(counts)
    if mean == 0:
        raise ConfigError("train.loss.class_weights: expected some image to count")
    return np.asarray(given, np.float32) / np.float32(mean)


class _Weighted(keras.losses.Loss, ABC):
    """The mean over a batch of each image's loss, times the weight of its target's classes."""

    def __init__(self, weights: NDArray[np.float32] | None, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self._weights, self._label_smoothing = weights, label_smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Targets and logits, each float32 `[batch, classes]`, to losses `[batch]`."""
        smoothing = self._label_smoothing
        targets = y_true * (1 - smoothing) + smoothing / y_true.shape[-1] if smoothing else y_true
        losses = self.of_each(targets, y_pred)
        if self._weights is None:
            return losses
        return losses * ops.sum(y_true * self._weights, axis=-1)

    @abstractmethod
    def of_each(self, targets: Any, logits: Any) -> Any:
        """Of each image, before it is weighed: `[batch]`."""


class CrossEntropy(_Weighted):
    """`-sum(target * log(softmax))`."""

    def of_each(self, targets: Any, logits: Any) -> Any:
        return ops.categorical_crossentropy(targets, logits, from_logits=True)


class Focal(_Weighted):
    """`-sum(target * (1 - softmax) ** gamma * log(softmax))`.

    Source: Lin et al., "Focal Loss for Dense Object Detection", 2017, equation 4, for many classes.
    """

    def __init__(
        self, weights: NDArray[np.float32] | None, label_smoothing: float, gamma: float
    ) -> None:
        super().__init__(weights, label_smoothing)
        self._gamma = gamma

    def of_each(self, targets: Any, logits: Any) -> Any:
        logs = ops.log_softmax(logits, axis=-1)
        # Not below a tiny number: the power's slope at 0 is infinite for a gamma below 1.
        unsure = ops.maximum(1 - ops.exp(logs), 1e-7)
        return -ops.sum(targets * ops.power(unsure, self._gamma) * logs, axis=-1)


class SquaredError(_Weighted):
    """`mean((softmax - target) ** 2)` over the classes (Brier 1950, divided by their number)."""

    def of_each(self, targets: Any, logits: Any) -> Any:
        return ops.mean(ops.square(ops.softmax(logits, axis=-1) - targets), axis=-1)
