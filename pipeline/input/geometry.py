"""Where the pixels of images come from: each move is a matrix, and all moves of an image are one.

Matrices are float32 `[batch, 3, 3]`: the new pixel at (column, row, 1) is the old one at matrix
times that vector, where 0 is the middle of the first pixel. Moves that are made one after another
are the product of their matrices, in that order. So an image is resampled once, however many moves
there are: it is no more blurred than by one, and what a move pushes out of sight and the next one
brings back is there. Moves by whole pixels and mirrorings give the very pixels of the image.

What is random in a move is drawn for each image by itself, sines and roots included. Matrices are
then made for the whole batch, by additions, multiplications and divisions alone: IEEE 754 fixes
their results to the last bit, so that an image's matrix does not depend on the batch around it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import tensorflow as tf

Number: TypeAlias = tf.Tensor | float
"""One for each image, float32 `[batch]`, or one for all."""


@dataclass(frozen=True)
class Move:
    """A kind of move.

    Attributes:
        numbers: how many numbers say what is random in it.
        draw: from a seed (int64 `[2]`) and a strength to these numbers, float32 `[numbers]`.
        matrices: from the numbers of all images, float32 `[batch, numbers]`, and the height and
            width of an image, float32 `[2]`, to matrices.
        is_whole: whether it only mirrors, and moves by whole pixels.
    """

    numbers: int
    draw: Callable[[tf.Tensor, float], tf.Tensor]
    matrices: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    is_whole: bool = False


def resample(images: tf.Tensor, matrices: tf.Tensor) -> tf.Tensor:
    """Draw each image anew by its matrix: bilinear, its border repeated, not rounded.

    Args:
        images: float32 `[batch, height, width, channels]`.

    Returns:
        float32, shaped like `images`; no value is beyond those of its image.
    """
    # The last row of an affine matrix is 0, 0, 1; TensorFlow takes the eight numbers before the 1.
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.reshape(matrices, [-1, 9])[:, :8],
        output_shape=tf.shape(images)[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )


def rearrange(images: tf.Tensor, matrices: tf.Tensor) -> tf.Tensor:
    """What `resample` gives for matrices of whole moves, in less time.

    Args:
        images: `[batch, height, width, channels]` of any type.

    Returns:
        Pixels of the images, of their type.
    """
    for axis, place in ((2, 0), (1, 1)):
        size = tf.shape(images)[axis]
        sign, offset = matrices[:, place, place, None], matrices[:, place, 2, None]
        old = sign * tf.range(tf.cast(size, tf.float32)) + offset
        indices = tf.clip_by_value(tf.cast(old, tf.int32), 0, size - 1)
        images = tf.gather(images, indices, axis=axis, batch_dims=1)
    return images


def composed(matrices: Sequence[tf.Tensor]) -> tf.Tensor:
    """The matrices of moves that are made one after another."""
    total, *others = matrices
    for other in others:
        # Not `matmul`, which adds in whatever order is fastest for the batch.
        first, second, third = (
            total[:, :, place, None] * other[:, place, None, :] for place in range(3)
        )
        total = first + second + third
    return total


def affine(numbers: Sequence[Number]) -> tf.Tensor:
    """From a, b, c, d, e, f: the new (column, row) is the old (a column + b row + c, d column + e
    row + f).
    """
    nothing = tf.zeros_like(sum(numbers))
    rows = tf.stack([nothing + number for number in (*numbers, 0.0, 0.0, 1.0)], axis=-1)
    return tf.reshape(rows, [-1, 3, 3])


def around_middle(numbers: Sequence[Number], size: tf.Tensor) -> tf.Tensor:
    """Of a, b, d, e, where columns and rows are counted from the middle of the image."""
    a, b, d, e = numbers
    y, x = tf.unstack((size - 1) / 2)
    return affine([a, b, x - a * x - b * y, d, e, y - d * x - e * y])


def turned(cosine: tf.Tensor, sine: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Around the middle, by the angle that has this cosine and sine."""
    return around_middle([cosine, -sine, sine, cosine], size)


