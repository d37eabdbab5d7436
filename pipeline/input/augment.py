"""Random changes to one training image, as pure functions of (image, seed).

Every operation takes and returns uint8 `[height, width, channels]` of the same shape. `seed` is an
int64 `[2]` tensor; the stateless operations of TensorFlow make the same draw from the same seed, so
an image's augmentation depends on (run seed, epoch, example) and on nothing else. None of this
enters an exported graph.
"""

import math

import tensorflow as tf

from pipeline.config import AugmentOptions


def augment(image: tf.Tensor, seed: tf.Tensor, options: AugmentOptions) -> tf.Tensor:
    """Apply every operation that `options` turns on, each with its own draw from `seed`."""
    if options.rotation:
        image = rotate(image, _stream(seed, 0), options.rotation)
    if options.crop_padding:
        image = crop_with_padding(image, _stream(seed, 1), options.crop_padding)
    if options.horizontal_flip:
        image = flip_horizontally(image, _stream(seed, 2))
    return image


def is_active(options: AugmentOptions) -> bool:
    """Whether any operation is turned on."""
    return bool(options.rotation or options.crop_padding or options.horizontal_flip)


def crop_with_padding(image: tf.Tensor, seed: tf.Tensor, padding: int) -> tf.Tensor:
    """Pad each side by `padding` pixels, repeating the border, and cut the original size out."""
    rows, columns = tf.unstack(
        tf.random.stateless_uniform([2], seed, -padding, padding + 1, dtype=tf.int32)
    )
    # Clamped indices are border padding and crop in one gather.
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    image = tf.gather(image, tf.clip_by_value(tf.range(height) + rows, 0, height - 1), axis=0)
    return tf.gather(image, tf.clip_by_value(tf.range(width) + columns, 0, width - 1), axis=1)


def flip_horizontally(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Mirror left and right with probability 1/2."""
    return tf.image.stateless_random_flip_left_right(image, seed)


def rotate(image: tf.Tensor, seed: tf.Tensor, degrees: float) -> tf.Tensor:
    """Rotate around the middle by up to `degrees` either way; bilinear, border repeated."""
    limit = math.radians(degrees)
    angle = tf.random.stateless_uniform([], seed, -limit, limit)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    shape = tf.cast(tf.shape(image), tf.float32)
    y, x = (shape[0] - 1) / 2, (shape[1] - 1) / 2
    # Output pixel (column, row) reads input (a*column + b*row + c, d*column + e*row + f).
    transform = [
        cosine, -sine, x - x * cosine + y * sine,
        sine, cosine, y - x * sine - y * cosine,
        0.0, 0.0,
    ]  # fmt: skip
    rotated = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(image, tf.float32)[None],
        transforms=tf.stack(transform)[None],
        output_shape=tf.shape(image)[:2],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )[0]
    return tf.cast(tf.round(rotated), tf.uint8)


def _stream(seed: tf.Tensor, number: int) -> tf.Tensor:
    """An independent seed for each operation."""
    return tf.random.experimental.stateless_fold_in(seed, number)
