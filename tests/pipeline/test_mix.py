"""Mixup and CutMix: images and targets together."""

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from pipeline.input.batches import batch_seed, training_batches
from pipeline.input.mix import cutmix, mix, mixup
from pipeline.options.augment import AugmentOptions
from tests.pipeline.test_input import examples

VALUES = np.array([10, 110, 210, 60])
TARGETS = np.eye(4, dtype=np.float32)


def images(height: int = 12, width: int = 16) -> NDArray[np.uint8]:
    """One brightness each."""
    return np.broadcast_to(VALUES[:, None, None, None], (4, height, width, 3)).astype(np.uint8)


def seed(number: int) -> tf.Tensor:
    return batch_seed(3, tf.constant(number, tf.int64))


def others(values: NDArray) -> NDArray:
    return np.roll(values, 1, axis=0)


@pytest.mark.parametrize("number", range(5))
def test_mixup_weighs_pixels_and_targets_alike(number: int) -> None:
    pixels, targets = (value.numpy() for value in mixup(images(), TARGETS, seed(number), 0.8))
    share = targets[0, 0]
    assert 0 <= share <= 1
    np.testing.assert_allclose(targets, share * TARGETS + (1 - share) * others(TARGETS), atol=1e-6)
    expected = share * VALUES + (1 - share) * others(VALUES)
    np.testing.assert_allclose(pixels, expected[:, None, None, None] + 0 * pixels, atol=0.51)


def test_pixels_that_are_not_rounded_yet_are_rounded_once_after_mixing() -> None:
    """As augmentation leaves them; the mean of 10.4 and 10.2 is not that of 10 and 10."""
    pixels = tf.constant(
        images(2, 2) + np.array([0.4, 0.3, 0.45, 0.2])[:, None, None, None], tf.float32
    )
    found, targets = (value.numpy() for value in mixup(pixels, TARGETS, seed(1), 0.8))
    share = targets[0, 0]
    expected = share * pixels + (1 - share) * np.roll(pixels, 1, axis=0)
    np.testing.assert_array_equal(found, np.round(expected))
    for options in (AugmentOptions(), AugmentOptions(cutmix=1.0)):
        mixed, _ = mix(pixels, TARGETS, seed(1), options)
        assert mixed.dtype == tf.uint8
        assert set(mixed.numpy().ravel()) == set(VALUES)


@pytest.mark.parametrize("number", range(5))
def test_cutmix_weighs_targets_by_area(number: int) -> None:
    pixels, targets = (value.numpy() for value in cutmix(images(), TARGETS, seed(number), 1.0))
    cut = (pixels == others(VALUES)[:, None, None, None]).all(axis=-1)
    assert (cut == cut[0]).all(), "the same rectangle in all"
    assert ((pixels == VALUES[:, None, None, None]).all(axis=-1) == ~cut).all()
    rows, columns = cut[0].any(axis=1), cut[0].any(axis=0)
    assert (cut[0] == np.outer(rows, columns)).all()
    assert (np.diff(np.flatnonzero(rows)) == 1).all()
    assert (np.diff(np.flatnonzero(columns)) == 1).all()
    np.testing.assert_allclose(targets.diagonal(), 1 - cut[0].mean(), atol=1e-6)
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_the_share_is_drawn_from_the_beta_distribution(alpha: float) -> None:
    shares = [float(mixup(images(2, 2), TARGETS, seed(n), alpha)[1][0, 0]) for n in range(600)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.06)
    assert np.var(shares) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.2)


def test_a_tiny_alpha_mixes_nothing_and_gives_no_nan() -> None:
    for number in range(30):
        targets = mixup(images(2, 2), TARGETS, seed(number), 1e-6)[1].numpy()
        assert np.isfinite(targets).all()


def test_of_both_each_happens_half_of_the_time() -> None:
    options = AugmentOptions(mixup=1.0, cutmix=1.0)
    cuts = 0
    for number in range(100):
        pixels, _ = mix(images(), TARGETS, seed(number), options)
        cuts += set(np.unique(pixels)) <= set(VALUES)
    assert 30 < cuts < 70


def test_without_options_nothing_is_mixed() -> None:
    pixels, targets = mix(images(), TARGETS, seed(1), AugmentOptions())
    np.testing.assert_array_equal(pixels, images())
    np.testing.assert_array_equal(targets, TARGETS)


@pytest.mark.parametrize(
    "options", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 1.0, "cutmix": 1.0}]
)
def test_mixed_batches_are_a_function_of_the_step(options: dict[str, float]) -> None:
    def batches(first_step: int, threads: int | None = None) -> list[tuple[NDArray, NDArray]]:
        dataset = training_batches(
            examples(), batch_size=16, epochs=2, seed=1, first_step=first_step, threads=threads,
            augmentation=AugmentOptions(**options),
        )  # fmt: skip
        return list(dataset.as_numpy_iterator())

    whole = batches(0)
    for found, expected in (
        (batches(0, threads=3), whole),
        (batches(5), whole[5:]),
    ):
        for (pixels, targets), (other_pixels, other_targets) in zip(found, expected, strict=True):
            np.testing.assert_array_equal(pixels, other_pixels)
            np.testing.assert_array_equal(targets, other_targets)
    assert any(((targets > 0).sum(axis=1) == 2).any() for _, targets in whole)
    assert all(np.allclose(targets.sum(axis=1), 1) for _, targets in whole)
