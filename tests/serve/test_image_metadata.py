"""Metadata of which no pixel depends never costs an image, in whatever format."""

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from numpy.typing import NDArray
from PIL import Image

import serve
from serve.image_metadata import without_broken_metadata
from serve.image_spec import ImageSpec
from serve.images import ImageError, read_image, upright_size

Pixels = NDArray[np.uint8]
PIXELS = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
SPEC = ImageSpec(16, 24, 3)
UNEVEN = np.random.default_rng(1).bytes(3_000_000)
"""Does not get smaller by compression."""

EXIF = b"Exif\0\0"
BROKEN_EXIF = {
    "no TIFF": EXIF + b"\xff" * 40,
    "cut off": EXIF + b"II*\0",
    "nothing": EXIF,
    "directory beyond the end": EXIF + b"II*\0\xff\xff\xff\x7f",
    "directory of too many": EXIF + b"II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0\x01\0\0\0",
    "value beyond the end": EXIF
    + b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHLL", 0x8769, 4, 1, 0xFFFFFFF0) + b"\0" * 4,
    "type that is none": EXIF
    + b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHLL", 0x0112, 99, 1, 6) + b"\0" * 4,
    "orientation as text": EXIF
    + b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHL4s", 0x0112, 2, 4, b"six\0") + b"\0" * 4,
}  # fmt: skip


