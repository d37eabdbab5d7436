"""What operations on pixels share.

Between the first operation and the last, pixels are float32 from 0 to 255 and are not rounded:
uint8 comes in, and uint8 goes out.
"""

import tensorflow as tf


def to_uint8(pixels: tf.Tensor) -> tf.Tensor:
    """Rounded, and cut off at 0 and 255; what is uint8 already stays as it is."""
    if pixels.dtype == tf.uint8:
        return pixels
    return tf.cast(tf.round(within_range(pixels)), tf.uint8)


def within_range(pixels: tf.Tensor) -> tf.Tensor:
    """Cut off at 0 and 255."""
    return tf.clip_by_value(pixels, 0, 255)


def grey(pixels: tf.Tensor) -> tf.Tensor:
    """The luma of float pixels (ITU-R BT.601), with one channel."""
    if pixels.shape[-1] != 3:
        return tf.reduce_mean(pixels, axis=-1, keepdims=True)
    return tf.reduce_sum(pixels * [0.299, 0.587, 0.114], axis=-1, keepdims=True)


def blend(pixels: tf.Tensor, ground: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """`ground + share * (pixels - ground)`: towards the ground below 1, away from it above."""
    return within_range(ground + share * (pixels - ground))
