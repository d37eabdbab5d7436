"""The Haar stem against PyWavelets."""

import keras
import numpy as np
import pytest
import pywt

import models
from models.haar import FILTERS, haar
from models.options import CnnOptions


def test_the_filters_are_orthonormal() -> None:
    rows = FILTERS.reshape(4, 4)
    np.testing.assert_array_equal(rows @ rows.T, np.eye(4))


@pytest.mark.parametrize("shape", [(2, 2, 1), (8, 8, 1), (12, 30, 3), (6, 4, 5)])
def test_one_level_as_pywavelets_has_it(shape: tuple[int, int, int]) -> None:
    images = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    found = np.asarray(haar("haar")(images))
    expected = np.concatenate(
        [
            np.stack([approximation, *details], axis=-1)
            for approximation, details in (
                pywt.dwt2(images[..., channel], "haar", axes=(1, 2)) for channel in range(shape[2])
            )
        ],
        axis=-1,
    )
    height, width, channels = shape
    assert found.shape == (3, height // 2, width // 2, 4 * channels)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_no_information_is_lost() -> None:
    image = np.random.default_rng(1).normal(size=(1, 8, 6, 1)).astype(np.float32)
    approximation, *details = np.moveaxis(np.asarray(haar("haar")(image))[0], -1, 0)
    again = pywt.idwt2((approximation, tuple(details)), "haar")
    np.testing.assert_allclose(again, image[0, :, :, 0], atol=2e-6)


def test_training_leaves_the_stem_as_it_is() -> None:
    options = CnnOptions(filters=[4], convolutions=1, stem="haar", l2=0.1)
    model = models.build(options, (8, 8, 1), 4, mean=[0.5], std=[0.5])
    stem, convolution = (
        model.get_layer("core").get_layer(name) for name in ("haar", "stage1_conv1")
    )
    before, first = stem.get_weights(), convolution.get_weights()
    assert stem.trainable_variables == []
    assert len(model.losses) == 2, "a penalty on fixed filters"
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (16, 8, 8, 1)).astype(np.uint8)
    model.train_on_batch(pixels, generator.integers(0, 4, 16))
    np.testing.assert_array_equal(stem.get_weights(), before)
    assert not np.array_equal(convolution.get_weights()[0], first[0])


def test_the_stem_survives_saving(tmp_path) -> None:
    model = models.build(CnnOptions(stem="haar"), (16, 16, 3), 4, mean=[0.5] * 3, std=[0.5] * 3)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    assert not again.get_layer("core").get_layer("haar").trainable
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)
    np.testing.assert_array_equal(again.predict_on_batch(pixels), model.predict_on_batch(pixels))


@pytest.mark.parametrize("shape", [(9, 8, 1), (8, 9, 3)])
def test_odd_sides_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=rf"expected even ones, got {shape[0]}x{shape[1]}; set"):
        models.build(CnnOptions(stem="haar"), shape, 4, mean=[0.5] * shape[2], std=[0.5] * shape[2])
