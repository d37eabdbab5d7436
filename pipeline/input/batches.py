"""tf.data batches that are a pure function of (seed, step).

No iterator holds state: step `s` of a run always gives the same examples in the same order with
the same augmentation, whatever was read before, by however many threads. So a run can start at any
step.
"""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipeline.input.augment import augment, is_active
from pipeline.input.mix import mix
from pipeline.input.pixels import to_uint8
from pipeline.options.augment import AugmentOptions


@dataclass(frozen=True)
class Examples:
    """Some examples of a data set.

    Attributes:
        images: uint8 `[all, height, width, channels]`, typically memory-mapped.
        labels: int64 `[all]`.
        indices: int64 `[examples]`, the rows that belong here.
        classes: how many classes there are.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    indices: NDArray[np.int64]
    classes: int

    def __len__(self) -> int:
        return len(self.indices)


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Steps in which every example is seen once; the last one may be smaller."""
    return -(-examples // batch_size)


def training_batches(
    examples: Examples,
    *,
    batch_size: int,
    epochs: int,
    seed: int,
    augmentation: AugmentOptions,
    first_step: int = 0,
    threads: int | None = None,
) -> tf.data.Dataset:
    """Shuffled and augmented batches from `first_step` to the end of the last epoch.

    Each epoch visits every example once, in a permutation drawn from (seed, epoch).

    Args:
        threads: batches made at the same time; None lets tf.data choose. Changes no batch.

    Returns:
        A dataset of (uint8 `[batch, height, width, channels]`, float32 targets `[batch, classes]`),
        one-hot unless images are mixed.
    """

    def batch_of(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        epoch, start, end = _batch(step, examples, batch_size)
        places = tf.range(start, end)
        return mixed(examples, places, seed, epoch, step, augmentation)

    steps = epochs * steps_per_epoch(len(examples), batch_size)
    return _map(tf.data.Dataset.range(first_step, steps), batch_of, threads)


def training_parts(
    examples: Examples,
    *,
    batch_size: int,
    part_size: int,
    epochs: int,
    seed: int,
    augmentation: AugmentOptions,
    first_step: int = 0,
    threads: int | None = None,
) -> tf.data.Dataset:
    """The batches of `training_batches`, each in parts of at most `part_size` images.

    Returns:
        A dataset of (images, targets, float32 share of the batch's images, whether it is the last
        part of its batch).
    """
    parts = -(-batch_size // part_size)

    def part_of(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
        step, part = number // parts, number % parts
        epoch, start, end = _batch(step, examples, batch_size)
        first = start + part * part_size
        last = tf.minimum(first + part_size, end)
        # Mixing takes the image before each; that of a batch's first is its last one.
        before = tf.where(part == 0, end, first) - 1
        places = tf.concat([[before], tf.range(first, last)], axis=0)
        images, targets = mixed(examples, places, seed, epoch, step, augmentation)
        share = tf.cast(last - first, tf.float32) / tf.cast(end - start, tf.float32)
        return images[1:], targets[1:], share, last == end

    def is_there(number: tf.Tensor) -> tf.Tensor:
        _, start, end = _batch(number // parts, examples, batch_size)
        return start + number % parts * part_size < end

    steps = epochs * steps_per_epoch(len(examples), batch_size)
    numbers = tf.data.Dataset.range(first_step * parts, steps * parts)
    return _map(numbers.filter(is_there), part_of, threads)


def training_views(
    examples: Examples,
    *,
    batch_size: int,
    epochs: int,
    seed: int,
    augmentation: AugmentOptions,
    first_step: int = 0,
    threads: int | None = None,
) -> tf.data.Dataset:
    """The batches of `training_batches`, unmixed, each followed by itself augmented once more."""

    def batch_of(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        epoch, start, end = _batch(step, examples, batch_size)
        places = tf.range(start, end)
        views = [augmented(examples, places, seed, epoch, augmentation, view) for view in (0, 1)]
        images, targets = (tf.concat(parts, axis=0) for parts in zip(*views, strict=True))
        return to_uint8(images), targets

    steps = epochs * steps_per_epoch(len(examples), batch_size)
    return _map(tf.data.Dataset.range(first_step, steps), batch_of, threads)


def evaluation_batches(examples: Examples, *, batch_size: int) -> tf.data.Dataset:
    """The examples once, in order and unchanged; elements as in `training_batches`."""

    def batch_of(start: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        end = tf.minimum(start + batch_size, len(examples))
        return _gather(examples, tf.constant(examples.indices)[start:end])

    starts = tf.data.Dataset.range(0, len(examples), batch_size)
    return _map(starts, batch_of, None)


def mixed(
    examples: Examples,
    places: tf.Tensor,
    seed: int,
    epoch: tf.Tensor,
    step: tf.Tensor,
    augmentation: AugmentOptions,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The images at these places of the epoch's order, augmented, and their targets.

    Each is mixed with the one before it, as the batch of this step is.
    """
    images, targets = augmented(examples, places, seed, epoch, augmentation)
    return mix(images, targets, batch_seed(seed, step), augmentation)


def augmented(
    examples: Examples,
    places: tf.Tensor,
    seed: int,
    epoch: tf.Tensor,
    augmentation: AugmentOptions,
    view: int = 0,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The images at these places of the epoch's order, as `augment` leaves them, and their targets.

    They are not rounded yet: mixing comes first.
    """
    indices = in_order(examples, places, seed, epoch)
    images, targets = _gather(examples, indices)
    if is_active(augmentation):
        images = augment(images, image_seeds(seed, epoch, indices, view), augmentation)
    return images, targets


def in_order(examples: Examples, places: tf.Tensor, seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """int64, like `places`: the rows of the arrays that are there in the epoch's order."""
    order = tf.random.experimental.index_shuffle(
        places, tf.cast(tf.stack([seed, epoch]), tf.int64), len(examples) - 1
    )
    return tf.gather(tf.constant(examples.indices), order)


def image_seeds(seed: int, epoch: tf.Tensor, indices: tf.Tensor, view: int = 0) -> tf.Tensor:
    """int64 `[batch, 2]`: one seed per image, by (seed, epoch, example, view)."""
    # 1 is the stream of `batch_seed`.
    ours = tf.constant([seed, view + 1 if view else 0], tf.int64)
    in_epoch = tf.random.experimental.stateless_fold_in(ours, epoch)
    return tf.stack([tf.fill(tf.shape(indices), in_epoch[0]), in_epoch[1] ^ indices], axis=1)


def batch_seed(seed: int, step: tf.Tensor) -> tf.Tensor:
    """int64 `[2]`: what is drawn for a batch as a whole, by (seed, step)."""
    ours = tf.stack([tf.constant(seed, tf.int64), tf.constant(1, tf.int64)])
    return tf.random.experimental.stateless_fold_in(ours, step)


def _batch(
    step: tf.Tensor, examples: Examples, batch_size: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The epoch of a step, and the first place of its batch in the epoch's order and the end."""
    steps = steps_per_epoch(len(examples), batch_size)
    start = step % steps * batch_size
    return step // steps, start, tf.minimum(start + batch_size, len(examples))


def _gather(examples: Examples, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Rows of the arrays; NumPy reads them, so that only what is used comes from the disk."""

    def read(rows: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        return examples.images[rows], examples.labels[rows]

    images, labels = tf.numpy_function(read, [indices], [tf.uint8, tf.int64], stateful=False)
    images.set_shape([None, *examples.images.shape[1:]])
    labels.set_shape([None])
    return images, tf.one_hot(labels, examples.classes)


def _map(dataset: tf.data.Dataset, function: object, threads: int | None) -> tf.data.Dataset:
    return dataset.map(
        function, num_parallel_calls=threads or tf.data.AUTOTUNE, deterministic=True
    ).prefetch(tf.data.AUTOTUNE)