def moved(rows: Number, columns: Number) -> tf.Tensor:
    """By so many pixels: the old image from this row and column on."""
    return affine([1.0, 0.0, columns, 0.0, 1.0, rows])


def _draw_offsets(seed: tf.Tensor, padding: float) -> tf.Tensor:
    most = int(padding)
    offsets = tf.random.stateless_uniform([2], seed, -most, most + 1, dtype=tf.int32)
    return tf.cast(offsets, tf.float32)


def _draw_window(seed: tf.Tensor, smallest: float) -> tf.Tensor:
    """Height, width, and where it lies in what is left of the height and of the width."""
    area, shape, row, column = tf.unstack(tf.random.stateless_uniform([4], seed))
    area = 1 - (1 - smallest) * area
    widest = tf.minimum(math.log(4 / 3), -tf.math.log(area))
    shape = tf.exp((2 * shape - 1) * widest)
    return tf.stack([tf.sqrt(area / shape), tf.sqrt(area * shape), row, column])


def _of_window(draws: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    height, width, row, column = tf.unstack(draws, axis=1)
    top, left = row * (1 - height) * size[0], column * (1 - width) * size[1]
    # A pixel's edge is half a pixel before its middle: edges are mapped to edges.
    return affine([width, 0.0, left + (width - 1) / 2, 0.0, height, top + (height - 1) / 2])


def _draw_sign(seed: tf.Tensor, strength: float) -> tf.Tensor:
    return tf.where(tf.random.stateless_uniform([1], seed) < 0.5, -1.0, 1.0)


def _mirrored(draws: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    sign = draws[:, 0]
    return affine([sign, 0.0, (1 - sign) / 2 * (size[1] - 1), 0.0, 1.0, 0.0])


def _upside_down(draws: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    sign = draws[:, 0]
    return affine([1.0, 0.0, 0.0, 0.0, sign, (1 - sign) / 2 * (size[0] - 1)])


def _draw_angle(seed: tf.Tensor, degrees: float) -> tf.Tensor:
    angle = either_way(seed, math.radians(degrees))
    return tf.stack([tf.cos(angle), tf.sin(angle)])


def _draw_shares(seed: tf.Tensor, share: float) -> tf.Tensor:
    return tf.random.stateless_uniform([2], seed, -share, share)


def _draw_factor(seed: tf.Tensor, share: float) -> tf.Tensor:
    return 1 / (1 + tf.reshape(either_way(seed, share), [1]))


def _enlarged(draws: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    factor = draws[:, 0]
    return around_middle([factor, 0.0, 0.0, factor], size)


CROP = Move(2, _draw_offsets, lambda draws, size: moved(draws[:, 0], draws[:, 1]), is_whole=True)
"""Pad each side by so many pixels, repeating the border, and cut the original size out."""

RESIZED_CROP = Move(4, _draw_window, _of_window)
"""Cut out a part of at least this share of the area, and enlarge it to the whole.

The share is drawn evenly. Width over height, as shares of the image's, is drawn from 3/4 to 4/3 by
its logarithm, as far as a part of this area fits into the image.

Source: Szegedy et al., "Going Deeper with Convolutions", 2015, section 6.
"""

HORIZONTAL_FLIP = Move(1, _draw_sign, _mirrored, is_whole=True)
"""Mirror left and right with probability 1/2."""

VERTICAL_FLIP = Move(1, _draw_sign, _upside_down, is_whole=True)
"""Mirror up and down with probability 1/2."""

ROTATION = Move(2, _draw_angle, lambda draws, size: turned(draws[:, 0], draws[:, 1], size))
"""Rotate around the middle by up to so many degrees either way."""

TRANSLATION = Move(
    2, _draw_shares, lambda draws, size: moved(draws[:, 0] * size[0], draws[:, 1] * size[1])
)
"""Move by up to this share of height and width."""

ZOOM = Move(1, _draw_factor, _enlarged)
"""Enlarge or shrink around the middle by a factor from 1 - share to 1 + share."""


def either_way(seed: tf.Tensor, most: float) -> tf.Tensor:
    """A number from -`most` to `most`."""
    return tf.random.stateless_uniform([], seed, -most, most)
