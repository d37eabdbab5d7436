"""TrivialAugment: one operation, drawn with the same chance as any other, at a strength drawn anew.

Source: Müller and Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation",
2021, the space "wide" of their table 6. What has two directions goes either way. Pixels that come
from outside the image repeat its border, as elsewhere here; the paper fills them with grey.
"""

import math
from collections.abc import Callable

import tensorflow as tf

from pipeline.input.geometry import Move, affine, moved, turned
from pipeline.input.pixels import blend, grey, to_uint8

Change = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""From pixels, float32 `[height, width, channels]`, and a strength from -1 to 1."""

NAMES = (
    *("identity", "auto_contrast", "equalize", "rotate", "solarize", "color", "posterize"),
    *("contrast", "brightness", "sharpness", "shear_x", "shear_y", "translate_x", "translate_y"),
)
"""The operations; one is drawn by its number, so their order never changes."""


def draw(seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The number of an operation and a strength from -1 to 1."""
    which, strength = tf.unstack(tf.random.stateless_uniform([2], seed))
    return tf.cast(which * len(NAMES), tf.int32), 2 * strength - 1


def change(pixels: tf.Tensor, seed: tf.Tensor, strength: float = 1) -> tf.Tensor:
    """What the operation that is drawn makes of the pixels; that of a move, nothing."""
    number, drawn = draw(seed)
    changes = [CHANGES.get(name, unchanged) for name in NAMES]
    branches = [lambda change=change: change(pixels, drawn) for change in changes]
    changed = tf.switch_case(number, branches)
    changed.set_shape(pixels.shape)
    return changed


# Moves


def _draw_move(seed: tf.Tensor, strength: float) -> tf.Tensor:
    """The operation's number, its strength, and the cosine and sine of a rotation of it."""
    number, drawn = draw(seed)
    angle = math.radians(135) * drawn
    return tf.stack([tf.cast(number, tf.float32), drawn, tf.cos(angle), tf.sin(angle)])


def _matrices(draws: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Those of the operations drawn; the identity for one that moves no pixel."""
    number, strength, cosine, sine = tf.unstack(draws, axis=1)
    most = tf.minimum(32.0, size)
    matrices = tf.tile(tf.eye(3)[None], [tf.shape(draws)[0], 1, 1])
    for name, moved_so in {
        "rotate": turned(cosine, sine, size),
        "shear_x": affine([1.0, 0.99 * strength, 0.0, 0.0, 1.0, 0.0]),
        "shear_y": affine([1.0, 0.0, 0.0, 0.99 * strength, 1.0, 0.0]),
        "translate_x": moved(0.0, tf.round(most[1] * strength)),
        "translate_y": moved(tf.round(most[0] * strength), 0.0),
    }.items():
        is_drawn = tf.equal(number, float(NAMES.index(name)))
        matrices = tf.where(is_drawn[:, None, None], moved_so, matrices)
    return matrices


MOVE = Move(4, _draw_move, _matrices)
"""Rotate by up to 135 degrees around the middle, shear by up to 0.99 of the distance from the first
row or column, or move by up to 32 whole pixels (of smaller images: their width or height).
"""


# Changes of values


def unchanged(pixels: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """As they are."""
    return tf.identity(pixels)


def auto_contrast(pixels: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Stretch each channel from its darkest and brightest values to 0 and 255.

    A channel whose values are less than a grey step apart stays: Pillow sees one value there.
    """
    low = tf.reduce_min(pixels, axis=(0, 1))
    reach = tf.reduce_max(pixels, axis=(0, 1)) - low
    return tf.where(reach >= 1, (pixels - low) * 255 / tf.maximum(reach, 1), pixels)


def equalize(pixels: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Spread the values of each channel evenly, as Pillow does; by a histogram of whole values."""
    channels = [_equalized(channel) for channel in tf.unstack(to_uint8(pixels), axis=-1)]
    return tf.cast(tf.stack(channels, axis=-1), tf.float32)


def _equalized(channel: tf.Tensor) -> tf.Tensor:
    values = tf.cast(channel, tf.int32)
    counts = tf.math.bincount(tf.reshape(values, [-1]), minlength=256)
    present = tf.boolean_mask(counts, counts > 0)
    step = (tf.reduce_sum(counts) - present[-1]) // 255
    before = tf.cumsum(counts, exclusive=True)
    table = tf.clip_by_value((before + step // 2) // tf.maximum(step, 1), 0, 255)
    return tf.where((step > 0) & (tf.size(present) > 1), tf.gather(table, values), values)


def solarize(pixels: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Invert every value that is not below a threshold: 255 to 0 for the strengths 0 to 1."""
    return tf.where(pixels < tf.round(255 * (1 - tf.abs(strength))), pixels, 255 - pixels)


def posterize(pixels: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Keep the upper 8 to 2 bits of every value, of whole ones since others have no bits."""
    dropped = tf.cast(tf.round(6 * tf.abs(strength)), tf.uint8)
    kept = tf.bitwise.left_shift(tf.bitwise.right_shift(to_uint8(pixels), dropped), dropped)
    return tf.cast(kept, tf.float32)


def color(pixels: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Less or more saturation."""
    return _enhanced(pixels, grey(pixels), strength)


def contrast(pixels: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Nearer to the mean grey, or farther from it."""
    return _enhanced(pixels, tf.reduce_mean(grey(pixels)), strength)


def brightness(pixels: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Darker or brighter."""
    return _enhanced(pixels, tf.constant(0.0), strength)


def sharpness(pixels: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """More blurred or sharper; the border, which has too few neighbours, stays."""
    weights = tf.constant([[1, 1, 1], [1, 5, 1], [1, 1, 1]], tf.float32)[:, :, None, None] / 13
    kernel = tf.tile(weights, [1, 1, pixels.shape[-1], 1])
    inner = tf.nn.depthwise_conv2d(pixels[None], kernel, [1, 1, 1, 1], "VALID")[0]
    padding = [[1, 1], [1, 1], [0, 0]]
    is_inner = tf.pad(tf.ones_like(inner, tf.bool), padding)
    return _enhanced(pixels, tf.where(is_inner, tf.pad(inner, padding), pixels), strength)


def _enhanced(pixels: tf.Tensor, ground: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """What Pillow's `ImageEnhance` does with factors from 0.01 to 1.99."""
    return blend(pixels, ground, 1 + 0.99 * strength)


CHANGES: dict[str, Change] = {
    "auto_contrast": auto_contrast,
    "equalize": equalize,
    "solarize": solarize,
    "color": color,
    "posterize": posterize,
    "contrast": contrast,
    "brightness": brightness,
    "sharpness": sharpness,
}
