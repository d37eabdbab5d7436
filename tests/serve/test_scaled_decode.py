"""The JPEG decoder's own shrinking: when it acts, how far, and what it does to the pixels."""

import dataclasses
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from serve import images
from serve.image_spec import RESAMPLINGS, RESIZES, ImageSpec
from serve.images import SCALED_DECODE_MARGIN, read_image

Pixels = NDArray[np.uint8]
Size = tuple[int, int]

PHOTOS = {
    name: (Path(sklearn.__file__).parent / "datasets" / "images" / name).read_bytes()
    for name in ("china.jpg", "flower.jpg")
}
MEAN = {"crop": 1.0, "pad": 0.6, "stretch": 0.8}
"""Most that a photo may differ from its full decode, in grey steps, the mean of all pixels."""


@pytest.fixture
def decoded_sizes(monkeypatch: pytest.MonkeyPatch) -> list[Size]:
    """Width and height as decoded, before orientation and resize, of each image that is read."""
    sizes = []
    box = images._turned_box

    def spy(image: Image.Image, *arguments: Any) -> Any:
        sizes.append(image.size)
        return box(image, *arguments)

    monkeypatch.setattr(images, "_turned_box", spy)
    return sizes


def photo(
    size: Size,
    *,
    name: str = "china.jpg",
    kind: str = "JPEG",
    orientation: int = 1,
    **options: object,
) -> bytes:
    """A real photo of `size` as stored: width and height."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image = Image.open(io.BytesIO(PHOTOS[name])).resize(size, Image.Resampling.LANCZOS)
    if kind == "GIF":
        image = image.quantize()
    if kind not in ("BMP", "GIF"):
        options["exif"] = exif
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def without(spec: ImageSpec) -> ImageSpec:
    return dataclasses.replace(spec, scaled_decode=False)


def difference(pixels: Pixels, other: Pixels) -> NDArray[np.int64]:
    return np.abs(pixels.astype(np.int64) - other)


# When it acts, and how far


def test_it_is_on_unless_turned_off() -> None:
    assert ImageSpec(8, 8, 3).scaled_decode


@pytest.mark.parametrize(
    ("spec", "stored", "decoded"),
    [
        # A square cut out of 800x600: the shorter side decides. 64 * 2 = 128 of 600 is 1/4.
        (ImageSpec(64, 64, 3, "crop"), (800, 600), (200, 150)),
        # All of it within 64x64, so 64x48 pixels are needed: 128 of 800 is 1/4, 96 of 800 is 1/8.
        (ImageSpec(64, 64, 3, "pad"), (800, 600), (200, 150)),
        (ImageSpec(48, 48, 3, "pad"), (800, 600), (100, 75)),
        (ImageSpec(48, 48, 3, "crop"), (800, 600), (200, 150)),
        # Stretched, each side for itself must have enough: here 2 * 100 of 600.
        (ImageSpec(100, 50, 3, "stretch"), (800, 600), (400, 300)),
        (ImageSpec(50, 100, 3, "stretch"), (800, 600), (200, 150)),
        (ImageSpec(37, 50, 3, "stretch"), (800, 600), (100, 75)),
        # A tall target of a wide picture: crop needs 100 rows, pad 48 columns and 36 rows.
        (ImageSpec(100, 48, 3, "crop"), (800, 600), (400, 300)),
        (ImageSpec(100, 48, 3, "pad"), (800, 600), (100, 75)),
        # Half, and just not half any more.
        (ImageSpec(150, 150, 3, "crop"), (800, 600), (400, 300)),
        (ImageSpec(151, 151, 3, "crop"), (800, 600), (800, 600)),
        # Sides that the scale does not divide are rounded up.
        (ImageSpec(32, 32, 3, "crop"), (801, 603), (101, 76)),
        # Never below 1/8.
        (ImageSpec(4, 4, 3, "crop"), (800, 600), (100, 75)),
        (ImageSpec(4, 4, 1, "crop"), (800, 600), (100, 75)),
    ],
)
def test_the_scale_is_the_smallest_with_pixels_to_spare(
    spec: ImageSpec, stored: Size, decoded: Size, decoded_sizes: list[Size]
) -> None:
    read_image(photo(stored), spec)
    read_image(photo(stored), without(spec))
    assert decoded_sizes == [decoded, stored]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("resize", "decoded"),
    [("crop", (400, 300)), ("pad", (100, 75)), ("stretch", (400, 300))],
)
def test_a_turned_picture_is_measured_upright(
    resize: str, decoded: Size, orientation: int, decoded_sizes: list[Size]
) -> None:
    """Upright it is 800x600 for a target of 48x100; orientations 5 to 8 are stored lying."""
    lies = orientation >= 5
    stored = (600, 800) if lies else (800, 600)
    read_image(photo(stored, orientation=orientation), ImageSpec(100, 48, 3, resize))
    assert decoded_sizes == [decoded[::-1] if lies else decoded]


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("orientation", [1, 6])
def test_twice_the_pixels_needed_are_always_decoded(
    orientation: int, resize: str, decoded_sizes: list[Size]
) -> None:
    generator = np.random.default_rng(0)
    for _ in range(40):
        width, height, rows, columns = map(int, generator.integers(1, [500, 500, 90, 90]))
        spec = ImageSpec(rows, columns, 3, resize)
        read_image(photo((width, height), orientation=orientation), spec)
        got = decoded_sizes.pop()
        if got == (width, height):
            continue
        upright, full = (got, (width, height)) if orientation == 1 else (got[::-1], (height, width))
        ratios = columns / full[0], rows / full[1]
        if resize == "stretch":
            needed: tuple[float, float] = (columns, rows)
        else:
            scale = max(ratios) if resize == "crop" else min(ratios)
            needed = full[0] * scale, full[1] * scale
        assert upright[0] >= SCALED_DECODE_MARGIN * needed[0]
        assert upright[1] >= SCALED_DECODE_MARGIN * needed[1]


@pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": 0}, {"subsampling": 2}])
def test_every_kind_of_jpeg_is_shrunk(
    options: dict[str, object], decoded_sizes: list[Size]
) -> None:
    read_image(photo((800, 600), **options), ImageSpec(64, 64, 3))
    assert decoded_sizes == [(200, 150)]


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_jpegs_are_shrunk(mode: str, decoded_sizes: list[Size]) -> None:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(photo((800, 600)))).convert(mode).save(buffer, "JPEG")
    spec = ImageSpec(64, 64, 3)
    got = read_image(buffer.getvalue(), spec)
    assert difference(got, read_image(buffer.getvalue(), without(spec))).mean() < 1
    assert decoded_sizes == [(200, 150), (800, 600)]


def test_a_camera_file_of_several_pictures_is_shrunk(decoded_sizes: list[Size]) -> None:
    preview = Image.new("RGB", (160, 120))
    data = photo((800, 600), kind="MPO", save_all=True, append_images=[preview])
    spec = ImageSpec(64, 64, 3)
    got = read_image(data, spec)
    assert decoded_sizes == [(200, 150)]
    assert difference(got, read_image(data, without(spec))).mean() < 1


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_other_formats_are_decoded_in_full(kind: str, decoded_sizes: list[Size]) -> None:
    data = photo((400, 300), kind=kind)
    spec = ImageSpec(8, 8, 3)
    np.testing.assert_array_equal(read_image(data, spec), read_image(data, without(spec)))
    assert decoded_sizes == [(400, 300)] * 2


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("size", [(1, 1), (40, 60), (96, 64), (127, 255), (255, 127)])
def test_a_small_jpeg_gives_the_same_pixels_on_and_off(size: Size, resize: str) -> None:
    data = photo(size)
    spec = ImageSpec(64, 64, 3, resize)
    np.testing.assert_array_equal(read_image(data, spec), read_image(data, without(spec)))


# The pixels


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("resample", RESAMPLINGS)
def test_off_is_the_full_decode(resample: str, resize: str) -> None:
    """Against Pillow alone, without anything of the reader."""
    spec = ImageSpec(48, 36, 3, resize, resample, scaled_decode=False)
    size, method = (36, 48), RESAMPLINGS[resample]
    image = Image.open(io.BytesIO(PHOTOS["china.jpg"]))
    fitted = {
        "crop": lambda: ImageOps.fit(image, size, method),
        "pad": lambda: ImageOps.pad(image, size, method, color=(255, 255, 255)),
        "stretch": lambda: image.resize(size, method),
    }[resize]()
    np.testing.assert_array_equal(read_image(PHOTOS["china.jpg"], spec), np.asarray(fitted))


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("resample", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("side", [24, 50, 96])
def test_a_photo_looks_the_same(
    side: int, resample: str, resize: str, name: str, decoded_sizes: list[Size]
) -> None:
    data = photo((640, 424), name=name)
    spec = ImageSpec(side, side, 3, resize, resample)
    away = difference(read_image(data, spec), read_image(data, without(spec)))
    assert decoded_sizes[0] < decoded_sizes[1] == (640, 424)
    assert 0 < away.mean() < MEAN[resize]
    assert np.quantile(away, 0.999) < 12


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("name", PHOTOS)
def test_sides_that_the_scale_does_not_divide_are_not_stretched(
    name: str, resize: str, orientation: int
) -> None:
    """The last decoded pixel is only partly of the picture: 427 / 8 = 53.375 of 54."""
    data = photo((637, 427), name=name, orientation=orientation)
    spec = ImageSpec(24, 20, 3, resize)
    away = difference(read_image(data, spec), read_image(data, without(spec)))
    assert away.mean() < MEAN[resize]


@pytest.mark.parametrize("name", PHOTOS)
def test_bytes_and_paths_give_the_same(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(PHOTOS[name])
    spec = ImageSpec(50, 40, 3)
    expected = read_image(PHOTOS[name], spec)
    np.testing.assert_array_equal(read_image(path, spec), expected)
    np.testing.assert_array_equal(read_image(str(path), spec), expected)


def test_several_threads_read_the_same() -> None:
    jobs = [
        (data, ImageSpec(side, 40, 3, resize, scaled_decode=scaled))
        for data in PHOTOS.values()
        for side in (20, 60)
        for resize in RESIZES
        for scaled in (True, False)
    ]
    expected = [read_image(data, spec) for data, spec in jobs]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda job: read_image(*job), jobs * 5))
    for pixels, wanted in zip(got, expected * 5, strict=True):
        np.testing.assert_array_equal(pixels, wanted)
