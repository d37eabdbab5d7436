"""Batches: pure functions of (seed, step)."""

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from pipeline.input.batches import (
    Examples,
    evaluation_batches,
    image_seeds,
    steps_per_epoch,
    training_batches,
)
from pipeline.options.augment import AugmentOptions

ALL = AugmentOptions(crop_padding=2, horizontal_flip=True, rotation=20.0)
NONE = AugmentOptions()

Batch = tuple[NDArray[np.uint8], NDArray[np.float32]]


def examples(count: int = 50) -> Examples:
    """Images whose first pixel is their index, so that a batch shows whom it holds."""
    images = np.random.default_rng(0).integers(0, 256, (count + 10, 9, 7, 3)).astype(np.uint8)
    images[:, 0, 0, 0] = np.arange(count + 10)
    labels = np.arange(count + 10) % 4
    return Examples(images, labels, np.arange(5, 5 + count), 4)


def batches(
    seed: int = 1,
    augmentation: AugmentOptions = NONE,
    first_step: int = 0,
    threads: int | None = None,
    count: int = 50,
) -> list[Batch]:
    dataset = training_batches(
        examples(count),
        batch_size=16,
        epochs=2,
        seed=seed,
        augmentation=augmentation,
        first_step=first_step,
        threads=threads,
    )
    return list(dataset.as_numpy_iterator())


def members(batches: list[Batch]) -> list[int]:
    return [int(index) for images, _ in batches for index in images[:, 0, 0, 0]]


def assert_equal(one: list[Batch], other: list[Batch]) -> None:
    assert len(one) == len(other)
    for (images, labels), (other_images, other_labels) in zip(one, other, strict=True):
        np.testing.assert_array_equal(images, other_images)
        np.testing.assert_array_equal(labels, other_labels)


def test_every_epoch_visits_every_example_once_in_another_order() -> None:
    found = batches()
    assert [len(images) for images, _ in found] == [16, 16, 16, 2] * 2
    first, second = members(found[:4]), members(found[4:])
    assert sorted(first) == sorted(second) == list(range(5, 55))
    assert first != second
    assert first != sorted(first)


def test_images_keep_their_labels() -> None:
    for images, labels in batches():
        assert images.dtype == np.uint8
        assert labels.dtype == np.float32
        np.testing.assert_array_equal(labels.argmax(axis=1), images[:, 0, 0, 0] % 4)
        np.testing.assert_array_equal(labels.sum(axis=1), 1)


def test_same_seed_same_batches_other_seed_others() -> None:
    assert_equal(batches(augmentation=ALL), batches(augmentation=ALL))
    assert members(batches(seed=1)) != members(batches(seed=2))


@pytest.mark.parametrize("first_step", [1, 4, 7])
def test_a_run_can_start_at_any_step(first_step: int) -> None:
    assert_equal(
        batches(augmentation=ALL, first_step=first_step), batches(augmentation=ALL)[first_step:]
    )


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_number_of_threads_changes_no_batch(threads: int) -> None:
    assert_equal(batches(augmentation=ALL, threads=threads), batches(augmentation=ALL))


def test_an_image_is_augmented_alike_wherever_it_stands_in_a_batch() -> None:
    """The draw depends on (seed, epoch, example), not on its place."""
    indices = tf.constant([7, 3, 11], tf.int64)
    seeds = image_seeds(1, tf.constant(2, tf.int64), indices)
    alone = image_seeds(1, tf.constant(2, tf.int64), tf.constant([3], tf.int64))
    np.testing.assert_array_equal(seeds[1], alone[0])
    assert len({tuple(seed) for seed in seeds.numpy()}) == 3
    later = image_seeds(1, tf.constant(3, tf.int64), indices)
    assert not np.array_equal(seeds, later)


def test_evaluation_batches_are_in_order_and_unchanged() -> None:
    data = examples()
    found = list(evaluation_batches(data, batch_size=20).as_numpy_iterator())
    assert [len(images) for images, _ in found] == [20, 20, 10]
    np.testing.assert_array_equal(
        np.concatenate([images for images, _ in found]), data.images[data.indices]
    )


@pytest.mark.parametrize(
    ("count", "size", "steps"), [(50, 16, 4), (48, 16, 3), (1, 16, 1), (50, 1, 50)]
)
def test_steps_per_epoch(count: int, size: int, steps: int) -> None:
    assert steps_per_epoch(count, size) == steps


def test_one_example_alone() -> None:
    assert members(batches(count=1)) == [5, 5]
