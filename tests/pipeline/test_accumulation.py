"""A batch that is computed in parts gives the gradient of the whole."""

from collections.abc import Iterator

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

import models
from models.options import CnnOptions
from pipeline.input.batches import Examples, training_batches, training_parts
from pipeline.options.augment import AugmentOptions
from pipeline.options.losses import CrossEntropyOptions
from pipeline.options.optimizers import MomentumOptions, OptimizerOptions, SgdOptions
from pipeline.training.accumulation import accumulating_step
from pipeline.training.build import build_variables
from pipeline.training.losses import build_loss
from pipeline.training.optimizers import build_optimizer

SHAPE, CLASSES = (6, 6, 1), 3
AUGMENTATION = AugmentOptions(horizontal_flip=True, rotation=20, mixup=0.4)


def examples(count: int = 23) -> Examples:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, *SHAPE), dtype=np.uint8)
    labels = generator.integers(0, CLASSES, count)
    return Examples(images, labels, np.arange(count), CLASSES)


def compiled(optimizer: OptimizerOptions) -> keras.Model:
    """Without batch normalization, which sees the parts; with a penalty, which must not add up."""
    keras.utils.set_random_seed(5)
    options = CnnOptions(filters=[4], convolutions=1, batch_normalization=False, l2=0.01)
    model = models.build(options, SHAPE, CLASSES, mean=[0.5], std=[0.25])
    loss = build_loss(
        CrossEntropyOptions(label_smoothing=0.1, class_weights=[1.0, 2.0, 0.5]), [8, 8, 7]
    )
    metrics = [keras.metrics.CategoricalAccuracy(name="accuracy")]
    model.compile(build_optimizer(optimizer, model.trainable_variables), loss, metrics=metrics)
    build_variables(model)
    return model


def plain_step(model: keras.Model, batches: Iterator[object]) -> dict[str, float]:
    model.make_train_function()
    return model.train_function(batches)


@pytest.mark.parametrize("part_size", [1, 4])
@pytest.mark.parametrize(
    "optimizer",
    [MomentumOptions(learning_rate=0.3), SgdOptions(learning_rate=0.5, clip_global_norm=0.2)],
    ids=["momentum", "clipped"],
)
def test_the_sum_over_the_parts_is_the_step_of_the_whole(
    optimizer: OptimizerOptions, part_size: int
) -> None:
    """Two epochs of three batches; the last one of each is smaller, and so is its last part."""
    whole, parted = compiled(optimizer), compiled(optimizer)
    common = {"batch_size": 9, "epochs": 2, "seed": 1, "augmentation": AUGMENTATION}
    batches = iter(training_batches(examples(), **common))
    parts = iter(training_parts(examples(), part_size=part_size, **common))
    step = accumulating_step(parted)
    for _ in range(6):
        expected, got = plain_step(whole, batches), step(parts)
        assert float(got["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-5)
        assert float(got["accuracy"]) == float(expected["accuracy"])
        for one, other in zip(whole.get_weights(), parted.get_weights(), strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)
    assert next(parts, None) is None
    moved = np.abs(compiled(optimizer).get_weights()[0] - parted.get_weights()[0]).max()
    assert moved > 0.01, "nothing was learned"


def in_batches(parts: tf.data.Dataset) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
    """Parts put together again."""
    images, targets, shares = [], [], []
    for image, target, share, is_last in parts.as_numpy_iterator():
        images.append(image)
        targets.append(target)
        shares.append(share)
        if is_last:
            np.testing.assert_allclose(shares, [len(i) / sum(map(len, images)) for i in images])
            yield np.concatenate(images), np.concatenate(targets)
            images, targets, shares = [], [], []
    assert not images


@pytest.mark.parametrize(("batch_size", "part_size"), [(9, 4), (23, 22), (2, 1)])
@pytest.mark.parametrize("mixed", [{"mixup": 0.4}, {"cutmix": 1.0}, {}], ids=str)
def test_the_parts_are_the_batch(batch_size: int, part_size: int, mixed: dict[str, float]) -> None:
    """Images that are mixed with the one before have it from the part before."""
    common = {
        "batch_size": batch_size,
        "epochs": 3,
        "seed": 4,
        "augmentation": AugmentOptions(rotation=20, **mixed),
        "first_step": 2,
    }
    whole = list(training_batches(examples(), **common).as_numpy_iterator())
    parted = list(in_batches(training_parts(examples(), part_size=part_size, **common)))
    assert len(whole) == len(parted) > 0
    for (images, targets), (others, other_targets) in zip(whole, parted, strict=True):
        np.testing.assert_array_equal(images, others)
        np.testing.assert_allclose(targets, other_targets, atol=1e-6)
