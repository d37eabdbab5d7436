"""What training sees of single images: the pixels and targets of `training_batches`, looked up."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipeline.input.batches import (
    Examples,
    in_order,
    mixed,
    steps_per_epoch,
)
from pipeline.options.augment import AugmentOptions

Seen = tuple[NDArray[np.uint8], NDArray[np.float32]]
"""Pixels `[height, width, channels]` and a target `[classes]`."""


def seen_in_training(
    examples: Examples,
    indices: Sequence[int],
    epochs: int,
    *,
    batch_size: int,
    seed: int,
    augmentation: AugmentOptions,
) -> list[list[Seen]]:
    """Some examples in the first epochs of a training, without making whole batches.

    An image is mixed with the one before it in its batch, so two images are all that it takes.

    Args:
        indices: rows of the arrays, all of them among `examples.indices`.

    Returns:
        For each of `indices`, what each epoch shows of it.
    """
    steps = steps_per_epoch(len(examples), batch_size)

    @tf.function
    def look(epoch: tf.Tensor, place: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        start = place - place % batch_size
        size = tf.minimum(tf.constant(batch_size, tf.int64), len(examples) - start)
        before = start + (place - start - 1) % size  # the first follows on the last
        pair = tf.stack([before, place])
        step = epoch * steps + place // batch_size
        images, targets = mixed(examples, pair, seed, epoch, step, augmentation)
        return images[1], targets[1]

    places = tf.range(len(examples), dtype=tf.int64)
    seen: list[list[Seen]] = [[] for _ in indices]
    for epoch in tf.range(epochs, dtype=tf.int64):
        order = in_order(examples, places, seed, epoch).numpy()
        for number, index in enumerate(indices):
            image, target = look(epoch, places[int(np.flatnonzero(order == index)[0])])
            seen[number].append((image.numpy(), target.numpy()))
    return seen
