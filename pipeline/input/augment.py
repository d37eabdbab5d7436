"""Random changes to one training image, as pure functions of (image, seed).

Every operation takes and returns uint8 `[height, width, channels]` of the same shape. `seed` is an
int64 `[2]` tensor; the stateless operations of TensorFlow make the same draw from the same seed, so
an image's augmentation depends on (run seed, epoch, example) and on nothing else. None of this
enters an exported graph.
"""

import math
from collections.abc import Callable

import tensorflow as tf

from pipeline.input import trivial
from pipeline.input.pixels import affine, to_uint8
from pipeline.options.augment import AugmentOptions

Operation = Callable[[tf.Tensor, tf.Tensor, float], tf.Tensor]
"""From an image, a seed and a strength."""


def augment(image: tf.Tensor, seed: tf.Tensor, options: AugmentOptions) -> tf.Tensor:
    """Apply every operation that `options` turns on, each with its own draw from `seed`."""
    for name, (stream, operation) in OPERATIONS.items():
        if strength := getattr(options, name):
            image = operation(image, _stream(seed, stream), strength)
    return image


def is_active(options: AugmentOptions) -> bool:
    """Whether any operation is turned on."""
    return any(getattr(options, name) for name in OPERATIONS)


def crop_with_padding(image: tf.Tensor, seed: tf.Tensor, padding: float) -> tf.Tensor:
    """Pad each side by `padding` pixels, repeating the border, and cut the original size out."""
    most = int(padding)
    rows, columns = tf.unstack(
        tf.random.stateless_uniform([2], seed, -most, most + 1, dtype=tf.int32)
    )
    # Clamped indices are border padding and crop in one gather.
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    image = tf.gather(image, tf.clip_by_value(tf.range(height) + rows, 0, height - 1), axis=0)
    return tf.gather(image, tf.clip_by_value(tf.range(width) + columns, 0, width - 1), axis=1)


def resized_crop(image: tf.Tensor, seed: tf.Tensor, left_out: float) -> tf.Tensor:
    """Cut out a part of 1 - `left_out` to all of the area, of a shape up to a third longer either
    way, and enlarge it to the whole; bilinear.

    Source: Szegedy et al., "Going Deeper with Convolutions", 2015, section 6.
    """
    area, shape, row, column = tf.unstack(tf.random.stateless_uniform([4], seed))
    area = 1 - left_out * area
    shape = tf.exp((2 * shape - 1) * math.log(4 / 3))
    height = tf.minimum(tf.sqrt(area / shape), 1.0)
    width = tf.minimum(tf.sqrt(area * shape), 1.0)
    size = tf.cast(tf.shape(image)[:2] - 1, tf.float32)
    top, left = row * (1 - height) * size[0], column * (1 - width) * size[1]
    return affine(image, [width, 0.0, left, 0.0, height, top])


def flip_horizontally(image: tf.Tensor, seed: tf.Tensor, strength: float = 1) -> tf.Tensor:
    """Mirror left and right with probability 1/2."""
    return tf.image.stateless_random_flip_left_right(image, seed)


def flip_vertically(image: tf.Tensor, seed: tf.Tensor, strength: float = 1) -> tf.Tensor:
    """Mirror up and down with probability 1/2."""
    return tf.image.stateless_random_flip_up_down(image, seed)


def rotate(image: tf.Tensor, seed: tf.Tensor, degrees: float) -> tf.Tensor:
    """Rotate around the middle by up to `degrees` either way; bilinear, border repeated."""
    angle = _either_way(seed, math.radians(degrees))
    cosine, sine = tf.cos(angle), tf.sin(angle)
    return affine(image, [cosine, -sine, 0.0, sine, cosine, 0.0], around_middle=True)


def translate(image: tf.Tensor, seed: tf.Tensor, share: float) -> tf.Tensor:
    """Move by up to `share` of width and height; bilinear, border repeated."""
    down, right = tf.unstack(tf.random.stateless_uniform([2], seed, -share, share))
    size = tf.cast(tf.shape(image)[:2], tf.float32)
    return affine(image, [1.0, 0.0, right * size[1], 0.0, 1.0, down * size[0]])


def zoom(image: tf.Tensor, seed: tf.Tensor, share: float) -> tf.Tensor:
    """Enlarge or shrink around the middle by a factor from 1 - `share` to 1 + `share`."""
    factor = 1 / (1 + _either_way(seed, share))
    return affine(image, [factor, 0.0, 0.0, 0.0, factor, 0.0], around_middle=True)