def encode(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    if kind == "HEIC":
        pillow_heif.from_pillow(Image.fromarray(PIXELS)).save(buffer, **options)
    else:
        Image.fromarray(PIXELS).save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def with_chunk(chunk: bytes, *, before: bytes = b"IDAT") -> bytes:
    content = encode("PNG")
    at = content.index(before) - 4
    return content[:at] + chunk + content[at:]


def with_segment(marker: int, data: bytes) -> bytes:
    content = encode("JPEG", quality=95)
    segment = bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data
    return content[:2] + segment + content[2:]


def profile_of(data: bytes) -> bytes:
    return png_chunk(b"iCCP", b"profile\0\0" + zlib.compress(data))


SOUND_PIXELS = {
    "profile over 1 MB": lambda: with_chunk(profile_of(UNEVEN)),
    "profile that is not compressed": lambda: with_chunk(png_chunk(b"iCCP", b"profile\0\0junk")),
    "profile of another method": lambda: with_chunk(png_chunk(b"iCCP", b"profile\0\1junk")),
    "profile cut off": lambda: with_chunk(png_chunk(b"iCCP", b"p")),
    "text over 1 MB": lambda: with_chunk(png_chunk(b"zTXt", b"k\0\0" + zlib.compress(UNEVEN))),
    "text over 1 MB at the end": lambda: with_chunk(
        png_chunk(b"zTXt", b"k\0\0" + zlib.compress(UNEVEN)), before=b"IEND"
    ),
    "international text over 1 MB": lambda: with_chunk(
        png_chunk(b"iTXt", b"k\0\1\0\0\0" + zlib.compress(UNEVEN))
    ),
    "text over 64 MB": lambda: with_chunk(
        png_chunk(b"zTXt", b"k\0\0" + zlib.compress(b" " * 1_000_000)) * 70
    ),
    "wrong checksum of a text": lambda: with_chunk(png_chunk(b"tEXt", b"k\0v")[:-1] + b"?"),
    "short gamma": lambda: with_chunk(png_chunk(b"gAMA", b"\0")),
    "short chromaticities": lambda: with_chunk(png_chunk(b"cHRM", b"\0" * 5)),
    "short size of a pixel": lambda: with_chunk(png_chunk(b"pHYs", b"\0")),
    "no rendering intent": lambda: with_chunk(png_chunk(b"sRGB", b"")),
    "EXIF of ImageMagick that is no hexadecimal": lambda: with_chunk(
        png_chunk(b"tEXt", b"Raw profile type exif\0\n\n\nnot hexadecimal")
    ),
    "garbage at the end": lambda: encode("PNG") + b"\0garbage" * 100,
    **{
        f"EXIF: {name}": lambda exif=exif: with_chunk(png_chunk(b"eXIf", exif[6:]))
        for name, exif in BROKEN_EXIF.items()
    },
    "EXIF at the end": lambda: with_chunk(png_chunk(b"eXIf", b"\xff" * 30), before=b"IEND"),
}


@pytest.mark.parametrize("kind", SOUND_PIXELS)
def test_a_png_is_read_whatever_its_metadata(kind: str) -> None:
    np.testing.assert_array_equal(read_image(SOUND_PIXELS[kind](), SPEC), PIXELS)


JPEG_SEGMENTS = {
    "short JFIF": (0xE0, b"JFIF\0"),
    "density of nothing": (0xE0, b"JFIF\0\1\1\1\0\0\0\0\0\0"),
    "short profile": (0xE2, b"ICC_PROFILE\0"),
    "profile of which parts are missing": (0xE2, b"ICC_PROFILE\0\7\x09junk"),
    "broken list of pictures": (0xE2, b"MPF\0II*\0\x08\0\0\0\0\0\0\0\0\0"),
    "list of pictures cut off": (0xE2, b"MPF\0II"),
    "Photoshop cut off": (0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\x10"),
    "short Adobe": (0xEE, b"Adobe"),
    "comment": (0xFE, b"\xff\0" * 100),
    "XMP of binary": (0xE1, b"http://ns.adobe.com/xap/1.0/\x00\xff\xfe\0" * 20),
    **{f"EXIF: {name}": (0xE1, exif) for name, exif in BROKEN_EXIF.items()},
}


@pytest.mark.parametrize("kind", JPEG_SEGMENTS)
def test_a_jpeg_is_read_whatever_its_metadata(kind: str) -> None:
    expected = read_image(encode("JPEG", quality=95), SPEC)
    content = with_segment(*JPEG_SEGMENTS[kind])
    np.testing.assert_array_equal(read_image(content, SPEC), expected)
    assert read_image(content, ImageSpec(4, 6, 3)).shape == (4, 6, 3)  # at a smaller scale, too


@pytest.mark.parametrize("kind", ["WEBP", "AVIF", "HEIC", "TIFF"])
@pytest.mark.parametrize("broken", BROKEN_EXIF)
def test_other_formats_are_read_whatever_their_exif(kind: str, broken: str) -> None:
    options = {} if kind == "TIFF" else {"exif": BROKEN_EXIF[broken]}
    if kind == "TIFF":  # whose directory is EXIF itself, and points to more of it
        options = {"tiffinfo": {0x8769: 0x7FFFFFF0, 0x8825: 3}}
    try:
        content = encode(kind, **options)
    except (ValueError, SyntaxError, RuntimeError, OSError, struct.error, KeyError, TypeError):
        content = replace_exif(kind, BROKEN_EXIF[broken])  # its encoder reads EXIF, too
    plain = read_image(encode(kind), SPEC)
    np.testing.assert_array_equal(read_image(content, SPEC), plain)
    assert upright_size(content) in ((SPEC.shape[:2], False), None)


def replace_exif(kind: str, broken: bytes) -> bytes:
    """An encoded image with sound EXIF, of which the bytes are then overwritten."""
    exif = Image.Exif()
    exif[0x010E] = "x" * 200
    content = encode(kind, exif=exif.tobytes())
    at = content.index(b"x" * 200) - 26
    return content[:at] + broken[6:].ljust(226, b"\xff") + content[at + 226 :]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF"])
def test_garbage_behind_the_picture_changes_nothing(kind: str) -> None:
    content = encode(kind)
    np.testing.assert_array_equal(
        read_image(content + b"<html>" * 50, SPEC), read_image(content, SPEC)
    )


def orientation_six() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@pytest.mark.parametrize(
    "broken", [profile_of(UNEVEN), png_chunk(b"gAMA", b"\0")], ids=["profile", "gamma"]
)
def test_orientation_is_kept_where_other_metadata_is_broken(broken: bytes) -> None:
    content = encode("PNG", exif=orientation_six())
    at = content.index(b"IDAT") - 4
    content = content[:at] + broken + content[at:]
    np.testing.assert_array_equal(read_image(content, ImageSpec(24, 16, 3)), np.rot90(PIXELS, -1))


def test_orientation_is_kept_where_a_jpegs_profile_is_broken() -> None:
    content = encode("JPEG", quality=95, exif=orientation_six())
    broken = content[:2] + b"\xff\xe2\0\x0eICC_PROFILE\0" + content[2:]
    spec = ImageSpec(24, 16, 3)
    np.testing.assert_array_equal(read_image(broken, spec), read_image(content, spec))


def test_what_the_pixels_depend_on_is_not_dropped() -> None:
    """A palette's transparency with a wrong checksum: without it other pixels would come out."""
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).quantize(8).save(buffer, "PNG", transparency=3)
    content = buffer.getvalue()
    at = content.index(b"tRNS") + 4 + 4
    broken = content[:at] + b"????" + content[at + 4 :]
    with pytest.raises(ImageError, match="corrupt image: "):
        read_image(broken, SPEC)


def test_colours_of_a_cmyk_jpeg_stay_where_its_profile_is_broken() -> None:
    buffer = io.BytesIO()
    Image.new("CMYK", (24, 16), (0, 255, 255, 0)).save(buffer, "JPEG", quality=100)
    content = buffer.getvalue()
    broken = content[:2] + b"\xff\xe2\0\x0eICC_PROFILE\0" + content[2:]
    np.testing.assert_array_equal(read_image(broken, SPEC), read_image(content, SPEC))
    assert read_image(broken, SPEC)[..., 0].min() > 250


@pytest.mark.parametrize("make", [lambda: encode("PNG"), lambda: encode("GIF"), lambda: b"words"])
def test_there_is_no_copy_of_what_has_no_broken_metadata(make: Callable[[], bytes]) -> None:
    assert without_broken_metadata(make()) is None


@pytest.mark.parametrize("chunk", [b"\xff\xff\xff\xff", b"\0\0\0\0"], ids=["long", "none"])
def test_lengths_that_are_wrong_end(chunk: bytes) -> None:
    for content in (encode("PNG")[:33] + chunk * 3, encode("JPEG")[:4] + chunk * 3):
        with pytest.raises(ImageError):
            read_image(content, SPEC)


def test_no_words_of_pillow_reach_the_terminal(tmp_path: Path) -> None:
    content = with_segment(*JPEG_SEGMENTS["EXIF: directory of too many"])
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.warns(UserWarning, match="EXIF"), Image.open(io.BytesIO(content)) as image:
        image.getexif()
    code = "import serve, sys; serve.read_image(sys.argv[1], serve.ImageSpec(8, 8, 3))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, tmp_path / "a.jpg"],
        cwd=Path(serve.__file__).parents[1],
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")
