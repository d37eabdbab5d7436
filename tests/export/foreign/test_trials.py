"""Proven but wrong: what a bundle would answer is measured, and a likelier description is named."""

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

from export.bundle import FRAME, found, judged
from export.foreign.adoption import RangeError
from export.foreign.proof import bundle_document
from tests.export.foreign.colours import LABELS, SIDE, colours
from tests.export.foreign.conftest import Adopt

ONE = {"mean": (0.0,), "std": (1.0,)}
"""As `--input-range 0,1` gives it."""


NAMES = ("day", "dusk", "night")
LEVELS = (0.75, 0.5, 0.25)


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey pictures of three levels of brightness, in the model's size."""
    folder = tmp_path_factory.mktemp("levels")
    generator = np.random.default_rng(0)
    for name, level in zip(NAMES, LEVELS, strict=True):
        (folder / name).mkdir()
        for number in range(9):
            pixels = np.clip(generator.normal(255 * level, 10, (SIDE, SIDE, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder


def unscaled(scale: float = 1.0, offset: float = 0.0) -> keras.Model:
    """The nearest level of `numbers * scale + offset`: right for one range, and silent about it."""
    inputs = keras.Input((SIDE, SIDE, 3))
    x = layers.Conv2D(1, 1, name="scaling")(inputs)
    head = layers.Dense(3, activation="softmax", name="head")
    model = keras.Model(inputs, head(layers.GlobalAveragePooling2D()(x)))
    kernel = np.full((1, 1, 3, 1), scale / 3, np.float32)
    model.get_layer("scaling").set_weights([kernel, np.full(1, offset, np.float32)])
    centres = np.array(LEVELS, np.float32)
    head.set_weights([200 * centres[None], -100 * centres**2])
    return model


@pytest.mark.parametrize(
    ("model", "option"),
    [
        ({"scale": 1 / 255}, "--input-range 0,255"),
        ({}, "--input-range 0,1"),
        ({"scale": 0.5, "offset": 0.5}, "--input-range=-1,1"),
    ],
    ids=["pixels", "0 to 1", "-1 to 1"],
)
def test_the_right_range_is_found(
    model: dict[str, float],
    option: str,
    adopt: Adopt,
    levels: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(RangeError) as caught:
        adopt(unscaled(**model), labels=NAMES, images=levels)
    printed = capsys.readouterr().out
    assert f"best on 27 images: {option}" in str(caught.value)
    assert f"best on 27 images: {option}" in printed
    assert "accuracy on 27 images with a known label" in printed and "*" in printed


def test_without_labels_the_table_does_not_pretend(
    adopt: Adopt, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in photos.rglob("*.png"):
        shutil.copy(path, flat / f"{path.parent.name}{path.name}")
    with pytest.raises(RangeError, match="without labelled images"):
        adopt(unscaled(), images=flat)
    printed = capsys.readouterr().out
    assert "accuracy   not measured: the images lie in no folders named after" in printed
    assert "*" not in printed and "these cannot tell which is right" in printed


def test_no_range_is_called_best_if_the_labels_are_in_another_order(
    adopt: Adopt, levels: Path
) -> None:
    with pytest.raises(RangeError) as caught:
        adopt(unscaled(), labels=NAMES[1:] + NAMES[:1], images=levels)
    assert "none of the usual ones is better than chance" in str(caught.value)
    assert "labels look" in str(caught.value) and "(better: day, dusk, night)" in str(caught.value)


def test_a_right_model_is_measured_and_raises_no_alarm(adopt: Adopt) -> None:
    adopted = adopt(colours())
    assert adopted.accuracy == 1.0 and adopted.warnings == ()
    assert "accuracy   1.00 (27 of 27 images with a known label" in "\n".join(found(adopted))
    assert FRAME not in judged(adopted)
    assert bundle_document(adopted).verdict == adopted.verdict != ()


def test_a_wrong_range_is_named_with_the_right_one(adopt: Adopt, levels: Path) -> None:
    adopted = adopt(unscaled(), labels=NAMES, images=levels, mean=(0.0,), std=(1 / 255,))
    assert adopted.accuracy is not None and adopted.accuracy < 0.7
    assert any("say --input-range 0,1" in text for text in adopted.warnings)
    assert judged(adopted).count(FRAME) == 2


def test_labels_in_another_order_are_named(adopt: Adopt, levels: Path) -> None:
    adopted = adopt(unscaled(), labels=NAMES[::-1], images=levels, **ONE)
    (warning,) = adopted.warnings
    assert "the labels look reversed (better: day, dusk, night)" in warning


def test_one_answer_for_everything_is_an_alarm(adopt: Adopt) -> None:
    model = colours()
    model.get_layer("head").set_weights([np.zeros((3, 3), "f4"), np.array([0, 0, 5], "f4")])
    said = "\n".join(judged(adopt(model)))
    assert FRAME in said and "the answer for all 27 images is 'red'" in said
    assert "likely causes: another input range" in said


def side_images(folder: Path) -> Path:
    """A bright bar at the left, in the middle or at the right of wide pictures."""
    for place, name in enumerate(LABELS):
        (folder / name).mkdir(parents=True)
        for number in range(12):
            pixels = np.full((20, 80, 3), 10 + number, np.uint8)
            left = (0, 34, 68)[place]
            pixels[:, left : left + 12] = 240
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def side_model() -> keras.Model:
    """Which third of a stretched picture is bright?"""
    inputs = keras.Input((SIDE, SIDE, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    head = layers.Dense(3, activation="softmax")
    model = keras.Model(inputs, head(layers.Flatten()(x)))
    columns = np.zeros((SIDE, SIDE, 3, 3), np.float32)
    for place in range(3):
        columns[:, (0, 8, 17)[place] : (3, 12, 20)[place], :, place] = 0.2
    head.set_weights([columns.reshape(-1, 3), np.zeros(3, np.float32)])
    return model


def test_a_crop_of_what_was_stretched_is_warned_of(adopt: Adopt, tmp_path: Path) -> None:
    images = side_images(tmp_path / "sides")
    adopted = adopt(side_model(), images=images)
    assert any("say --resize stretch" in text for text in adopted.warnings)
    (table,) = adopted.tables
    assert "crop" in table and "stretch" in table and "pad" in table
    right = adopt(side_model(), images=images, resize="stretch", resize_said=True)
    assert right.accuracy == 1.0 and right.warnings == () and right.tables == ()


def test_splits_strangers_and_other_writings_are_told(
    adopt: Adopt, photos: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    shutil.copytree(photos / "red", images / "test" / "02_RED")
    shutil.copytree(photos / "blue", images / "train" / "Blue")
    shutil.copytree(photos / "green", images / "unsorted")
    adopted = adopt(colours(), images=images)
    assert adopted.accuracy == 1.0
    assert bundle_document(adopted).metrics == {"examples": 18, "accuracy": 1.0}
    said = "\n".join(found(adopted))
    assert "'02_RED' is 'red'" in said and "'Blue' is 'blue'" in said
    assert "looked through the folders above the labels': 'test' (9), 'train' (9)" in said
    assert "folders that match no label, not measured on: 'unsorted' (9)" in said
    assert "labels without an image: 'green'" in said


def test_labels_whose_numbers_are_out_of_order_are_warned_of(adopt: Adopt) -> None:
    adopted = adopt(colours(), labels=("0 blue", "2 green", "1 red"))
    assert any("line 2 says 2" in text for text in adopted.warnings)
