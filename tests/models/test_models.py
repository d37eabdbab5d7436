"""Architectures: shapes, pinned sizes, determinism, and refusal of impossible images."""

import keras
import numpy as np
import pytest

import models
from models.options import CnnOptions, LenetOptions, ModelOptions, ResnetOptions


def build(
    options: ModelOptions, shape: tuple[int, int, int] = (28, 28, 1), classes: int = 10
) -> keras.Model:
    channels = shape[2]
    return models.build(options, shape, classes, mean=[0.4] * channels, std=[0.25] * channels)


@pytest.mark.parametrize(
    ("options", "shape", "parameters"),
    [
        (CnnOptions(), (28, 28, 1), 289_066),
        (CnnOptions(batch_normalization=False), (28, 28, 1), 287_722),
        (CnnOptions(convolutions=[1, 2, 2]), (28, 28, 1), 279_722),
        (CnnOptions(head="flatten", dense_units=[64]), (28, 28, 1), 362_218),
        (LenetOptions(), (28, 28, 1), 61_706),  # LeCun et al. 1998 with a full connection table
        (ResnetOptions(depth=20), (32, 32, 3), 271_098),  # 0.27 M in He et al. 2015, table 6
        (ResnetOptions(depth=56), (32, 32, 3), 857_082),  # 0.85 M there
        (ResnetOptions(depth=8, width=8), (28, 28, 1), 19_314),
    ],
)
def test_parameter_counts(
    options: ModelOptions, shape: tuple[int, int, int], parameters: int
) -> None:
    assert build(options, shape).count_params() == parameters


@pytest.mark.parametrize("options", [CnnOptions(), LenetOptions(), ResnetOptions(depth=8)])
@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (33, 47, 3)])
def test_uint8_pixels_to_logits(options: ModelOptions, shape: tuple[int, int, int]) -> None:
    model = build(options, shape, classes=7)
    pixels = np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)
    logits = model.predict_on_batch(pixels)
    assert model.input_shape == (None, *shape)
    assert model.input.dtype == "uint8"
    assert logits.shape == (3, 7)
    assert logits.dtype == np.float32
    assert not np.allclose(logits.sum(axis=1), 1), "probabilities, not logits"


def test_normalization_is_part_of_the_model() -> None:
    model = models.build(LenetOptions(), (8, 8, 3), 2, mean=[0.1, 0.2, 0.3], std=[0.5, 0.25, 0.1])
    pixels = np.full((1, 8, 8, 3), 51, np.uint8)  # 51 / 255 = 0.2
    normalized = model.get_layer("normalize")(pixels)
    np.testing.assert_allclose(normalized[0, 0, 0], [0.2, 0.0, -1.0], atol=1e-6)


def test_same_seed_same_weights() -> None:
    weights = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        weights.append(build(ResnetOptions(depth=8)).get_layer("core").get_weights()[0])
    np.testing.assert_array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


def test_cnn_takes_every_option() -> None:
    options = CnnOptions(
        filters=[4, 8],
        convolutions=1,
        kernel_size=5,
        stride=2,
        pooling="average",
        pool_size=3,
        head="flatten",
        dense_units=[12],
        dropout=0.25,
        batch_normalization=False,
        initializer="orthogonal",
        l2=0.001,
    )
    core = build(options, (40, 40, 3)).get_layer("core")
    first = core.get_layer("stage1_conv1")
    assert (first.kernel_size, first.strides, first.use_bias) == ((5, 5), (2, 2), True)
    assert type(first.kernel_initializer).__name__ == "Orthogonal"
    assert float(first.kernel_regularizer.l2) == pytest.approx(0.001)
    assert core.get_layer("stage1_pool").pool_size == (3, 3)
    assert core.get_layer("stage2_dropout").rate == 0.25
    assert core.get_layer("dense1").units == 12
    # 40 -> 20 (stride) -> 6 (pool) -> 3 -> 1
    assert core.get_layer("flatten").output.shape == (None, 8)


def test_dropout_acts_in_training_alone() -> None:
    model = build(CnnOptions(dropout=0.5), (8, 8, 1))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), np.uint8)
    still = [np.asarray(model(pixels, training=False)) for _ in range(2)]
    np.testing.assert_array_equal(*still)
    assert not np.array_equal(model(pixels, training=True), model(pixels, training=True))


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        (CnnOptions(filters=[8] * 4), (8, 8, 1), "8x8 have no pixel left after stage 4 of 4"),
        (CnnOptions(convolutions=[1, 2]), (28, 28, 1), "each of the 3 stages"),
        (LenetOptions(), (3, 28, 1), "at least 4x4, got 3x28"),
        (ResnetOptions(), (3, 3, 1), "at least 4x4"),
        (
            ResnetOptions(depth=18),
            (32, 32, 3),
            "expected a depth of 6n [+] 2, got 18; nearest are 14 and 20",
        ),
    ],
)
def test_impossible_options_are_named(
    options: ModelOptions, shape: tuple[int, int, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(options, shape)


def test_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        build(CnnOptions(), classes=1)
