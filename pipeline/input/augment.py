"""Random changes to training images, as pure functions of (image, seed).

`MOVES` say where pixels come from: together they are one matrix, by which an image is resampled
once (`pipeline.input.geometry`). `CHANGES` alter values. All is computed in float32, and rounded
once, at the end.

A seed is int64 `[2]`; the stateless operations of TensorFlow make the same draw from the same seed,
so an image's augmentation depends on (run seed, epoch, example) and on nothing else, not on the
batch either. None of this enters an exported graph.
"""

import math
from collections.abc import Callable

import tensorflow as tf

from pipeline.input import geometry, trivial
from pipeline.input.geometry import Move, either_way
from pipeline.input.pixels import blend, grey, within_range
from pipeline.options.augment import AugmentOptions

Change = Callable[[tf.Tensor, tf.Tensor, float], tf.Tensor]
"""From pixels (float32 `[height, width, channels]`), a seed and a strength to pixels likewise."""


def augment(images: tf.Tensor, seeds: tf.Tensor, options: AugmentOptions) -> tf.Tensor:
    """Apply every operation that `options` turns on to each image, with draws from its seed.

    Args:
        images: uint8 `[batch, height, width, channels]`.
        seeds: int64 `[batch, 2]`.

    Returns:
        Pixels shaped like `images`: float32 from 0 to 255, to be rounded by `to_uint8` when all is
        done with them, or uint8 where nothing was computed.
    """
    turned_on = options.turned_on()
    moves = [(*MOVES[name], turned_on[name]) for name in MOVES if name in turned_on]
    changes = [(*CHANGES[name], turned_on[name]) for name in CHANGES if name in turned_on]
    pixels = _moved(images, seeds, moves) if moves else images
    return _changed(tf.cast(pixels, tf.float32), seeds, changes) if changes else pixels


def is_active(options: AugmentOptions) -> bool:
    """Whether any operation is turned on."""
    return bool(options.turned_on().keys() & (MOVES.keys() | CHANGES.keys()))


def _moved(images: tf.Tensor, seeds: tf.Tensor, moves: list[tuple[int, Move, float]]) -> tf.Tensor:
    """By the streams, kinds and strengths of moves: one matrix for each image, from its draws."""
    drawn = tf.map_fn(
        lambda seed: [
            move.draw(_stream(seed, number), strength) for number, move, strength in moves
        ],
        seeds,
        fn_output_signature=[tf.TensorSpec([move.numbers], tf.float32) for _, move, _ in moves],
    )
    size = tf.cast(tf.shape(images)[1:3], tf.float32)
    matrices = geometry.composed(
        [move.matrices(draws, size) for (_, move, _), draws in zip(moves, drawn, strict=True)]
    )
    if all(move.is_whole for _, move, _ in moves):
        return geometry.rearrange(images, matrices)
    return geometry.resample(tf.cast(images, tf.float32), matrices)


def _changed(
    pixels: tf.Tensor, seeds: tf.Tensor, changes: list[tuple[int, Change, float]]
) -> tf.Tensor:
    """Each image by itself, by the streams, kinds and strengths of changes."""

    def changed(pair: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        image, seed = pair
        for number, change, strength in changes:
            image = change(image, _stream(seed, number), strength)
        return image

    signature = tf.TensorSpec(pixels.shape[1:], tf.float32)
    return tf.map_fn(changed, (pixels, seeds), fn_output_signature=signature)


def change_brightness(pixels: tf.Tensor, seed: tf.Tensor, share: float) -> tf.Tensor:
    """Multiply by a factor from 1 - `share` to 1 + `share`."""
    return blend(pixels, tf.constant(0.0), 1 + either_way(seed, share))


def change_contrast(pixels: tf.Tensor, seed: tf.Tensor, share: float) -> tf.Tensor:
    """Multiply the distance from the image's mean grey by a factor drawn likewise."""
    return blend(pixels, tf.reduce_mean(grey(pixels)), 1 + either_way(seed, share))


def change_saturation(pixels: tf.Tensor, seed: tf.Tensor, share: float) -> tf.Tensor:
    """Multiply each pixel's distance from its grey by a factor drawn likewise; RGB alone."""
    if pixels.shape[-1] != 3:
        return pixels
    return blend(pixels, grey(pixels), 1 + either_way(seed, share))


def change_hue(pixels: tf.Tensor, seed: tf.Tensor, share: float) -> tf.Tensor:
    """Turn the hue by up to `share` of the circle, either way; RGB alone."""
    if pixels.shape[-1] != 3:
        return pixels
    return within_range(255 * tf.image.adjust_hue(pixels / 255, either_way(seed, share)))


def add_noise(pixels: tf.Tensor, seed: tf.Tensor, deviation: float) -> tf.Tensor:
    """Add Gaussian noise to every value, in grey steps."""
    noise = tf.random.stateless_normal(tf.shape(pixels), seed, stddev=deviation)
    return within_range(pixels + noise)


def erase(pixels: tf.Tensor, seed: tf.Tensor, probability: float) -> tf.Tensor:
    """Fill a rectangle of 2 to 40 % of the area with noise.

    Source: Zhong et al., "Random Erasing Data Augmentation", 2017, algorithm 1: shapes of 0.3 to
    1 / 0.3, drawn here by their logarithm, and cut off at the border instead of drawn again.
    """
    chance, area, shape, row, column = tf.unstack(tf.random.stateless_uniform([5], seed))
    size = tf.cast(tf.shape(pixels)[:2], tf.float32)
    area = (0.02 + 0.38 * area) * size[0] * size[1]
    shape = tf.exp((2 * shape - 1) * math.log(1 / 0.3))
    height = tf.minimum(tf.sqrt(area * shape), size[0])
    width = tf.minimum(tf.sqrt(area / shape), size[1])
    rows, columns = (
        _within(tf.shape(pixels)[axis], start * (size[axis] - length), length)
        for axis, start, length in ((0, row, height), (1, column, width))
    )
    noise = tf.random.stateless_uniform(tf.shape(pixels), _stream(seed, 0), 0, 256, dtype=tf.int32)
    is_erased = rows[:, None, None] & columns[None, :, None] & (chance < probability)
    return tf.where(is_erased, tf.cast(noise, tf.float32), pixels)


MOVES: dict[str, tuple[int, Move]] = {
    "resized_crop_min_area": (3, geometry.RESIZED_CROP),
    "rotation": (0, geometry.ROTATION),
    "zoom": (4, geometry.ZOOM),
    "translation": (5, geometry.TRANSLATION),
    "crop_padding": (1, geometry.CROP),
    "horizontal_flip": (2, geometry.HORIZONTAL_FLIP),
    "vertical_flip": (6, geometry.VERTICAL_FLIP),
    "trivial": (7, trivial.MOVE),
}
CHANGES: dict[str, tuple[int, Change]] = {
    "trivial": (7, trivial.change),
    "brightness": (8, change_brightness),
    "contrast": (9, change_contrast),
    "saturation": (10, change_saturation),
    "hue": (11, change_hue),
    "noise": (12, add_noise),
    "erasing": (13, erase),
}
"""By the name of the option, in the order in which they are applied: the number of its stream of
draws, which never changes, and the operation. What TrivialAugment draws is one of either.
"""


def _stream(seed: tf.Tensor, number: int) -> tf.Tensor:
    """An independent seed for each operation."""
    return tf.random.experimental.stateless_fold_in(seed, number)


def _within(size: tf.Tensor, start: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """Which of `size` pixels have their middle in a range."""
    middles = tf.cast(tf.range(size), tf.float32) + 0.5
    return (middles >= start) & (middles < start + length)
