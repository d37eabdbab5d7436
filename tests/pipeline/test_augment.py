"""Augmentation: pure functions of (image, seed), eagerly and in tf.data."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from pipeline.input import geometry, trivial
from pipeline.input.augment import CHANGES, MOVES, augment, change_saturation, erase, is_active
from pipeline.input.pixels import to_uint8
from pipeline.options.augment import AugmentOptions
from pipeline.recipe import ConfigError, resolve

STRENGTHS: dict[str, Any] = {
    "crop_padding": 3, "resized_crop_min_area": 0.3, "horizontal_flip": True, "vertical_flip": True,
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


def changed(image: tf.Tensor, number: int, **options: Any) -> NDArray[np.uint8]:
    """The image as these options and this seed leave it."""
    return np.asarray(
        to_uint8(augment(image[None], seed(number)[None], AugmentOptions(**options)))[0]
    )


def test_no_operation_is_left_out() -> None:
    assert MOVES.keys() | CHANGES.keys() == set(STRENGTHS)
    assert set(AugmentOptions.model_fields) - set(STRENGTHS) == {"mixup", "cutmix"}
    streams = {name: stream for name, (stream, _) in (MOVES | CHANGES).items()}
    assert sorted(streams.values()) == list(range(14))
    assert MOVES["trivial"][0] == CHANGES["trivial"][0]
    assert len(set(trivial.NAMES)) == 14
    assert set(trivial.CHANGES) < set(trivial.NAMES)
    assert is_active(ALL)
    assert all(is_active(case) for case in CASES)
    assert not is_active(AugmentOptions())


@pytest.mark.parametrize("options", CASES, ids=IDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_operations_keep_shape_and_type_and_follow_their_seed(
    options: AugmentOptions, channels: int
) -> None:
    image = picture(channels=channels)
    strengths = options.turned_on()
    results = [changed(image, number, **strengths) for number in range(12)]
    assert all(result.shape == image.shape for result in results)
    np.testing.assert_array_equal(changed(image, 3, **strengths), results[3])
    colors = [AugmentOptions(**{name: STRENGTHS[name]}) for name in COLORS]
    is_without_effect = channels == 1 and options in colors
    assert (len({result.tobytes() for result in results}) > 1) != is_without_effect


@pytest.mark.parametrize("options", CASES, ids=IDS)
def test_operations_do_the_same_in_tf_data_and_in_any_batch(options: AugmentOptions) -> None:
    """In whatever batch: to the last bit before rounding. Outside of tf.data: to the last pixel."""
    pictures = tf.stack([tf.roll(picture(), shift, axis=0) for shift in range(11)] * 2)[:21]

    def seeds(numbers: tf.Tensor) -> tf.Tensor:
        return tf.stack([numbers, tf.fill(tf.shape(numbers), tf.constant(42, tf.int64))], axis=1)

    def in_batches(size: int) -> NDArray[np.generic]:
        batches = tf.data.Dataset.range(21).batch(size)
        return np.concatenate([
            result.numpy()
            for result in batches.map(
                lambda numbers: augment(tf.gather(pictures, numbers), seeds(numbers), options)
            )
        ])  # fmt: skip

    found = in_batches(21)
    for size in (8, 3, 1):
        np.testing.assert_array_equal(in_batches(size), found)
    for number in range(21):
        alone = to_uint8(augment(pictures[number, None], seed(number)[None], options)[0])
        np.testing.assert_array_equal(alone, to_uint8(found[number]))


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("options", CASES, ids=IDS)
def test_black_stays_within_the_range_and_white_too(options: AugmentOptions, value: int) -> None:
    """Nothing wraps around: of what is all black, nothing but noise is bright."""
    image = tf.fill([8, 8, 3], tf.constant(value, tf.uint8))
    for number in range(10):
        result = changed(image, number, **options.turned_on()).astype(int)
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
    found = {windows[changed(image, number, crop_padding=2).tobytes()] for number in range(300)}
    assert len(found) == 25, "some offsets never occur"


def test_the_flip_happens_half_of_the_time() -> None:
    image = picture()
    mirrored = image.numpy()[:, ::-1]
    flips = 0
    for number in range(400):
        result = changed(image, number, horizontal_flip=True)
        is_mirrored = np.array_equal(result, mirrored)
        assert is_mirrored or np.array_equal(result, image)
        flips += is_mirrored
    assert 150 < flips < 250


def test_the_rotation_is_around_the_middle() -> None:
    """By 0 degrees nothing moves; a point symmetric picture keeps its middle at any angle."""
    image = picture(11, 11, 1)
    np.testing.assert_array_equal(changed(image, 1, rotation=1e-6), image)
    for number in range(20):
        turned = changed(image, number, rotation=180.0)
        assert turned[5, 5, 0] == image[5, 5, 0]


def test_the_rotation_turns_a_bar_by_the_drawn_angle() -> None:
    bar = np.zeros((41, 41, 1), np.uint8)
    bar[20, 5:36] = 255
    angles = []
    for number in range(30):
        ys, xs = np.nonzero(changed(tf.constant(bar), number, rotation=40.0)[..., 0] > 127)
        slope = np.polyfit(xs, ys, 1)[0]
        angles.append(np.degrees(np.arctan(slope)))
    assert max(np.abs(angles)) <= 41
    assert min(angles) < -20
    assert max(angles) > 20


def test_without_options_nothing_changes() -> None:
    np.testing.assert_array_equal(changed(picture(), 1), picture())


# Geometry


def resampled(image: tf.Tensor, *matrices: tf.Tensor) -> NDArray[np.float32]:
    """By these moves, one after another, at once."""
    total = geometry.composed(matrices)
    return np.asarray(geometry.resample(tf.cast(image, tf.float32)[None], total)[0])


def test_affine_reads_the_old_pixels_where_it_says() -> None:
    image, size = picture(9, 11), tf.constant([9.0, 11.0])
    moved = resampled(image, geometry.moved(-1.0, tf.constant([2.0])))
    np.testing.assert_array_equal(moved[1:, :-2], image.numpy()[:-1, 2:])
    minus, one = tf.constant([-1.0]), tf.constant([1.0])
    mirrored = resampled(image, geometry.around_middle([minus, 0.0, 0.0, one], size))
    np.testing.assert_array_equal(mirrored, image.numpy()[:, ::-1])
    turned = resampled(image, geometry.around_middle([minus, 0.0, 0.0, minus], size))
    np.testing.assert_array_equal(turned, image.numpy()[::-1, ::-1])


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (9, 14, 3), (225, 300, 3)])
def test_whole_moves_together_give_the_very_pixels(shape: tuple[int, int, int]) -> None:
    """Crop and flips, by gathering and by resampling."""
    image = picture(*shape)
    height, width, _ = shape
    options = AugmentOptions(crop_padding=3, horizontal_flip=True, vertical_flip=True)
    padded = np.pad(image, ((3, 3), (3, 3), (0, 0)), mode="edge")
    seen = set()
    for number in range(40):
        found = augment(image[None], seed(number)[None], options)
        assert found.dtype == tf.uint8
        matrices = [
            move.matrices(
                move.draw(fold(seed(number), stream), 3)[None],
                tf.constant([height, width], tf.float32),
            )
            for name, (stream, move) in MOVES.items()
            if name in options.turned_on()
        ]
        np.testing.assert_array_equal(found[0], resampled(image, *matrices))
        rows, columns = (3 + np.asarray(matrices[0])[0, place, 2].astype(int) for place in (1, 0))
        across, down = (np.asarray(matrix)[0] for matrix in matrices[1:])
        expected = padded[rows : rows + height, columns : columns + width]
        expected = expected[:: int(down[1, 1]), :: int(across[0, 0])]
        np.testing.assert_array_equal(found[0], expected)
        seen.add((int(down[1, 1]), int(across[0, 0])))
    assert len(seen) == 4


def fold(seed: tf.Tensor, stream: int) -> tf.Tensor:
    return tf.random.experimental.stateless_fold_in(seed, stream)


def test_four_moves_by_half_a_pixel_blur_no_more_than_one() -> None:
    """There and back is where it was; if each were resampled and rounded, all would be grey."""
    pattern = tf.constant(
        (255 * (np.indices((16, 16)).sum(axis=0) % 2))[..., None].astype(np.uint8)
    )
    half, back = (geometry.moved(0.0, tf.constant([offset])) for offset in (0.5, -0.5))
    np.testing.assert_array_equal(resampled(pattern, half, back, half, back), pattern)
    step_by_step = pattern
    for matrix in (half, back, half, back):
        step_by_step = to_uint8(resampled(step_by_step, matrix))
    assert np.ptp(step_by_step[4:-4, 4:-4]) <= 1, "and so the test says something"


def reference(
    image: NDArray[np.uint8], number: int, options: AugmentOptions
) -> NDArray[np.float64]:
    """Every move's matrix and their product in float64, and one bilinear sampling by NumPy."""
    height, width, _ = image.shape
    x, y = (width - 1) / 2, (height - 1) / 2
    total = np.eye(3)

    def drawn(name: str, count: int, low: float = 0, high: float = 1) -> NDArray[np.float64]:
        stream = fold(seed(number), MOVES[name][0])
        return np.float64(tf.random.stateless_uniform([count], stream, low, high))

    def centred(matrix: list[list[float]]) -> NDArray[np.float64]:
        to, fro = (
            np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]]),
            np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1.0]]),
        )
        return to @ np.block([[np.array(matrix), np.zeros((2, 1))], [np.zeros((1, 2)), 1]]) @ fro

    if smallest := options.turned_on().get("resized_crop_min_area"):
        area, shape, row, column = drawn("resized_crop_min_area", 4)
        area = 1 - (1 - smallest) * area
        ratio = np.exp((2 * shape - 1) * min(np.log(4 / 3), -np.log(area)))
        tall, wide = np.sqrt(area / ratio), np.sqrt(area * ratio)
        total = total @ [
            [wide, 0, column * (1 - wide) * width + wide / 2 - 0.5],
            [0, tall, row * (1 - tall) * height + tall / 2 - 0.5],
            [0, 0, 1],
        ]
    if options.rotation:
        (share,) = drawn("rotation", 1, -1, 1)
        angle = np.radians(options.rotation) * share
        total = total @ centred([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if options.zoom:
        (share,) = drawn("zoom", 1, -1, 1)
        total = total @ centred(np.eye(2) / (1 + options.zoom * share))
    if options.translation:
        down, right = options.translation * drawn("translation", 2, -1, 1)
        total = total @ [[1, 0, right * width], [0, 1, down * height], [0, 0, 1]]
    if options.horizontal_flip and drawn("horizontal_flip", 1)[0] < 0.5:
        total = total @ centred([[-1, 0], [0, 1]])
    rows, columns = np.indices((height, width))
    points = total @ np.stack([columns.ravel(), rows.ravel(), np.ones(rows.size)])
    return bilinear(image, points[1].clip(0, height - 1), points[0].clip(0, width - 1)).reshape(
        image.shape
    )


def bilinear(
    image: NDArray[np.uint8], rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> NDArray[np.float64]:
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = (rows - top)[:, None], (columns - left)[:, None]
    below, beside = (
        np.minimum(top + 1, image.shape[0] - 1),
        np.minimum(left + 1, image.shape[1] - 1),
    )
    upper = (1 - right) * image[top, left] + right * image[top, beside]
    lower = (1 - right) * image[below, left] + right * image[below, beside]
    return np.asarray((1 - down) * upper + down * lower)


@pytest.mark.parametrize(
    "options",
    [
        AugmentOptions(rotation=25, zoom=0.3, translation=0.2),
        AugmentOptions(rotation=180, zoom=0.5, translation=0.5, horizontal_flip=True),
        AugmentOptions(resized_crop_min_area=0.08, horizontal_flip=True),
        AugmentOptions(
            resized_crop_min_area=0.3, rotation=15, zoom=0.2, translation=0.1, horizontal_flip=True
        ),
    ],
    ids=["three", "strong", "crop", "all"],
)
def test_moves_are_one_resampling_by_their_product(options: AugmentOptions) -> None:
    """A pattern of single pixels, black and white, has the contrast that float64 gives it."""
    generator = np.random.default_rng(3)
    image = (255 * generator.integers(0, 2, (24, 20, 1))).astype(np.uint8)
    for number in range(30):
        found = augment(tf.constant(image)[None], seed(number)[None], options)[0]
        np.testing.assert_allclose(found, reference(image, number, options), atol=0.02)
        assert np.ptp(found) > 100, "black and white are still apart"


def test_colours_are_computed_from_unrounded_pixels_and_rounded_once() -> None:
    """Half a grey step, twenty times as bright, is ten grey steps."""
    ramp = tf.constant(np.tile(np.arange(20, dtype=np.uint8), (20, 1))[..., None])
    options = AugmentOptions(translation=0.4, contrast=1.0, brightness=1.0)
    fractions = []
    for number in range(10):
        found = np.asarray(augment(ramp[None], seed(number)[None], options)[0])
        assert found.dtype == np.float32
        middle = found[10, 8:12, 0]
        fractions.append(np.abs(middle - np.round(middle)).max())
        assert np.ptp(np.diff(middle)) < 1e-3, "steps of rounded pixels would differ"
    assert max(fractions) > 0.1


def ramp(height: int = 33, width: int = 41) -> tf.Tensor:
    """Brightness 5 per column and 3 per row, in two channels."""
    rows, columns = np.mgrid[:height, :width]
    return tf.constant(np.stack([5 * columns, 3 * rows], axis=-1).astype(np.uint8))


def slopes(image: NDArray[np.uint8]) -> tuple[float, float]:
    """Of the middle of a drawn ramp: old columns per new column, and old rows per new row."""
    middle = image.astype(float)[12:21, 15:26]
    return (
        float(np.diff(middle[..., 0], axis=1).mean() / 5),
        float(np.diff(middle[..., 1], axis=0).mean() / 3),
    )


def test_the_zoom_is_the_same_both_ways_and_keeps_the_middle() -> None:
    factors = []
    for number in range(40):
        result = changed(ramp(), number, zoom=0.25)
        columns, rows = slopes(result)
        assert columns == pytest.approx(rows, abs=0.08)
        np.testing.assert_allclose(result[16, 20], ramp()[16, 20], atol=1)
        factors.append(1 / columns)
    assert 0.72 < min(factors) < 0.85
    assert 1.15 < max(factors) < 1.28


def test_the_translation_goes_every_way_and_no_farther() -> None:
    moves = []
    for number in range(40):
        middle = changed(ramp(), number, translation=0.1)[16, 20].astype(float)
        moves.append(((middle[0] / 5 - 20) / 41, (middle[1] / 3 - 16) / 33))
    moved = np.array(moves)
    assert np.abs(moved).max() < 0.11
    assert (moved.min(axis=0) < -0.07).all()
    assert (moved.max(axis=0) > 0.07).all()


def windows(smallest: float, count: int = 300) -> NDArray[np.float64]:
    """Height and width of resized crops, top and left, as shares of the image's sides."""
    size = tf.constant([33.0, 41.0])
    draws = tf.stack([
        geometry.RESIZED_CROP.draw(seed(number), smallest) for number in range(count)
    ])  # fmt: skip
    matrices = np.float64(geometry.RESIZED_CROP.matrices(draws, size))
    width, height = matrices[:, 0, 0], matrices[:, 1, 1]
    left, top = matrices[:, 0, 2] - (width - 1) / 2, matrices[:, 1, 2] - (height - 1) / 2
    return np.stack([height, width, top / 33, left / 41], axis=1)


@pytest.mark.parametrize("smallest", [0.08, 0.25, 0.9])
def test_a_resized_crop_keeps_at_least_its_area_and_lies_within_the_image(smallest: float) -> None:
    """torchvision's `scale=(smallest, 1)`: areas are drawn evenly, and none is smaller."""
    height, width, top, left = windows(smallest).T
    areas = np.sort(height * width)
    assert areas[0] >= smallest - 1e-5
    assert areas[-1] <= 1 + 1e-5
    np.testing.assert_allclose(areas, np.linspace(smallest, 1, 300), atol=0.08 * (1 - smallest))
    assert (np.stack([top, left]) >= -1e-6).all()
    assert (np.stack([top + height, left + width]) <= 1 + 1e-6).all()
    shapes = width / height
    assert 0.75 - 1e-5 <= shapes.min() < 0.95
    assert 1.05 < shapes.max() <= 4 / 3 + 1e-5


def test_a_resized_crop_of_the_whole_area_is_none() -> None:
    assert not is_active(AugmentOptions(resized_crop_min_area=1.0))
    whole = windows(1.0, 5)
    np.testing.assert_array_equal(whole, np.tile([1.0, 1, 0, 0], (5, 1)))


def test_a_resized_crop_shows_a_part_of_the_image() -> None:
    areas = []
    for number in range(60):
        result = changed(ramp(), number, resized_crop_min_area=0.25)
        columns, rows = slopes(result)
        areas.append(columns * rows)
    assert 0.2 < min(areas) < 0.35
    assert 0.85 < max(areas) < 1.05


def test_the_share_left_out_is_no_option_any_more() -> None:
    """What was 0.7 is 0.3 now: never taken for the other; in configs from before, 0 is off."""
    assert resolve({"augment": {"resized_crop": 0.0}}, {}).augment == AugmentOptions()
    with pytest.raises(ConfigError, match=r"resized_crop is resized_crop_min_area now.*got .*0\.7"):
        resolve({"augment": {"resized_crop": 0.7}}, {})
    with pytest.raises(
        ConfigError, match=r"unknown .*augment.resized_corp.*mean augment.resized_crop_min_area"
    ):
        resolve({"augment": {"resized_corp": 0.7}}, {})


def test_the_vertical_flip_happens_half_of_the_time() -> None:
    image = picture()
    flips = sum(
        np.array_equal(changed(image, number, vertical_flip=True), image.numpy()[::-1])
        for number in range(400)
    )
    assert 150 < flips < 250


def test_a_rectangle_is_erased_as_often_as_asked() -> None:
    image = tf.fill([30, 40, 3], 100.0)
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
    pixels = tf.constant(photo(), tf.float32)
    found = to_uint8(trivial.CHANGES[name](pixels, strength_of(strength))).numpy()
    expected = np.asarray(change(Image.fromarray(photo())))
    assert (found != photo()).any()
    assert np.abs(found.astype(int) - expected).max() <= apart


@pytest.mark.parametrize("name", ["equalize", "posterize", "solarize", "auto_contrast"])
def test_changes_of_whole_values_take_others_too(name: str) -> None:
    """Within 0.4 of whole values, all but those at solarize's threshold become about the same."""
    generator = np.random.default_rng(2)
    between = tf.constant(photo() + generator.uniform(-0.4, 0.4, photo().shape), tf.float32)
    strength = strength_of(0.55)
    found, whole = (
        np.asarray(trivial.CHANGES[name](pixels, strength))
        for pixels in (between, tf.constant(photo(), tf.float32))
    )
    assert (np.abs(found - whole) <= 4).mean() > 0.98
    flat = tf.fill([4, 4, 1], 100.0) + tf.reshape(tf.linspace(0.0, 0.4, 16), [4, 4, 1])
    if name in ("auto_contrast", "equalize"):
        np.testing.assert_allclose(trivial.CHANGES[name](flat, strength), flat, atol=0.5)


def test_every_operation_of_trivial_augment_is_drawn_as_often() -> None:
    drawn = [trivial.draw(seed(number)) for number in range(700)]
    counts = np.bincount([int(number) for number, _ in drawn], minlength=14)
    assert counts.min() > 25
    assert counts.max() < 80
    strengths = np.array([float(strength) for _, strength in drawn])
    assert (strengths.min(), strengths.max()) == pytest.approx((-1, 1), abs=0.02)


def test_a_move_that_trivial_augment_draws_joins_the_others() -> None:
    """Of each operation, a draw: a move is the last of the product, what is none leaves it."""
    image, size = picture(9, 11), tf.constant([9.0, 11.0])
    found = set()
    for number in range(80):
        which, strength = trivial.draw(fold(seed(number), MOVES["trivial"][0]))
        name, share = trivial.NAMES[int(which)], tf.reshape(strength, [1])
        angle = np.radians(135) * share
        expected = {
            "rotate": geometry.turned(tf.cos(angle), tf.sin(angle), size),
            "shear_x": geometry.affine([1.0, 0.99 * share, 0.0, 0.0, 1.0, 0.0]),
            "shear_y": geometry.affine([1.0, 0.0, 0.0, 0.99 * share, 1.0, 0.0]),
            "translate_x": geometry.moved(0.0, tf.round(11 * share)),
            "translate_y": geometry.moved(tf.round(9 * share), 0.0),
        }.get(name)
        if expected is None:
            expected = geometry.moved(0.0, tf.zeros([1]))
            if name not in ("identity",):
                continue
        found.add(name)
        flip = geometry.HORIZONTAL_FLIP
        flipped = flip.matrices(flip.draw(fold(seed(number), 2), 1)[None], size)
        np.testing.assert_allclose(
            augment(
                image[None], seed(number)[None], AugmentOptions(horizontal_flip=True, trivial=True)
            )[0],
            resampled(image, flipped, expected),
            atol=0.05,
        )
    assert len(found) == 6


@pytest.mark.parametrize("name", ["color", "contrast", "brightness", "sharpness"])
def test_no_strength_changes_nothing(name: str) -> None:
    found = trivial.CHANGES[name](tf.constant(photo(), tf.float32), strength_of(0.0))
    np.testing.assert_allclose(found, photo(), atol=1e-4)


def test_grey_pixels_have_no_saturation() -> None:
    image = tf.repeat(tf.cast(picture(channels=1), tf.float32), 3, axis=-1)
    np.testing.assert_allclose(change_saturation(image, seed(1), 0.9), image, atol=1e-3)
