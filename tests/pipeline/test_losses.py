"""Every loss against NumPy."""

from collections.abc import Callable
from typing import get_args

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.options.losses import (
    CrossEntropyOptions,
    FocalOptions,
    LossOptions,
    SquaredErrorOptions,
)
from pipeline.recipe import ConfigError
from pipeline.training.losses import build_loss, class_weights

Floats = NDArray[np.float64]

COUNTS = (10, 30, 20)
LOGITS = np.array([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0], [-3.0, 4.0, 30.0], [1.0, 2.0, 3.0]])
ONE_HOT = np.eye(3)[[0, 2, 1, 2]]
MIXED = 0.7 * ONE_HOT + 0.3 * ONE_HOT[::-1]
"""Targets as mixup makes them."""


def softmax(logits: Floats) -> Floats:
    raised: Floats = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def cross_entropy(targets: Floats) -> Floats:
    result: Floats = -(targets * np.log(softmax(LOGITS))).sum(axis=1)
    return result


def focal(targets: Floats, gamma: float) -> Floats:
    found = softmax(LOGITS)
    result: Floats = -(targets * (1 - found) ** gamma * np.log(found)).sum(axis=1)
    return result


def squared_error(targets: Floats) -> Floats:
    result: Floats = np.square(softmax(LOGITS) - targets).mean(axis=1)
    return result


REFERENCES: list[tuple[LossOptions, Callable[[Floats], Floats]]] = [
    (CrossEntropyOptions(), cross_entropy),
    (CrossEntropyOptions(label_smoothing=0.3), lambda targets: cross_entropy(0.7 * targets + 0.1)),
    (FocalOptions(), lambda targets: focal(targets, 2)),
    (FocalOptions(gamma=0.0), cross_entropy),
    (FocalOptions(gamma=0.5), lambda targets: focal(targets, 0.5)),
    (
        FocalOptions(gamma=1.0, label_smoothing=0.6),
        lambda targets: focal(0.4 * targets + 0.2, 1),
    ),
    (SquaredErrorOptions(), squared_error),
]


@pytest.mark.parametrize(("options", "reference"), REFERENCES)
@pytest.mark.parametrize("targets", [ONE_HOT, MIXED], ids=["one-hot", "mixed"])
@pytest.mark.parametrize("weights", [None, "balanced", [1.0, 0.0, 3.0]])
def test_a_loss_follows_its_equation(
    options: LossOptions,
    reference: Callable[[Floats], Floats],
    targets: Floats,
    weights: object,
) -> None:
    options = options.model_copy(update={"class_weights": weights})
    expected = reference(targets)
    if weights == "balanced":
        expected = expected * (targets @ np.array([60 / 30, 60 / 90, 60 / 60]))
    elif weights:  # (10 x 1 + 20 x 3) / 60 is their mean over the images
        expected = expected * (targets @ np.array([1, 0, 3])) * 60 / 70
    loss = build_loss(options, COUNTS)
    found = loss(targets.astype(np.float32), LOGITS.astype(np.float32))
    assert float(found) == pytest.approx(expected.mean(), rel=1e-5)


def test_no_loss_is_left_out() -> None:
    assert {type(options) for options, _ in REFERENCES} == set(get_args(LossOptions))


@pytest.mark.parametrize("options", [form() for form in get_args(LossOptions)], ids=repr)
def test_no_gradient_is_lost_on_the_surest_answers(options: LossOptions) -> None:
    """Logits so far apart that a probability is 1 or 0 in float32, right and wrong."""
    import tensorflow as tf

    loss = build_loss(options.model_copy(), COUNTS)
    logits = tf.constant([[100.0, -100.0, 0.0], [-100.0, 100.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(np.eye(3, dtype=np.float32)[[0, 0]], logits)
    assert np.isfinite(value.numpy())
    assert np.isfinite(tape.gradient(value, logits).numpy()).all()


@pytest.mark.parametrize(
    ("weights", "message"),
    [([1.0, 2.0], "expected 3, one for each class; got 2"), ([0.0, 0.0, 0.0], "some image")],
)
def test_weights_that_do_not_fit(weights: list[float], message: str) -> None:
    with pytest.raises(ConfigError, match=f"train.loss.class_weights: .*{message}"):
        build_loss(CrossEntropyOptions(class_weights=weights), COUNTS)


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.repeat([0, 1, 2], COUNTS)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    found = class_weights(CrossEntropyOptions(class_weights="balanced"), COUNTS)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_smoothed_cross_entropy_is_that_of_keras() -> None:
    mine = build_loss(CrossEntropyOptions(label_smoothing=0.2), COUNTS)
    keras_loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2)
    arguments = (ONE_HOT.astype(np.float32), LOGITS.astype(np.float32))
    assert float(mine(*arguments)) == pytest.approx(float(keras_loss(*arguments)), rel=1e-6)
