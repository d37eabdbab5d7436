"""Mixing the images of a batch with one another, and their targets likewise.

A batch is mixed with itself moved on by one place; its order is random as it is. What is drawn is
drawn for a whole batch, from its seed alone.
"""

import tensorflow as tf

from pipeline.input.pixels import to_uint8
from pipeline.options.augment import AugmentOptions

Batch = tuple[tf.Tensor, tf.Tensor]
"""Pixels `[batch, height, width, channels]`, and float32 targets `[batch, classes]`.

Pixels come as uint8, or as float32 that is not rounded yet, and leave as uint8.
"""


def mix(images: tf.Tensor, targets: tf.Tensor, seed: tf.Tensor, options: AugmentOptions) -> Batch:
    """What `options` turn on; of both, one or the other with the same chance."""
    if options.mixup and options.cutmix:
        return tf.cond(  # type: ignore[no-any-return]
            tf.random.stateless_uniform([], _fold(seed, 2)) < 0.5,
            lambda: mixup(images, targets, seed, options.mixup),
            lambda: cutmix(images, targets, seed, options.cutmix),
        )
    if options.mixup:
        return mixup(images, targets, seed, options.mixup)
    if options.cutmix:
        return cutmix(images, targets, seed, options.cutmix)
    return to_uint8(images), targets


def mixup(images: tf.Tensor, targets: tf.Tensor, seed: tf.Tensor, alpha: float) -> Batch:
    """The weighted mean of two images, and of their targets.

    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2017; the weight is drawn
    from Beta(alpha, alpha).
    """
    share = _beta(seed, alpha)
    pixels = tf.cast(images, tf.float32)
    return to_uint8(_weighed(pixels, share)), _weighed(targets, share)


def cutmix(images: tf.Tensor, targets: tf.Tensor, seed: tf.Tensor, alpha: float) -> Batch:
    """A rectangle from the other image; targets are weighed by area.

    Source: Yun et al., "CutMix", 2019: the area is drawn from Beta(alpha, alpha), the middle evenly
    over the image; what is cut off at the border counts for neither.
    """
    share = _beta(seed, alpha)
    middle = tf.random.stateless_uniform([2], _fold(seed, 1))
    size = tf.cast(tf.shape(images)[1:3], tf.float32)
    half = size * tf.sqrt(1 - share) / 2
    low = tf.round(tf.maximum(middle * size - half, 0))
    high = tf.round(tf.minimum(middle * size + half, size))
    rows, columns = (
        (places >= low[axis]) & (places < high[axis])
        for axis in (0, 1)
        for places in [tf.range(size[axis], dtype=tf.float32)]
    )
    is_cut = rows[None, :, None, None] & columns[None, None, :, None]
    kept = 1 - tf.reduce_prod((high - low) / size)
    images = to_uint8(images)
    return tf.where(is_cut, tf.roll(images, 1, axis=0), images), _weighed(targets, kept)


def _fold(seed: tf.Tensor, number: int) -> tf.Tensor:
    """An independent seed."""
    return tf.random.experimental.stateless_fold_in(seed, number)


def _weighed(values: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    return share * values + (1 - share) * tf.roll(values, 1, axis=0)


def _beta(seed: tf.Tensor, alpha: float) -> tf.Tensor:
    """A draw from Beta(alpha, alpha), by two from the gamma distribution."""
    one, other = tf.unstack(tf.random.stateless_gamma([2], seed, alpha))
    total = one + other  # both may be too small for float32 where alpha is
    return tf.where(total > 0, one / tf.where(total > 0, total, 1.0), 1.0)
