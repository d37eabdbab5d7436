"""What operations on pixels share."""

from collections.abc import Sequence

import tensorflow as tf


def to_uint8(pixels: tf.Tensor) -> tf.Tensor:
    """Rounded, and cut off at 0 and 255."""
    return tf.cast(tf.clip_by_value(tf.round(pixels), 0, 255), tf.uint8)


def affine(
    image: tf.Tensor, matrix: Sequence[tf.Tensor | float], *, around_middle: bool = False
) -> tf.Tensor:
    """Draw an image anew, bilinear, with its border repeated.

    Args:
        image: uint8 `[height, width, channels]`.
        matrix: a, b, c, d, e, f: the new pixel (column, row) is the old one at
            (a column + b row + c, d column + e row + f).
        around_middle: columns and rows are counted from the middle.
    """
    a, b, c, d, e, f = (tf.cast(value, tf.float32) for value in matrix)
    if around_middle:
        size = tf.cast(tf.shape(image)[:2] - 1, tf.float32)
        y, x = size[0] / 2, size[1] / 2
        c, f = c + x - a * x - b * y, f + y - d * x - e * y
    nothing = tf.constant(0.0)
    drawn = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(image, tf.float32)[None],
        transforms=tf.stack([a, b, c, d, e, f, nothing, nothing])[None],
        output_shape=tf.shape(image)[:2],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )[0]
    return to_uint8(drawn)