def change_brightness(image: tf.Tensor, seed: tf.Tensor, share: float) -> tf.Tensor:
    """Multiply by a factor from 1 - `share` to 1 + `share`."""
    return to_uint8(tf.cast(image, tf.float32) * (1 + _either_way(seed, share)))


def change_contrast(image: tf.Tensor, seed: tf.Tensor, share: float) -> tf.Tensor:
    """Multiply the distance from the image's mean grey by a factor drawn likewise."""
    pixels = tf.cast(image, tf.float32)
    mean = tf.reduce_mean(trivial.grey(pixels))
    return to_uint8(mean + (pixels - mean) * (1 + _either_way(seed, share)))


def change_saturation(image: tf.Tensor, seed: tf.Tensor, share: float) -> tf.Tensor:
    """Multiply each pixel's distance from its grey by a factor drawn likewise; RGB alone."""
    if image.shape[-1] != 3:
        return image
    pixels = tf.cast(image, tf.float32)
    ground = trivial.grey(pixels)
    return to_uint8(ground + (pixels - ground) * (1 + _either_way(seed, share)))


def change_hue(image: tf.Tensor, seed: tf.Tensor, share: float) -> tf.Tensor:
    """Turn the hue by up to `share` of the circle, either way; RGB alone."""
    if image.shape[-1] != 3:
        return image
    pixels = tf.cast(image, tf.float32) / 255
    return to_uint8(255 * tf.image.adjust_hue(pixels, _either_way(seed, share)))


def add_noise(image: tf.Tensor, seed: tf.Tensor, deviation: float) -> tf.Tensor:
    """Add Gaussian noise to every value, in grey steps."""
    noise = tf.random.stateless_normal(tf.shape(image), seed, stddev=deviation)
    return to_uint8(tf.cast(image, tf.float32) + noise)


def erase(image: tf.Tensor, seed: tf.Tensor, probability: float) -> tf.Tensor:
    """Fill a rectangle of 2 to 40 % of the area with noise.

    Source: Zhong et al., "Random Erasing Data Augmentation", 2017, algorithm 1: shapes of 0.3 to
    1 / 0.3, drawn here by their logarithm, and cut off at the border instead of drawn again.
    """
    chance, area, shape, row, column = tf.unstack(tf.random.stateless_uniform([5], seed))
    size = tf.cast(tf.shape(image)[:2], tf.float32)
    area = (0.02 + 0.38 * area) * size[0] * size[1]
    shape = tf.exp((2 * shape - 1) * math.log(1 / 0.3))
    height = tf.minimum(tf.sqrt(area * shape), size[0])
    width = tf.minimum(tf.sqrt(area / shape), size[1])
    rows, columns = (
        _within(tf.shape(image)[axis], start * (size[axis] - length), length)
        for axis, start, length in ((0, row, height), (1, column, width))
    )
    noise = tf.random.stateless_uniform(tf.shape(image), _stream(seed, 0), 0, 256, dtype=tf.int32)
    is_erased = rows[:, None, None] & columns[None, :, None] & (chance < probability)
    return tf.where(is_erased, tf.cast(noise, tf.uint8), image)


def apply_trivial(image: tf.Tensor, seed: tf.Tensor, strength: float = 1) -> tf.Tensor:
    """TrivialAugment; see `pipeline.input.trivial`."""
    return trivial.augment(image, seed)


OPERATIONS: dict[str, tuple[int, Operation]] = {
    "resized_crop": (3, resized_crop),
    "rotation": (0, rotate),
    "zoom": (4, zoom),
    "translation": (5, translate),
    "crop_padding": (1, crop_with_padding),
    "horizontal_flip": (2, flip_horizontally),
    "vertical_flip": (6, flip_vertically),
    "trivial": (7, apply_trivial),
    "brightness": (8, change_brightness),
    "contrast": (9, change_contrast),
    "saturation": (10, change_saturation),
    "hue": (11, change_hue),
    "noise": (12, add_noise),
    "erasing": (13, erase),
}
"""By the name of the option, in the order in which they are applied: the number of its stream of
draws, which never changes, and the operation."""


def _stream(seed: tf.Tensor, number: int) -> tf.Tensor:
    """An independent seed for each operation."""
    return tf.random.experimental.stateless_fold_in(seed, number)


def _either_way(seed: tf.Tensor, most: float) -> tf.Tensor:
    return tf.random.stateless_uniform([], seed, -most, most)


def _within(size: tf.Tensor, start: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """Which of `size` pixels have their middle in a range."""
    middles = tf.cast(tf.range(size), tf.float32) + 0.5
    return (middles >= start) & (middles < start + length)
