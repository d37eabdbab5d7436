"""Augmentation: pure functions of (image, seed), eagerly and in tf.data."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from pipeline.input import trivial
from pipeline.input.augment import (
    OPERATIONS,
    augment,
    change_saturation,
    crop_with_padding,
    erase,
    flip_horizontally,
    flip_vertically,
    is_active,
    resized_crop,
    rotate,
    translate,
    zoom,
)
from pipeline.input.pixels import affine
from pipeline.options.augment import AugmentOptions

STRENGTHS: dict[str, Any] = {
    "crop_padding": 3, "resized_crop": 0.7, "horizontal_flip": True, "vertical_flip": True,
    "rotation": 30.0, "translation": 0.2, "zoom": 0.3, "brightness": 0.5, "contrast": 0.5,
    "saturation": 0.5, "hue": 0.3, "trivial": True, "noise": 8.0, "erasing": 0.7,
}  # fmt: skip
ALL = AugmentOptions(**STRENGTHS)
COLORS = ("saturation", "hue")

CASES = [
    *(AugmentOptions(**{name: strength}) for name, strength in STRENGTHS.items()),
    ALL,
]
IDS = [*STRENGTHS, "all"]


def picture(height: int = 12, width: int = 10, channels: int = 3) -> tf.Tensor:
    generator = np.random.default_rng(5)
    return tf.constant(generator.integers(0, 256, (height, width, channels)).astype(np.uint8))


def seed(number: int) -> tf.Tensor:
    return tf.constant([number, 42], tf.int64)


def test_no_operation_is_left_out() -> None:
    assert set(OPERATIONS) == set(STRENGTHS)
    assert set(AugmentOptions.model_fields) - set(STRENGTHS) == {"mixup", "cutmix"}
    assert len({stream for stream, _ in OPERATIONS.values()}) == len(OPERATIONS)
    assert len(trivial.CHANGES) == 14
    assert is_active(ALL)
    assert all(is_active(case) for case in CASES)
    assert not is_active(AugmentOptions())


@pytest.mark.parametrize("options", CASES, ids=IDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_operations_keep_shape_and_type_and_follow_their_seed(
    options: AugmentOptions, channels: int
) -> None:
    image = picture(channels=channels)
    results = [augment(image, seed(number), options) for number in range(12)]
    for result in results:
        assert result.shape == image.shape
        assert result.dtype == tf.uint8
    np.testing.assert_array_equal(augment(image, seed(3), options), results[3])
    colors = [AugmentOptions(**{name: STRENGTHS[name]}) for name in COLORS]
    is_without_effect = channels == 1 and options in colors
    assert (len({result.numpy().tobytes() for result in results}) > 1) != is_without_effect


@pytest.mark.parametrize("options", CASES, ids=IDS)
def test_operations_do_the_same_in_tf_data(options: AugmentOptions) -> None:
    image = picture()
    dataset = tf.data.Dataset.range(16).map(
        lambda number: augment(image, tf.stack([number, 42]), options)
    )
    for number, result in enumerate(dataset):
        np.testing.assert_array_equal(result, augment(image, seed(number), options))


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("options", CASES, ids=IDS)
def test_black_stays_within_the_range_and_white_too(options: AugmentOptions, value: int) -> None:
    """Nothing wraps around: of what is all black, nothing but noise is bright."""
    image = tf.fill([8, 8, 3], tf.constant(value, tf.uint8))
    for number in range(10):
        result = augment(image, seed(number), options).numpy().astype(int)
        if not (options.trivial or options.erasing or options.brightness):
            assert np.abs(result - value).max() <= 6 * options.noise


def test_the_crop_moves_by_whole_pixels_and_repeats_the_border() -> None:
    image = picture()
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="edge")
    windows = {
        padded[row : row + 12, column : column + 10].tobytes(): (row, column)
        for row in range(5)
        for column in range(5)
    }
    found = {
        windows[crop_with_padding(image, seed(number), 2).numpy().tobytes()]
        for number in range(300)
    }
    assert len(found) == 25, "some offsets never occur"


def test_the_flip_happens_half_of_the_time() -> None:
    image = picture()
    mirrored = image.numpy()[:, ::-1]
    flips = 0
    for number in range(400):
        result = flip_horizontally(image, seed(number)).numpy()
        is_mirrored = np.array_equal(result, mirrored)
        assert is_mirrored or np.array_equal(result, image)
        flips += is_mirrored
    assert 150 < flips < 250


def test_the_rotation_is_around_the_middle() -> None:
    """By 0 degrees nothing moves; a point symmetric picture keeps its middle at any angle."""
    image = picture(11, 11, 1)
    np.testing.assert_array_equal(rotate(image, seed(1), 1e-6), image)
    for number in range(20):
        turned = rotate(image, seed(number), 180.0)
        assert turned[5, 5, 0] == image[5, 5, 0]


def test_the_rotation_turns_a_bar_by_the_drawn_angle() -> None:
    bar = np.zeros((41, 41, 1), np.uint8)
    bar[20, 5:36] = 255
    angles = []
    for number in range(30):
        ys, xs = np.nonzero(rotate(tf.constant(bar), seed(number), 40.0).numpy()[..., 0] > 127)
        slope = np.polyfit(xs, ys, 1)[0]
        angles.append(np.degrees(np.arctan(slope)))
    assert max(np.abs(angles)) <= 41
    assert min(angles) < -20
    assert max(angles) > 20


def test_without_options_nothing_changes() -> None:
    np.testing.assert_array_equal(augment(picture(), seed(1), AugmentOptions()), picture())


# Geometry


def test_affine_reads_the_old_pixels_where_it_says() -> None:
    image = picture(9, 11)
    moved = affine(image, [1.0, 0.0, 2.0, 0.0, 1.0, -1.0]).numpy()
    np.testing.assert_array_equal(moved[1:, :-2], image.numpy()[:-1, 2:])
    mirrored = affine(image, [-1.0, 0.0, 0.0, 0.0, 1.0, 0.0], around_middle=True).numpy()
    np.testing.assert_array_equal(mirrored, image.numpy()[:, ::-1])
    turned = affine(image, [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0], around_middle=True).numpy()
    np.testing.assert_array_equal(turned, image.numpy()[::-1, ::-1])


def ramp(height: int = 33, width: int = 41) -> tf.Tensor:
    """Brightness 5 per column and 3 per row, in two channels."""
    rows, columns = np.mgrid[:height, :width]
    return tf.constant(np.stack([5 * columns, 3 * rows], axis=-1).astype(np.uint8))


def slopes(image: tf.Tensor) -> tuple[float, float]:
    """Of the middle of a drawn ramp: old columns per new column, and old rows per new row."""
    middle = image.numpy().astype(float)[12:21, 15:26]
    return (
        float(np.diff(middle[..., 0], axis=1).mean() / 5),
        float(np.diff(middle[..., 1], axis=0).mean() / 3),
    )


def test_the_zoom_is_the_same_both_ways_and_keeps_the_middle() -> None:
    factors = []
    for number in range(40):
        result = zoom(ramp(), seed(number), 0.25)
        columns, rows = slopes(result)
        assert columns == pytest.approx(rows, abs=0.08)
        np.testing.assert_allclose(result[16, 20], ramp()[16, 20], atol=1)
        factors.append(1 / columns)
    assert 0.72 < min(factors) < 0.85
    assert 1.15 < max(factors) < 1.28


def test_the_translation_goes_every_way_and_no_farther() -> None:
    moves = []
    for number in range(40):
        middle = translate(ramp(), seed(number), 0.1)[16, 20].numpy().astype(float)
        moves.append(((middle[0] / 5 - 20) / 41, (middle[1] / 3 - 16) / 33))
    moved = np.array(moves)
    assert np.abs(moved).max() < 0.11
    assert (moved.min(axis=0) < -0.07).all()
    assert (moved.max(axis=0) > 0.07).all()


def test_a_resized_crop_shows_a_part_of_the_image() -> None:
    areas, shapes = [], []
    for number in range(60):
        columns, rows = slopes(resized_crop(ramp(), seed(number), 0.75))
        areas.append(columns * rows)
        shapes.append(columns / rows)
    assert 0.2 < min(areas) < 0.35
    assert 0.85 < max(areas) < 1.05
    assert 0.7 < min(shapes) < 0.85
    assert 1.15 < max(shapes) < 1.45
    for number in range(20):
        corner = resized_crop(ramp(), seed(number), 0.75).numpy().astype(float)
        assert corner[..., 0].max() <= 200
        assert corner[..., 1].max() <= 96


def test_the_vertical_flip_happens_half_of_the_time() -> None:
    image = picture()
    flips = sum(
        np.array_equal(flip_vertically(image, seed(number)), image.numpy()[::-1])
        for number in range(400)
    )
    assert 150 < flips < 250


def test_a_rectangle_is_erased_as_often_as_asked() -> None:
    image = tf.fill([30, 40, 3], tf.constant(100, tf.uint8))
    erased = 0
    for number in range(200):
        result = erase(image, seed(number), 0.25).numpy()
        changed = (result != 100).any(axis=-1)
        if changed.any():
            erased += 1
            rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
            box = changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert box.mean() > 0.95, "noise may hit the value itself, no more"
            assert box.size <= 0.45 * changed.size
    assert 30 < erased < 75


# Colours, against Pillow


def strength_of(change: float) -> tf.Tensor:
    return tf.constant(change, tf.float32)


def photo(channels: int = 3) -> NDArray[np.uint8]:
    """Slopes and edges of a limited range, so that there is something to stretch and to sharpen."""
    rows, columns = np.mgrid[:20, :30]
    channel = 40 + 3 * rows + 2 * columns + 70 * ((rows // 5 + columns // 7) % 2)
    return np.stack([channel, 250 - channel, 2 * columns + 60][:channels], axis=-1).astype(np.uint8)


PILLOW: dict[str, tuple[float, Callable[[Image.Image], Image.Image], int]] = {
    "auto_contrast": (0.0, ImageOps.autocontrast, 1),
    "equalize": (0.0, ImageOps.equalize, 0),
    "solarize": (0.6, lambda image: ImageOps.solarize(image, 102), 0),
    "posterize": (0.7, lambda image: ImageOps.posterize(image, 4), 0),
    "color": (0.5, lambda image: ImageEnhance.Color(image).enhance(1.495), 2),
    "contrast": (-0.5, lambda image: ImageEnhance.Contrast(image).enhance(0.505), 1),
    "brightness": (0.3, lambda image: ImageEnhance.Brightness(image).enhance(1.297), 1),
    "sharpness": (0.8, lambda image: ImageEnhance.Sharpness(image).enhance(1.792), 2),
}
"""Strength, the same in Pillow, and how many grey steps apart its roundings may be."""


@pytest.mark.parametrize("name", PILLOW)
def test_changes_are_those_of_pillow(name: str) -> None:
    strength, change, apart = PILLOW[name]
    found = trivial.CHANGES[name](tf.constant(photo()), strength_of(strength)).numpy()
    expected = np.asarray(change(Image.fromarray(photo())))
    assert (found != photo()).any()
    assert np.abs(found.astype(int) - expected).max() <= apart


def test_every_change_of_trivial_augment_is_drawn_as_often() -> None:
    drawn = []

    def noted(number: int) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
        return lambda image, strength: tf.fill(tf.shape(image), tf.constant(number, tf.uint8))

    changes = {str(number): noted(number) for number in range(14)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trivial, "CHANGES", changes)
        image = picture(2, 2)
        drawn = [int(trivial.augment(image, seed(number))[0, 0, 0]) for number in range(700)]
    counts = np.bincount(drawn, minlength=14)
    assert counts.min() > 25
    assert counts.max() < 80


@pytest.mark.parametrize("name", ["color", "contrast", "brightness", "sharpness"])
def test_no_strength_changes_nothing(name: str) -> None:
    found = trivial.CHANGES[name](tf.constant(photo()), strength_of(0.0))
    np.testing.assert_array_equal(found, photo())


def test_grey_pixels_have_no_saturation() -> None:
    image = tf.repeat(picture(channels=1), 3, axis=-1)
    np.testing.assert_allclose(change_saturation(image, seed(1), 0.9), image, atol=1)
