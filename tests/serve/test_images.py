"""The image reader: which pixels a file becomes, and which files are refused with which reason."""

import dataclasses
import io
import math
import os
import random
import re
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, TiffImagePlugin

import serve
from serve.command import LockstepError
from serve.image_formats import EXTENSIONS, PILLOW_FORMATS
from serve.image_spec import MOST_PIXELS, MOST_SIDE, RESAMPLINGS, RESIZES, ImageSpec
from serve.images import (
    DECLARED_PER_DECODED,
    SCALED_DECODE_MARGIN,
    ImageError,
    encode_png,
    fit_pixels,
    read_image,
    to_pillow,
)

Pixels = NDArray[np.uint8]
SOURCE_ROOT = Path(serve.__file__).parents[1]
SAVE_OPTIONS = {"WEBP": {"lossless": True, "exact": True}, "JPEG": {"quality": 95}}


def noise(*shape: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encode(image: Image.Image | Pixels, kind: str, **options: object) -> bytes:
    picture = image if isinstance(image, Image.Image) else to_pillow(image)
    buffer = io.BytesIO()
    picture.save(buffer, kind, **{**SAVE_OPTIONS.get(kind, {}), **options})
    return buffer.getvalue()


def spec_of(pixels: Pixels, channels: int = 3, **options: object) -> ImageSpec:
    """The spec that leaves the size of `pixels` alone."""
    return ImageSpec(pixels.shape[0], pixels.shape[1], channels, **options)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def raw_png(width: int, height: int, depth: int, colour: int, rows: list[bytes] | None) -> bytes:
    """A PNG made by hand; without `rows` it is a header that promises pixels and has none."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [png_chunk(b"IHDR", header)]
    if rows is not None:
        data = zlib.compress(b"".join(b"\0" + row for row in rows))
        chunks += [png_chunk(b"IDAT", data), png_chunk(b"IEND", b"")]
    else:
        chunks.append(png_chunk(b"IDAT", zlib.compress(b"\0" * 8)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def reason_for(source: bytes | str | Path, spec: ImageSpec | None = None) -> str:
    """Why `source` is refused: one line."""
    with pytest.raises(ImageError) as caught:
        read_image(source, spec or ImageSpec(8, 8, 3))
    reason = str(caught.value)
    assert reason and "\n" not in reason
    return reason


# Formats and modes


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_lossless_formats_give_the_exact_pixels(kind: str) -> None:
    palette = np.array([[255, 0, 0], [0, 255, 0], [10, 20, 30], [250, 251, 252]], np.uint8)
    pixels = palette[noise(6, 9) % 4]
    got = read_image(encode(pixels, kind), spec_of(pixels))
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, pixels)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_blocks_of_one_grey_are_exact(channels: int) -> None:
    values = np.array([[0, 60, 130], [255, 200, 17]], np.uint8)
    pixels = values.repeat(8, axis=0).repeat(8, axis=1)
    got = read_image(encode(pixels, "JPEG", quality=100), spec_of(pixels, channels))
    np.testing.assert_array_equal(got, np.repeat(pixels[..., None], channels, axis=2))


@pytest.mark.parametrize("progressive", [False, True])
def test_colour_jpeg_gives_what_pillow_decodes(progressive: bool) -> None:
    data = encode(noise(17, 23, 3), "JPEG", progressive=progressive)
    expected = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(read_image(data, ImageSpec(17, 23, 3)), expected)


@pytest.mark.parametrize("kind", PILLOW_FORMATS)
def test_every_format_has_an_extension_and_is_read_in_grey_and_rgb(kind: str) -> None:
    data = encode(np.full((5, 4, 3), 90, np.uint8), kind)
    for channels in (1, 3):
        got = read_image(data, ImageSpec(5, 4, channels))
        np.testing.assert_array_equal(got, np.full((5, 4, channels), 90))
    assert f".{kind.lower()}" in EXTENSIONS


def test_grey_becomes_three_equal_channels() -> None:
    pixels = noise(4, 5)
    got = read_image(encode(pixels, "PNG"), spec_of(pixels, 3))
    np.testing.assert_array_equal(got, np.stack([pixels] * 3, axis=2))


def test_rgb_becomes_grey_by_itu_luma() -> None:
    pixels = noise(16, 16, 3)
    red, green, blue = (pixels[..., channel].astype(np.int64) for channel in range(3))
    luma = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
    got = read_image(encode(pixels, "PNG"), spec_of(pixels, 1))
    np.testing.assert_array_equal(got[..., 0], luma)


@pytest.mark.parametrize("background", [0, 100, 255])
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparent_pixels_show_the_background(kind: str, background: int) -> None:
    pixels = np.array(
        [[[200, 100, 0, 0], [200, 100, 0, 255], [200, 100, 0, 128]]], np.uint8
    )  # clear, solid, half
    got = read_image(
        encode(Image.fromarray(pixels), kind), ImageSpec(1, 3, 3, background=background)
    )
    assert got[0, 0].tolist() == [background] * 3
    assert got[0, 1].tolist() == [200, 100, 0]
    half = (np.array([200, 100, 0]) * 128 + background * 127) / 255
    np.testing.assert_allclose(got[0, 2], half, atol=1)


def test_grey_with_alpha_over_the_background() -> None:
    pixels = np.array([[[40, 0], [40, 255]]], np.uint8)
    data = encode(Image.fromarray(pixels, "LA"), "PNG")
    got = read_image(data, ImageSpec(1, 2, 1, background=9))
    assert got.ravel().tolist() == [9, 40]


def palette_image() -> Image.Image:
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    image.putpalette([250, 0, 0, 0, 240, 0, 0, 0, 230])
    return image


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP"])
def test_palette_without_transparency(kind: str) -> None:
    got = read_image(encode(palette_image(), kind), ImageSpec(2, 2, 3))
    assert got.tolist() == [[[250, 0, 0], [0, 240, 0]], [[0, 0, 230], [0, 240, 0]]]


@pytest.mark.parametrize(
    ("kind", "transparency"), [("PNG", 1), ("GIF", 1), ("PNG", b"\xff\x00\xff")]
)
def test_palette_with_a_transparent_entry(kind: str, transparency: int | bytes) -> None:
    data = encode(palette_image(), kind, transparency=transparency)
    got = read_image(data, ImageSpec(2, 2, 3, background=77))
    assert got.tolist() == [[[250, 0, 0], [77, 77, 77]], [[0, 0, 230], [77, 77, 77]]]


def test_rgb_with_a_transparent_colour() -> None:
    pixels = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    data = encode(pixels, "PNG", transparency=(4, 5, 6))
    got = read_image(data, ImageSpec(1, 2, 3, background=50))
    assert got.tolist() == [[[1, 2, 3], [50, 50, 50]]]


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_one_bit_is_black_and_white(kind: str) -> None:
    bits = noise(5, 11) > 127
    got = read_image(encode(Image.fromarray(bits), kind), ImageSpec(5, 11, 1))
    np.testing.assert_array_equal(got[..., 0], bits * np.uint8(255))


@pytest.mark.parametrize(
    ("inks", "colour"),
    [
        ((0, 0, 0, 0), (255, 255, 255)),
        ((0, 0, 0, 255), (0, 0, 0)),
        ((0, 255, 255, 0), (255, 0, 0)),
        ((255, 0, 255, 0), (0, 255, 0)),
        ((255, 255, 0, 0), (0, 0, 255)),
    ],
)
def test_cmyk_jpeg_becomes_rgb(inks: tuple[int, ...], colour: tuple[int, ...]) -> None:
    data = encode(Image.new("CMYK", (16, 16), inks), "JPEG", quality=100)
    got = read_image(data, ImageSpec(16, 16, 3))
    np.testing.assert_allclose(got, np.broadcast_to(colour, (16, 16, 3)), atol=2)


def test_sixteen_bit_grey_keeps_the_upper_eight() -> None:
    wide = np.array([[0, 255, 256, 0x12FF, 0x1300, 0x8000, 0xFF00, 0xFFFF]], np.uint16)
    got = read_image(encode(Image.fromarray(wide), "PNG"), ImageSpec(1, 8, 1))
    assert got.ravel().tolist() == [0, 0, 1, 0x12, 0x13, 0x80, 0xFF, 0xFF]


@pytest.mark.parametrize(("colour_type", "samples"), [(2, 3), (4, 2), (6, 4)])
def test_sixteen_bit_colour_and_alpha_keep_the_upper_eight(colour_type: int, samples: int) -> None:
    wide = np.random.default_rng(1).integers(0, 65536, (3, 4, samples), dtype=np.uint16)
    if samples in (2, 4):
        wide[..., -1] = 0xFFFF  # opaque
    data = raw_png(4, 3, 16, colour_type, [row.astype(">u2").tobytes() for row in wide])
    upper = (wide >> 8).astype(np.uint8)
    expected = upper[..., :3] if samples >= 3 else np.repeat(upper[..., :1], 3, axis=2)
    np.testing.assert_array_equal(read_image(data, ImageSpec(3, 4, 3)), expected)


def test_camera_jpeg_with_several_pictures_gives_the_first() -> None:
    photo, preview = noise(16, 24, 3), noise(8, 12, 3, seed=1)
    several = encode(photo, "MPO", save_all=True, append_images=[to_pillow(preview)])
    assert Image.open(io.BytesIO(several)).n_frames == 2
    alone = encode(photo, "JPEG", quality=75)
    np.testing.assert_array_equal(
        read_image(several, ImageSpec(16, 24, 3)), read_image(alone, ImageSpec(16, 24, 3))
    )


# EXIF orientation: how the upright picture has to be turned to be stored under each value.

TO_STORED: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda upright: upright,
    2: np.fliplr,
    3: lambda upright: np.rot90(upright, 2),
    4: np.flipud,
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: np.rot90(upright, 2).swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}


def turned(upright: Pixels, orientation: int, kind: str, **options: object) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(TO_STORED[orientation](upright))
    return encode(stored, kind, exif=exif, **options)


@pytest.mark.parametrize("orientation", TO_STORED)
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_exif_orientation_gives_the_upright_pixels(kind: str, orientation: int) -> None:
    upright = noise(5, 7, 3)
    data = turned(upright, orientation, kind)
    np.testing.assert_array_equal(read_image(data, spec_of(upright)), upright)


@pytest.mark.parametrize("orientation", TO_STORED)
def test_exif_orientation_of_a_jpeg(orientation: int) -> None:
    blocks = np.array([[0, 60, 130], [255, 200, 17]], np.uint8)
    upright = blocks.repeat(8, axis=0).repeat(8, axis=1)
    data = turned(upright, orientation, "JPEG", quality=100)
    np.testing.assert_array_equal(read_image(data, spec_of(upright, 1))[..., 0], upright)


@pytest.mark.parametrize("orientation", [0, 9, 300])
def test_unknown_orientation_changes_nothing(orientation: int) -> None:
    pixels = noise(5, 7, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(pixels, "PNG", exif=exif)
    np.testing.assert_array_equal(read_image(data, spec_of(pixels)), pixels)


# Fitting to the size


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("resample", RESAMPLINGS)
@pytest.mark.parametrize("shape", [(6, 9), (6, 9, 3), (1, 1), (1, 1, 3)])
def test_the_right_size_is_left_exactly_alone(
    shape: tuple[int, ...], resample: str, resize: str
) -> None:
    pixels = noise(*shape)
    channels = 1 if len(shape) == 2 else 3
    spec = spec_of(pixels, channels, resize=resize, resample=resample)
    expected = pixels.reshape(spec.shape)
    np.testing.assert_array_equal(read_image(encode_png(pixels), spec), expected)
    np.testing.assert_array_equal(fit_pixels(pixels, spec), expected)


def test_crop_cuts_the_middle_out() -> None:
    wide, tall = noise(4, 10), noise(10, 4)
    spec = ImageSpec(4, 4, 1, resize="crop")
    np.testing.assert_array_equal(fit_pixels(wide, spec)[..., 0], wide[:, 3:7])
    np.testing.assert_array_equal(fit_pixels(tall, spec)[..., 0], tall[3:7])


def test_crop_scales_until_both_sides_are_covered() -> None:
    pixels = noise(2, 6)
    got = fit_pixels(pixels, ImageSpec(4, 4, 1, resize="crop", resample="nearest"))
    np.testing.assert_array_equal(got[..., 0], pixels[:, 2:4].repeat(2, axis=0).repeat(2, axis=1))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("background", [0, 200])
def test_pad_fills_the_rest_with_the_background(channels: int, background: int) -> None:
    pixels = noise(2, 4)
    spec = ImageSpec(4, 4, channels, resize="pad", background=background)
    expected = np.full((4, 4, channels), background)
    expected[1:3] = pixels[..., None]
    np.testing.assert_array_equal(fit_pixels(pixels, spec), expected)


def test_pad_scales_until_both_sides_fit() -> None:
    pixels = noise(2, 1)
    spec = ImageSpec(4, 4, 1, resize="pad", resample="nearest", background=3)
    expected = np.full((4, 4), 3)
    expected[:, 1:3] = pixels.repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(fit_pixels(pixels, spec)[..., 0], expected)


def test_stretch_ignores_the_aspect_ratio() -> None:
    pixels = noise(2, 3, 3)
    spec = ImageSpec(6, 6, 3, resize="stretch", resample="nearest")
    expected = pixels.repeat(3, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(fit_pixels(pixels, spec), expected)


@pytest.mark.parametrize("resample", ["bilinear", "bicubic", "lanczos"])
def test_shrinking_is_antialiased(resample: str) -> None:
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    got = fit_pixels(board, ImageSpec(8, 8, 1, resample=resample))
    np.testing.assert_allclose(got[2:-2, 2:-2], 127.5, atol=4)


def test_nearest_is_not_antialiased() -> None:
    board = (np.indices((63, 63)).sum(axis=0) % 2 * 255).astype(np.uint8)
    got = fit_pixels(board, ImageSpec(9, 9, 1, resample="nearest"))
    assert set(got.ravel().tolist()) == {0, 255}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("resample", RESAMPLINGS)
@pytest.mark.parametrize("shape", [(9, 13), (9, 13, 1), (9, 13, 3), (30, 4, 3)])
def test_fit_pixels_is_reading_the_encoded_array(
    shape: tuple[int, ...], resample: str, resize: str, channels: int
) -> None:
    pixels = noise(*shape)
    spec = ImageSpec(10, 8, channels, resize=resize, resample=resample, background=31)
    np.testing.assert_array_equal(fit_pixels(pixels, spec), read_image(encode_png(pixels), spec))


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 4), np.float32),
        np.zeros((4, 4), np.int64),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((2, 4, 4, 3), np.uint8),
        np.zeros(4, np.uint8),
    ],
    ids=lambda pixels: f"{pixels.dtype}-{pixels.shape}",
)
def test_fit_pixels_refuses_other_arrays(pixels: NDArray[np.generic]) -> None:
    with pytest.raises(ImageError, match="expected uint8 pixels") as caught:
        fit_pixels(pixels, ImageSpec(4, 4, 3))
    assert str(list(pixels.shape)) in str(caught.value)


def test_bytes_path_and_text_path_give_the_same(tmp_path: Path) -> None:
    data = encode(noise(20, 30, 3), "JPEG")
    file = tmp_path / "photo.of.something"
    file.write_bytes(data)
    spec = ImageSpec(8, 8, 3)
    expected = read_image(data, spec)
    np.testing.assert_array_equal(read_image(file, spec), expected)
    np.testing.assert_array_equal(read_image(str(file), spec), expected)


def test_the_content_decides_and_not_the_name(tmp_path: Path) -> None:
    pixels = noise(4, 4, 3)
    file = tmp_path / "really-a-png.jpg"
    file.write_bytes(encode_png(pixels))
    np.testing.assert_array_equal(read_image(file, spec_of(pixels)), pixels)


# Decoding a JPEG at a smaller scale


def smooth(height: int, width: int) -> Pixels:
    """A picture like a photo: mostly low frequencies."""
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows / 31 + channel) + np.cos(columns / (23 + channel)) for channel in range(3)]
    return (np.stack(waves, axis=2) * 60 + 128).astype(np.uint8)


def fitted_by_pillow(image: Image.Image, spec: ImageSpec) -> Pixels:
    size, method = (spec.width, spec.height), RESAMPLINGS[spec.resample]
    if spec.resize == "stretch":
        return np.asarray(image.resize(size, method))
    fit = ImageOps.fit if spec.resize == "crop" else ImageOps.pad
    return np.asarray(fit(image, size, method, **({} if fit is ImageOps.fit else {"color": 0})))


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("shape", [(600, 400), (256, 256), (129, 1000)], ids=str)
def test_scaled_decoding_is_nearly_full_decoding(shape: tuple[int, int], resize: str) -> None:
    data = encode(smooth(*shape), "JPEG", quality=95)
    scaled = ImageSpec(16, 16, 3, resize=resize, background=0)
    full = dataclasses.replace(scaled, scaled_decode=False)
    exact = fitted_by_pillow(Image.open(io.BytesIO(data)), full)
    np.testing.assert_array_equal(read_image(data, full), exact)
    got = read_image(data, scaled).astype(int)
    assert (got != exact).any()
    assert np.abs(got - exact).mean() < 2.5


@pytest.mark.parametrize(
    ("factor", "scale"), [(1, 1), (3.9, 1), (4, 2), (7.9, 2), (8, 4), (15.9, 4), (16, 8), (40, 8)]
)
def test_the_decoder_leaves_some_work_to_the_resize(factor: float, scale: int) -> None:
    side = 32
    stored = math.floor(side * factor)
    image = Image.open(io.BytesIO(encode(noise(stored, stored, 3), "JPEG")))
    spec = ImageSpec(side, side, 3)
    expected = Image.open(io.BytesIO(encode(noise(stored, stored, 3), "JPEG")))
    expected.draft(None, (-(-stored // scale), -(-stored // scale)))
    assert expected.size == (-(-stored // scale),) * 2
    assert expected.width >= side * min(factor, SCALED_DECODE_MARGIN) - 1
    got = read_image(encode(noise(stored, stored, 3), "JPEG"), spec)
    np.testing.assert_array_equal(got, fitted_by_pillow(expected, spec))
    if scale > 1:
        assert (got != fitted_by_pillow(image, spec)).any()


@pytest.mark.parametrize("orientation", TO_STORED)
@pytest.mark.parametrize("resize", RESIZES)
def test_scaled_decoding_takes_orientation_into_account(orientation: int, resize: str) -> None:
    data = turned(noise(512, 96, 3), orientation, "JPEG")
    spec = ImageSpec(128, 24, 3, resize=resize)
    stored = Image.open(io.BytesIO(data))
    stored.draft(None, (stored.width // 2, stored.height // 2))
    expected = fitted_by_pillow(ImageOps.exif_transpose(stored), spec)
    np.testing.assert_array_equal(read_image(data, spec), expected)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF"])
def test_only_jpegs_are_decoded_at_a_smaller_scale(kind: str) -> None:
    data = encode(noise(200, 200, 3), kind)
    spec = ImageSpec(8, 8, 3)
    full = dataclasses.replace(spec, scaled_decode=False)
    np.testing.assert_array_equal(read_image(data, spec), read_image(data, full))


# Refusals


@pytest.mark.parametrize("kind", PILLOW_FORMATS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_files_are_refused(kind: str, share: float, tmp_path: Path) -> None:
    data = encode(noise(40, 40, 3), kind)
    cut = data[: int(len(data) * share)]
    file = tmp_path / "cut"
    file.write_bytes(cut)
    assert reason_for(cut).startswith("corrupt image: ")
    assert reason_for(file) == reason_for(cut)


def test_empty_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    assert reason_for(tmp_path / "empty.png") == "empty: 0 bytes"
    assert reason_for(b"") == "empty: 0 bytes"


@pytest.mark.parametrize("content", [b"just text\n", b"\0", b"\x89PNG", b"GIF89a", b"\xff\xd8"])
def test_other_content_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "picture.jpg"
    file.write_bytes(content)
    reason = reason_for(file)
    assert re.match("not an image: expected JPEG|corrupt image: ", reason)
    assert reason_for(content) == reason


def test_a_text_file_is_no_image() -> None:
    assert reason_for(b"just text\n") == (
        "not an image: expected JPEG, PNG, WEBP, BMP, GIF, TIFF, AVIF, HEIC"
    )


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF"])
def test_animations_are_refused(kind: str) -> None:
    frames = [to_pillow(noise(8, 8, 3, seed=seed)) for seed in range(3)]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    assert reason_for(data).startswith("animated image: expected a still image")


def test_one_pixel_more_than_allowed_is_refused() -> None:
    data = encode_png(noise(10, 12))
    reason = reason_for(data, ImageSpec(4, 4, 1, max_pixels=119))
    assert reason.startswith("image of 12x10 = 120 pixels: expected at most 119")
    assert read_image(data, ImageSpec(4, 4, 1, max_pixels=120)).shape == (4, 4, 1)


def test_a_promise_of_too_many_pixels_is_refused_before_decoding() -> None:
    spec = ImageSpec(8, 8, 3)
    bomb = reason_for(raw_png(50_000, 50_000, 8, 2, None), spec)
    assert bomb == "decompression bomb: expected at most 50,000,000 pixels"
    large = reason_for(raw_png(8_000, 8_000, 8, 2, None), spec)
    assert large.startswith("image of 8000x8000 = 64,000,000 pixels: expected at most 50,000,000")
    gif = b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"," + b"\0" * 9 + b"\2\0;"
    assert reason_for(gif, spec).startswith("decompression bomb: ")


def test_what_pillow_only_warns_of_is_refused_too() -> None:
    """Above its limit, which is raised to `MOST_DECLARED_PIXELS`, up to twice that."""
    code = (
        "import sys, serve\n"
        "data = sys.stdin.buffer.read()\n"
        "try: serve.read_image(data, serve.ImageSpec(8, 8, 3, max_pixels=250_000_000))\n"
        "except serve.ImageError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=raw_png(40_000, 40_000, 8, 2, None),
        capture_output=True,
        cwd=SOURCE_ROOT,
        timeout=60,
        check=True,
    )
    assert done.stdout.decode().startswith("decompression bomb: ")
    assert done.stderr == b""


@pytest.mark.parametrize("kind", ["TIFF", "AVIF", "WEBP", "JPEG"])
def test_the_limit_holds_for_every_format_before_decoding(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encode(noise(40, 50, 3), kind)
    for loader in (ImageFile.ImageFile, TiffImagePlugin.TiffImageFile):
        monkeypatch.setattr(loader, "load", lambda image: pytest.fail("decoded"))
    reason = reason_for(data, ImageSpec(40, 50, 3, max_pixels=1999))
    assert reason.startswith("image of 50x40 = 2,000 pixels: expected at most 1,999")


def test_of_a_jpeg_the_pixels_that_are_decoded_count() -> None:
    """As of a photo of 108 megapixels, and with the default limit, but sixteen times smaller."""
    data = encode(np.zeros((3000, 2250), np.uint8), "JPEG")
    pixels = 3000 * 2250
    assert read_image(data, ImageSpec(96, 96, 1, max_pixels=pixels // 2)).shape == (96, 96, 1)
    unscaled = ImageSpec(96, 96, 1, max_pixels=pixels // 2, scaled_decode=False)
    assert reason_for(data, unscaled).startswith("image of 2250x3000 = 6,750,000 pixels")
    large = ImageSpec(1600, 1600, 1, max_pixels=pixels // 2)  # decoded at full size
    assert reason_for(data, large).startswith("image of 2250x3000 = 6,750,000 pixels")
    least = -(-pixels // DECLARED_PER_DECODED)
    assert read_image(data, ImageSpec(8, 8, 1, max_pixels=least)).shape == (8, 8, 1)
    reason = reason_for(data, ImageSpec(8, 8, 1, max_pixels=least - 1))
    assert reason.startswith("image of 2250x3000 = 6,750,000 pixels: expected at most 6,749,996")


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width"), [(12_000, 9_000), (16_320, 12_240)])
def test_the_photos_of_todays_phones_are_read(height: int, width: int) -> None:
    data = encode(np.full((height, width), 77, np.uint8), "JPEG")
    np.testing.assert_array_equal(read_image(data, ImageSpec(96, 96, 3)), np.full((96, 96, 3), 77))


@pytest.mark.slow
def test_a_raised_limit_has_effect() -> None:
    data = encode(Image.new("1", (10_000, 10_000), 1), "PNG")
    assert reason_for(data).startswith("image of 10000x10000 = 100,000,000 pixels")
    assert read_image(data, ImageSpec(8, 8, 1, max_pixels=100_000_000)).min() == 255


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    assert reason_for(tmp_path / "nowhere.png") == "no such file"
    assert reason_for(tmp_path) == "not a regular file"
    assert reason_for(tmp_path / ("x" * 300)) == "cannot be read: File name too long"
    assert reason_for(str(tmp_path / "a\0b.png")) == "no such file"


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    reasons: list[str] = []
    reader = threading.Thread(target=lambda: reasons.append(reason_for(pipe)), daemon=True)
    reader.start()
    reader.join(timeout=20)
    assert reasons == ["not a regular file"]


# The spec


@pytest.mark.parametrize("field", ["height", "width", "max_pixels"])
@pytest.mark.parametrize("value", [0, -1, 2.0, "8", None, True])
def test_spec_refuses_bad_sizes(field: str, value: object) -> None:
    with pytest.raises(LockstepError, match=f"{field} to be an integer of at least 1") as caught:
        ImageSpec(**{"height": 8, "width": 8, "channels": 3, field: value})
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("channels", value) for value in (0, 2, 4, "3", None, True, 1.0, 3.0)),
        *(("resize", value) for value in ("", "Crop", None, [])),
        *(("resample", value) for value in ("", "cubic", None, 2)),
        *(("background", value) for value in (-1, 256, 1.5, "white", None, True)),
        *(("scaled_decode", value) for value in (0, 1, "true", None, [])),
    ],
)
def test_spec_refuses_bad_choices(field: str, value: object) -> None:
    with pytest.raises(LockstepError, match=f"image spec: expected {field} ") as caught:
        ImageSpec(**{"height": 8, "width": 8, "channels": 3, field: value})
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("height", "width"), [(MOST_SIDE + 1, 8), (8, MOST_SIDE + 1), (10**9, 10**9)]
)
def test_spec_refuses_arrays_that_are_too_large(height: int, width: int) -> None:
    with pytest.raises(LockstepError) as caught:
        ImageSpec(height, width, 3)
    assert str(caught.value) == (
        f"image spec: expected height and width of at most 4096, got {height}x{width}"
    )
    assert ImageSpec(MOST_SIDE, MOST_SIDE, 3).shape == (MOST_SIDE, MOST_SIDE, 3)


@pytest.mark.parametrize("value", [MOST_PIXELS + 1, 10**12])
def test_spec_refuses_a_limit_that_is_none(value: int) -> None:
    with pytest.raises(LockstepError, match=f"max_pixels of at most {MOST_PIXELS}, got {value}"):
        ImageSpec(8, 8, 3, max_pixels=value)
    assert ImageSpec(8, 8, 3, max_pixels=MOST_PIXELS).max_pixels == MOST_PIXELS


def test_spec_is_frozen_and_comparable() -> None:
    spec = ImageSpec(2, 3, 1)
    assert spec.shape == (2, 3, 1)
    assert spec == ImageSpec(2, 3, 1) != ImageSpec(3, 2, 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.height = 4  # type: ignore[misc]


def test_spec_survives_json() -> None:
    spec = ImageSpec(2, 3, 1, "pad", "lanczos", 7, 99, scaled_decode=False)
    document = spec.to_json()
    assert document == {
        "height": 2,
        "width": 3,
        "channels": 1,
        "resize": "pad",
        "resample": "lanczos",
        "background": 7,
        "max_pixels": 99,
        "scaled_decode": False,
    }
    assert ImageSpec.from_json(document) == spec


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(ImageSpec)])
def test_spec_from_json_wants_every_field(field: str) -> None:
    document = ImageSpec(2, 3, 1).to_json()
    del document[field]
    with pytest.raises(LockstepError, match="image spec: expected the fields"):
        ImageSpec.from_json(document)


@pytest.mark.parametrize("document", [None, [], "x", 3, {}, {"height": 8}])
def test_spec_from_json_refuses_other_documents(document: object) -> None:
    with pytest.raises(LockstepError, match="image spec: expected the fields"):
        ImageSpec.from_json(document)


def test_spec_from_json_refuses_unknown_fields() -> None:
    with pytest.raises(LockstepError, match="gamma"):
        ImageSpec.from_json({**ImageSpec(2, 3, 1).to_json(), "gamma": 1})


# Damaged files


def heic(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    pillow_heif.from_pillow(image).save(buffer)
    return buffer.getvalue()


def healthy_files() -> list[bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a description"
    colour = to_pillow(noise(12, 16, 3))
    return [
        encode(colour, "JPEG", exif=exif),
        encode(colour, "JPEG", progressive=True),
        encode(colour.convert("CMYK"), "JPEG"),
        encode(colour, "PNG", exif=exif),
        encode(colour.convert("P"), "PNG", transparency=3),
        encode(colour.convert("RGBA"), "PNG"),
        encode(Image.fromarray(noise(12, 16).astype(np.uint16) * 256), "PNG"),
        encode(colour, "WEBP", exif=exif),
        encode(colour, "WEBP", lossless=False),
        encode(colour, "BMP"),
        encode(colour.convert("P"), "BMP"),
        encode(colour.convert("P"), "GIF", transparency=0),
        encode(colour, "TIFF", exif=exif),
        encode(colour, "TIFF", compression="tiff_lzw"),
        encode(colour, "AVIF", exif=exif),
        heic(colour),
    ]


def damaged(data: bytes, others: list[bytes], dice: random.Random) -> bytes:
    """`data` with flipped bits, a part of another file in it, or without its end."""
    broken = bytearray(data)
    way = dice.choice(("flip", "flip", "header", "splice", "cut"))
    for _ in range(dice.randint(1, 6)):
        position = dice.randrange(min(60, len(broken)) if way == "header" else len(broken))
        if way == "cut":
            del broken[position + 1 :]
        elif way == "splice":
            other = dice.choice(others)
            start, length = dice.randrange(len(other)), dice.randint(1, 40)
            replaced = dice.choice((0, length))
            broken[position : position + replaced] = other[start : start + length]
        else:
            broken[position] ^= 1 << dice.randrange(8)
    return bytes(broken)


def test_a_png_with_a_chunk_of_no_name_is_refused() -> None:
    promise = raw_png(30, 30, 8, 0, None)  # its data ends too early, so the next chunk is looked at
    broken = promise + png_chunk(b"\x9f\xe1s\x10", b"?")
    assert reason_for(broken).startswith("corrupt image: broken PNG file")


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_give_pixels_or_an_image_error(seed: int) -> None:
    dice = random.Random(seed)
    files = healthy_files()
    spec = ImageSpec(8, 8, 3, max_pixels=1_000_000)
    read = refused = 0
    for turn in range(1000):
        data = damaged(files[turn % len(files)], files, dice)
        try:
            pixels = read_image(data, spec)
        except ImageError as error:
            assert str(error)
            refused += 1
            continue
        assert pixels.dtype == np.uint8
        assert pixels.shape == spec.shape
        read += 1
    assert read > 50  # the mutations reach the pixels
    assert refused > 50  # and the parsers


def test_transparency_of_16_bit_grey_is_kept(tmp_path: Path) -> None:
    """A PNG of 16-bit grey may name one value that is transparent."""
    wide = np.array([[0, 300], [40_000, 65_535]], np.uint16)
    path = tmp_path / "wide.png"
    Image.fromarray(wide).save(path, transparency=300)
    pixels = read_image(path, ImageSpec(2, 2, 1, background=9))
    np.testing.assert_array_equal(pixels[..., 0], [[0, 9], [40_000 >> 8, 255]])
