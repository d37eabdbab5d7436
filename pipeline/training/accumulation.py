"""A step over a batch that is computed in parts."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf


def accumulating_step(model: keras.Model) -> Callable[[Iterator[Any]], dict[str, Any]]:
    """What `keras.Model.train_function` does, for batches that come in parts.

    Each part's gradients count by its share of the batch's images. Their sum is the gradient of the
    batch's mean loss and of the penalties, so that clipping and the update are those of the whole
    batch. Batch normalization alone sees the parts: it normalizes each by its own statistics.

    Args:
        model: compiled, with an optimizer that is built.

    Returns:
        A function from the iterator over `training_parts` to the figures of the epoch so far. It
        takes all parts of one batch.
    """
    weights = model.trainable_variables
    sums = [tf.Variable(tf.zeros(weight.shape, weight.dtype)) for weight in weights]
    (mean_loss,) = (metric for metric in model.metrics if metric.name == "loss")

    @tf.function(
        input_signature=[
            tf.TensorSpec(model.input_shape, tf.uint8),
            tf.TensorSpec(model.output_shape, tf.float32),
            tf.TensorSpec([], tf.float32),
        ]
    )
    def add(images: tf.Tensor, targets: tf.Tensor, share: tf.Tensor) -> dict[str, Any]:
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            loss = model.compute_loss(images, targets, logits, training=True)
        gradients = tape.gradient(loss, [weight.value for weight in weights])
        for total, gradient in zip(sums, gradients, strict=True):
            total.assign_add(share * gradient)
        mean_loss.update_state(loss, sample_weight=tf.shape(images)[0])
        return model.compute_metrics(images, targets, logits)  # type: ignore[no-any-return]

    @tf.function
    def update() -> None:
        model.optimizer.apply(sums, weights)
        for total in sums:
            total.assign(tf.zeros_like(total))

    def step(parts: Iterator[Any]) -> dict[str, Any]:
        is_last = False
        while not is_last:
            images, targets, share, last = next(parts)
            figures: dict[str, Any] = add(images, targets, share)
            is_last = bool(last)
        update()
        return figures

    return step
