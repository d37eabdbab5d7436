"""Whether a model's beginning says that it takes pixels from 0 to 255; else a person must."""

import keras
import numpy as np
import pytest
from keras import layers

from export.foreign.adoption import RangeError
from serve.command import LockstepError
from tests.export.foreign.colours import SIDE, Tensors, colours
from tests.export.foreign.conftest import Adopt


def adapted(mean: float, deviation: float) -> layers.Normalization:
    """A Normalization that saw images of this mean and deviation."""
    layer = layers.Normalization()
    layer.adapt(mean + deviation * np.random.default_rng(0).normal(size=(16, 4, 4, 3)))
    return layer


PIXELS: dict[str, Tensors] = {
    "rescaling": layers.Rescaling(1 / 255),
    "rescaling to -1": layers.Rescaling(1 / 127.5, offset=-1),
    "operations": lambda x: x / 127.5 - 1,
    "normalization adapted": adapted(120.0, 60.0),
    "normalization given": layers.Normalization(mean=[124, 117, 104], variance=[3600] * 3),
    "behind augmentation": lambda x: layers.Rescaling(1 / 255)(
        layers.RandomHue(0.1, value_range=(0, 255))(layers.RandomFlip()(x))
    ),
    "behind a resize": lambda x: layers.Rescaling(1 / 255)(layers.Resizing(16, 16)(x)),
    "in two steps": lambda x: layers.Normalization(mean=[0.5] * 3, variance=[0.1] * 3)(
        layers.Rescaling(1 / 255)(x)
    ),
    "caffe": keras.applications.resnet50.preprocess_input,
    "tensorflow": keras.applications.mobilenet_v2.preprocess_input,
    "torch": keras.applications.densenet.preprocess_input,
    "within a model": lambda x: keras.Sequential(
        [keras.Input((SIDE, SIDE, 3)), layers.Rescaling(1 / 255)]
    )(x),
    "behind padding": lambda x: layers.Rescaling(1 / 255)(layers.ZeroPadding2D()(x)),
}


@pytest.mark.parametrize("name", PIXELS)
def test_a_beginning_that_is_made_for_pixels(name: str, adopt: Adopt) -> None:
    found = adopt(colours(before=PIXELS[name]))
    assert found.given.mean == (0.0,) and found.given.std == (1 / 255,)
    assert "the model's first layers subtract" in found.range_reason


SILENT: dict[str, Tensors] = {
    "nothing": lambda x: x,
    "augmentation": layers.RandomFlip(),
    "for 0 to 1": layers.Rescaling(2.0, offset=-1),
    "normalization for 0 to 1": layers.Normalization(mean=[0.5] * 3, variance=[0.1] * 3),
    "to pixels": layers.Rescaling(255.0),
    "batch normalization": layers.BatchNormalization(),
}


@pytest.mark.parametrize("name", SILENT)
def test_a_beginning_that_does_not_say_it_is_asked_about(
    name: str, adopt: Adopt, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RangeError, match="say --input-range LOW,HIGH, or --mean and --std"):
        adopt(colours(before=SILENT[name]))
    table = capsys.readouterr().out
    for row in ("0 to 255", "0 to 1", "-1 to 1", "ImageNet's mean", "BGR less"):
        assert f"\n{row}" in table


def test_whole_numbers_are_pixels(adopt: Adopt) -> None:
    inputs = keras.Input((SIDE, SIDE, 3), dtype="uint8")
    model = colours(inputs=inputs)
    assert adopt(model).range_reason == "the model's input is of an integer type"
    with pytest.raises(LockstepError, match="leave out --input-range"):
        adopt(model, mean=(0.0,), std=(1.0,))


def test_scaling_twice_is_warned_of(adopt: Adopt) -> None:
    found = adopt(colours(), mean=(0.0,), std=(1.0,))
    assert any("scaled twice?" in text for text in found.warnings)
    assert adopt(colours(), mean=(0.0,), std=(1 / 255,)).warnings == ()
