"""Initial kernels, penalties, and blocks that are skipped."""

from typing import get_args

import keras
import numpy as np
import pytest

import models
from models.kernels import kernel
from models.options import CnnOptions, Initializer, KernelOptions, ResnetOptions

SHAPE = (3, 3, 40, 60)
FAN_IN, FAN_OUT = 9 * 40, 9 * 60

DEVIATIONS = {
    "glorot_normal": np.sqrt(2 / (FAN_IN + FAN_OUT)),
    "glorot_uniform": np.sqrt(2 / (FAN_IN + FAN_OUT)),
    "he_normal": np.sqrt(2 / FAN_IN),
    "he_uniform": np.sqrt(2 / FAN_IN),
    "lecun_normal": np.sqrt(1 / FAN_IN),
    "lecun_uniform": np.sqrt(1 / FAN_IN),
    "normal": 0.05,
    "uniform": 0.05 / np.sqrt(3),
    "orthogonal": np.sqrt(1 / FAN_IN),
}
"""The orthogonal one has 60 columns of 360 values and length 1."""


def draw(options: KernelOptions) -> np.ndarray:
    return np.asarray(kernel(options)["kernel_initializer"](SHAPE))


def test_no_initializer_is_left_out() -> None:
    assert set(DEVIATIONS) == set(get_args(Initializer))


@pytest.mark.parametrize("scale", [None, 0.2, 3.0])
@pytest.mark.parametrize("name", DEVIATIONS)
def test_an_initializer_has_its_deviation(name: Initializer, scale: float | None) -> None:
    keras.utils.set_random_seed(0)
    values = draw(KernelOptions(initializer=name, initializer_scale=scale))
    expected = DEVIATIONS[name]
    if scale:
        expected *= scale / 0.05 if name in ("normal", "uniform") else scale
    assert values.std() == pytest.approx(expected, rel=0.02)
    assert abs(values.mean()) < 0.02 * expected + expected / 60
    if "uniform" in name:
        assert np.abs(values).max() <= expected * np.sqrt(3) * 1.0001
        assert np.abs(values).max() > expected * np.sqrt(3) * 0.99


def test_orthogonal_columns_are() -> None:
    columns = draw(KernelOptions(initializer="orthogonal", initializer_scale=2.0)).reshape(-1, 60)
    np.testing.assert_allclose(columns.T @ columns, 4 * np.eye(60), atol=1e-4)


def test_no_two_layers_begin_alike() -> None:
    model = models.build(CnnOptions(filters=[8, 8, 8]), (16, 16, 1), 4, mean=[0.5], std=[0.5])
    core = model.get_layer("core")
    one, other = (core.get_layer(f"stage{stage}_conv2").get_weights()[0] for stage in (2, 3))
    assert one.shape == other.shape
    assert not np.array_equal(one, other)


def test_penalties_are_added_to_the_loss() -> None:
    options = CnnOptions(filters=[4], convolutions=1, l1=0.01, l2=0.1)
    model = models.build(options, (8, 8, 1), 4, mean=[0.5], std=[0.5])
    core = model.get_layer("core")
    kernels = [core.get_layer(name).get_weights()[0] for name in ("stage1_conv1", "logits")]
    expected = sum(0.01 * np.abs(each).sum() + 0.1 * np.square(each).sum() for each in kernels)
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)


def test_batch_normalization_has_its_momentum() -> None:
    for options, layer in (
        (CnnOptions(batch_normalization_momentum=0.5), "stage1_conv1_norm"),
        (ResnetOptions(depth=8, batch_normalization_momentum=0.5), "stem_norm"),
    ):
        model = models.build(options, (16, 16, 1), 4, mean=[0.5], std=[0.5])
        assert model.get_layer("core").get_layer(layer).momentum == 0.5


def test_spatial_dropout_drops_whole_feature_maps() -> None:
    options = CnnOptions(filters=[64], dropout=0.5, spatial_dropout=True, pooling="none")
    model = models.build(options, (8, 8, 1), 4, mean=[0.5], std=[0.5])
    layer = model.get_layer("core").get_layer("stage1_dropout")
    dropped = np.asarray(layer(np.ones((4, 8, 8, 64), np.float32), training=True)) == 0
    assert 0.2 < dropped.mean() < 0.8
    assert (dropped.all(axis=(1, 2)) == dropped.any(axis=(1, 2))).all()


def test_stochastic_depth_skips_blocks_for_single_images() -> None:
    options = ResnetOptions(depth=20, width=4, stochastic_depth=0.6)
    model = models.build(options, (8, 8, 1), 4, mean=[0.5], std=[0.5])
    core = model.get_layer("core")
    rates = [
        core.get_layer(f"stage{stage}_block{block}_depth").rate
        for stage in (1, 2, 3)
        for block in (1, 2, 3)
    ]
    np.testing.assert_allclose(rates, 0.6 * np.arange(1, 10) / 9)
    layer = core.get_layer("stage3_block3_depth")
    values = np.ones((3000, 2, 2, 16), np.float32)
    kept = np.asarray(layer(values, training=True))
    assert set(np.unique(kept)) == {np.float32(0), np.float32(1 / 0.4)}
    by_image = kept.reshape(3000, -1)
    assert (by_image.min(axis=1) == by_image.max(axis=1)).all()
    assert kept.mean() == pytest.approx(1, abs=0.1)
    np.testing.assert_array_equal(layer(values, training=False), values)
