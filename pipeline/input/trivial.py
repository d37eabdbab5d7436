"""TrivialAugment: one operation, drawn with the same chance as any other, at a strength drawn anew.

Source: Müller and Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation",
2021, the space "wide" of their table 6. What has two directions goes either way. Pixels that come
from outside the image repeat its border, as elsewhere here; the paper fills them with grey.
"""

import math
from collections.abc import Callable

import tensorflow as tf

from pipeline.input.pixels import affine, to_uint8

Pixels = tf.Tensor
Change = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""From an image, uint8 `[height, width, channels]`, and a strength from -1 to 1."""


def augment(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Apply one of `CHANGES`, drawn from `seed` with its strength."""
    which, strength = tf.unstack(tf.random.stateless_uniform([2], seed))
    number = tf.cast(which * len(CHANGES), tf.int32)
    branches = [
        lambda change=change: change(image, 2 * strength - 1) for change in CHANGES.values()
    ]
    changed = tf.switch_case(number, branches)
    changed.set_shape(image.shape)
    return changed


def grey(pixels: tf.Tensor) -> tf.Tensor:
    """The luma of float pixels (ITU-R BT.601), with one channel."""
    if pixels.shape[-1] != 3:
        return tf.reduce_mean(pixels, axis=-1, keepdims=True)
    return tf.reduce_sum(pixels * [0.299, 0.587, 0.114], axis=-1, keepdims=True)


def auto_contrast(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Stretch each channel from its darkest and brightest values to 0 and 255."""
    pixels = tf.cast(image, tf.float32)
    low = tf.reduce_min(pixels, axis=(0, 1))
    high = tf.reduce_max(pixels, axis=(0, 1))
    stretched = (pixels - low) * 255 / tf.maximum(high - low, 1)
    return tf.where(high > low, to_uint8(stretched), image)


def equalize(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Spread the values of each channel evenly, as Pillow does."""
    channels = [_equalized(channel) for channel in tf.unstack(image, axis=-1)]
    return tf.stack(channels, axis=-1)


def _equalized(channel: tf.Tensor) -> tf.Tensor:
    values = tf.cast(channel, tf.int32)
    counts = tf.math.bincount(tf.reshape(values, [-1]), minlength=256)
    present = tf.boolean_mask(counts, counts > 0)
    step = (tf.reduce_sum(counts) - present[-1]) // 255
    before = tf.cumsum(counts, exclusive=True)
    table = tf.clip_by_value((before + step // 2) // tf.maximum(step, 1), 0, 255)
    spread = tf.cast(tf.gather(table, values), tf.uint8)
    return tf.where((step > 0) & (tf.size(present) > 1), spread, channel)


def solarize(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Invert every value that is not below a threshold: 255 to 0 for the strengths 0 to 1."""
    threshold = tf.cast(tf.round(255 * (1 - tf.abs(strength))), tf.int32)
    return tf.where(tf.cast(image, tf.int32) < threshold, image, 255 - image)


def posterize(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Keep the upper 8 to 2 bits of every value."""
    dropped = tf.cast(tf.round(6 * tf.abs(strength)), tf.uint8)
    return tf.bitwise.left_shift(tf.bitwise.right_shift(image, dropped), dropped)


def _towards(image: tf.Tensor, ground: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Away from what an operation would make of the image, or towards it: 0.01 to 1.99 times."""
    pixels = tf.cast(image, tf.float32)
    return to_uint8(ground + (pixels - ground) * (1 + 0.99 * strength))


def color(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Less or more saturation."""
    return _towards(image, grey(tf.cast(image, tf.float32)), strength)


def contrast(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Nearer to the mean grey, or farther from it."""
    return _towards(image, tf.reduce_mean(grey(tf.cast(image, tf.float32))), strength)


def brightness(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Darker or brighter."""
    return _towards(image, tf.constant(0.0), strength)


def sharpness(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """More blurred or sharper; the border, which has too few neighbours, stays."""
    pixels = tf.cast(image, tf.float32)
    channels = image.shape[-1]
    weights = tf.constant([[1, 1, 1], [1, 5, 1], [1, 1, 1]], tf.float32)[:, :, None, None] / 13
    kernel = tf.tile(weights, [1, 1, channels, 1])
    inner = tf.nn.depthwise_conv2d(pixels[None], kernel, [1, 1, 1, 1], "VALID")[0]
    padded = tf.pad(inner, [[1, 1], [1, 1], [0, 0]])
    is_inner = tf.pad(tf.ones_like(inner, tf.bool), [[1, 1], [1, 1], [0, 0]])
    return _towards(image, tf.where(is_inner, tf.round(padded), pixels), strength)


def rotate(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """By up to 135 degrees."""
    angle = math.radians(135) * strength
    cosine, sine = tf.cos(angle), tf.sin(angle)
    return affine(image, [cosine, -sine, 0.0, sine, cosine, 0.0], around_middle=True)


def shear_x(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """By up to 0.99 of the distance from the first row."""
    return affine(image, [1.0, 0.99 * strength, 0.0, 0.0, 1.0, 0.0])


def shear_y(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """By up to 0.99 of the distance from the first column."""
    return affine(image, [1.0, 0.0, 0.0, 0.99 * strength, 1.0, 0.0])


def translate_x(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """By up to 32 pixels, or the whole width of smaller images."""
    most = tf.minimum(32.0, tf.cast(tf.shape(image)[1], tf.float32))
    return affine(image, [1.0, 0.0, tf.round(most * strength), 0.0, 1.0, 0.0])


def translate_y(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """By up to 32 pixels, or the whole height of smaller images."""
    most = tf.minimum(32.0, tf.cast(tf.shape(image)[0], tf.float32))
    return affine(image, [1.0, 0.0, 0.0, 0.0, 1.0, tf.round(most * strength)])


def identity(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Nothing."""
    return tf.identity(image)


CHANGES: dict[str, Change] = {
    "identity": identity,
    "auto_contrast": auto_contrast,
    "equalize": equalize,
    "rotate": rotate,
    "solarize": solarize,
    "color": color,
    "posterize": posterize,
    "contrast": contrast,
    "brightness": brightness,
    "sharpness": sharpness,
    "shear_x": shear_x,
    "shear_y": shear_y,
    "translate_x": translate_x,
    "translate_y": translate_y,
}
