"""Which files are images by their content, and what becomes of each format."""

import io
import struct
import sys
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from numpy.typing import NDArray
from PIL import Image
from PIL import TiffImagePlugin as TiffPlugin

from serve.image_formats import EXTENSIONS, HEAD_BYTES, READ, is_image_file, recognise
from serve.image_spec import ImageSpec
from serve.images import ImageError, read_image, upright_size

Pixels = NDArray[np.uint8]


def noise(*shape: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encode(image: Image.Image | NDArray[np.generic], kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def heic(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    pillow_heif.from_pillow(image).save(buffer, **options)
    return buffer.getvalue()


def reason_for(source: bytes | Path, spec: ImageSpec | None = None) -> str:
    with pytest.raises(ImageError) as caught:
        read_image(source, spec or ImageSpec(8, 8, 3))
    return str(caught.value)


COLOUR = Image.fromarray(noise(6, 9, 3))
ENCODED = {
    "JPEG": encode(COLOUR, "JPEG"),
    "PNG": encode(COLOUR, "PNG"),
    "WEBP": encode(COLOUR, "WEBP"),
    "BMP": encode(COLOUR, "BMP"),
    "GIF": encode(COLOUR.quantize(), "GIF"),
    "TIFF": encode(COLOUR, "TIFF"),
    "AVIF": encode(COLOUR, "AVIF"),
    "HEIC": heic(COLOUR),
}


def test_every_format_that_is_read_is_here() -> None:
    assert list(ENCODED) == [kind.name for kind in READ]


@pytest.mark.parametrize("kind", ENCODED)
@pytest.mark.parametrize("name", ["photo", "photo.txt", "photo.jpg", "photo.tif", "photo.backup"])
def test_content_decides_whatever_the_name(kind: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(ENCODED[kind])
    assert is_image_file(path)
    assert recognise(ENCODED[kind][:HEAD_BYTES]).name == kind  # type: ignore[union-attr]
    spec = ImageSpec(6, 9, 3)
    np.testing.assert_array_equal(read_image(path, spec), read_image(ENCODED[kind], spec))
    assert upright_size(path) == ((6, 9), False)


@pytest.mark.parametrize("ending", sorted(EXTENSIONS))
def test_an_ending_of_an_image_makes_an_image_of_damaged_content(
    ending: str, tmp_path: Path
) -> None:
    path = tmp_path / f"photo{ending.upper()}"
    path.write_bytes(b"words")
    assert is_image_file(path)
    assert reason_for(path).startswith("not an image: expected JPEG, PNG")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.txt", b"BMW, Audi and Opel make cars. Some of them are red.\n"),
        ("notes.txt", b"P1 is the name of a car, P2 that of another\n"),
        ("page.html", b"<!DOCTYPE html><html><body><svg width='1'></svg></body></html>"),
        ("table.csv", b"path,label\na.png,cat\n"),
        ("array.npy", b"\x93NUMPY\x01\0"),
        ("clip.mp4", b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41"),
        ("clip.mov", b"\0\0\0\x14ftypqt  \0\0\0\0qt  "),
        ("paper.pdf", b"%PDF-1.7\n"),
        ("Thumbs.db", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"),
        ("empty", b""),
        ("zeros", b"\0" * 600),
    ],
)
def test_other_files_are_no_images(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert not is_image_file(tmp_path / name)


NOT_READ = [
    ("JPEG XL", b"\xff\x0a\xfa\x1f"),
    ("JPEG XL", b"\0\0\0\x0cJXL \r\n\x87\n"),
    ("JPEG 2000", b"\0\0\0\x0cjP  \r\n\x87\n"),
    ("JPEG 2000", b"\xff\x4f\xff\x51\0"),
    ("Photoshop", b"8BPS\0\1"),
    ("GIMP", b"gimp xcf v011\0"),
    ("EPS", b"%!PS-Adobe-3.0 EPSF-3.0\n"),
    ("SVG", b'<svg xmlns="http://www.w3.org/2000/svg"/>'),
    ("SVG", b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- by Inkscape -->\n<svg\n  width="1"/>'),
    ("icon", encode(COLOUR.resize((16, 16)), "ICO")),
    ("DDS", b"DDS \x7c\0\0\0"),
    ("OpenEXR", b"v/1\x01\2\0\0\0"),
    ("Radiance HDR", b"#?RADIANCE\n"),
    ("Netpbm", encode(COLOUR, "PPM")),
    ("Netpbm", b"P2\n# a comment\n2 2\n255\n0 1 2 3\n"),
    ("QOI", b"qoif\0\0\0\1"),
    ("SGI", encode(COLOUR, "SGI")),
    ("camera raw", b"II*\0\x10\0\0\0CR\x02\0"),
    ("camera raw", b"FUJIFILMCCD-RAW 0201"),
    ("camera raw", b"\0\0\0\x18ftypcrx \0\0\0\1crx isom"),
    ("DICOM", b"\0" * 128 + b"DICM"),
]


@pytest.mark.parametrize(
    ("name", "content"), NOT_READ, ids=[f"{n}-{k[0]}" for n, k in enumerate(NOT_READ)]
)
def test_a_format_that_is_not_read_is_named_and_says_what_to_do(
    name: str, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "nameless"
    path.write_bytes(content)
    assert is_image_file(path)
    for source in (path, content):
        reason = reason_for(source)
        assert reason.startswith(f"{name} image: this format is not read; ")
        assert "as JPEG or PNG" in reason or "as PNG" in reason


@pytest.mark.parametrize("ending", [".tga", ".nef", ".pcx"])
def test_a_format_that_only_its_ending_tells_is_named_by_it(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"photo{ending}"
    path.write_bytes(b"\x01" * 50)
    assert is_image_file(path)
    assert reason_for(path) == (f"{ending} file: this format is not read; save it as JPEG or PNG")


def test_an_mpo_is_an_image_whose_first_picture_is_read(tmp_path: Path) -> None:
    several = encode(COLOUR, "MPO", save_all=True, append_images=[COLOUR.rotate(180)])
    path = tmp_path / "photo.mpo"
    path.write_bytes(several)
    np.testing.assert_array_equal(
        read_image(path, ImageSpec(6, 9, 3)),
        read_image(encode(COLOUR, "JPEG", quality=75), ImageSpec(6, 9, 3)),
    )


# HEIC


def smooth() -> Image.Image:
    rows, columns = np.mgrid[:48, :64]
    return Image.fromarray(np.stack([rows * 5, columns * 3, rows + columns], 2).astype(np.uint8))


@pytest.mark.parametrize("channels", [1, 3])
def test_heic_gives_the_picture(channels: int) -> None:
    spec = ImageSpec(48, 64, channels)
    got = read_image(heic(smooth(), quality=95), spec)
    expected = read_image(encode(smooth(), "PNG"), spec)
    assert np.abs(got.astype(int) - expected).mean() < 2


def test_heic_is_turned_upright_once() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = heic(smooth(), quality=95, exif=exif.tobytes())  # turned by the container, too
    assert upright_size(data) == ((64, 48), False)
    got = read_image(data, ImageSpec(64, 48, 3))
    expected = np.asarray(smooth().transpose(Image.Transpose.ROTATE_270))
    assert np.abs(got.astype(int) - expected).mean() < 2


def test_of_several_pictures_in_a_heic_file_the_primary_is_read() -> None:
    file = pillow_heif.from_pillow(smooth())
    file.add_from_pillow(smooth().rotate(180))
    buffer = io.BytesIO()
    file.save(buffer, quality=95, primary_index=0)
    got = read_image(buffer.getvalue(), ImageSpec(48, 64, 3))
    assert np.abs(got.astype(int) - np.asarray(smooth())).mean() < 2


def test_heic_without_its_package_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("serve.images.importlib.util.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = tmp_path / "IMG_0001.HEIC"
    path.write_bytes(ENCODED["HEIC"])
    for source in (path, ENCODED["HEIC"]):
        assert reason_for(source) == (
            'HEIC image: needs another package; pip install "lockstep[heic]" (or pillow-heif), or '
            "save it as JPEG or PNG"
        )


@pytest.mark.parametrize("kind", ["HEIC", "AVIF"])
def test_a_damaged_container_is_corrupt(kind: str) -> None:
    assert reason_for(ENCODED[kind][:300]).startswith("corrupt image: ")
    brand = ENCODED[kind][8:12]
    assert reason_for(b"\0\0\0\x18ftyp" + brand + b"\0" * 500).startswith("corrupt image: ")


def test_the_limit_of_pixels_holds_for_heic_before_decoding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pillow_heif.HeifImageFile, "load", lambda image: pytest.fail("decoded"))
    reason = reason_for(heic(smooth()), ImageSpec(8, 8, 3, max_pixels=3071))
    assert reason.startswith("image of 64x48 = 3,072 pixels: expected at most 3,071")


# TIFF: the kinds of pixels, written by hand, as Pillow cannot write most of them


def tiff(
    samples: NDArray[np.generic],
    photometric: int,
    *,
    bits: int | None = None,
    order: str = "<",
    data: bytes | None = None,
    extra: dict[int, int] | None = None,
    planes: bool = False,
) -> bytes:
    """An uncompressed TIFF of `[height, width, channels]` in one strip for each plane."""
    height, width, channels = samples.shape
    stored = samples.astype(samples.dtype.newbyteorder(order))
    if data is None:
        data = (stored.transpose(2, 0, 1) if planes else stored).tobytes()
    strips = channels if planes else 1
    depth = bits or samples.dtype.itemsize * 8
    entries = {
        256: ("H", [width]), 257: ("H", [height]), 258: ("H", [depth] * channels),
        259: ("H", [1]), 262: ("H", [photometric]), 273: ("L", []), 277: ("H", [channels]),
        278: ("H", [height]), 279: ("L", [len(data) // strips] * strips),
        284: ("H", [2 if planes else 1]),
        **{tag: ("H", [value]) for tag, value in (extra or {}).items()},
    }  # fmt: skip
    start = 8
    entries[273] = ("L", [start + len(data) // strips * strip for strip in range(strips)])
    directory = start + len(data)
    long = directory + 2 + 12 * len(entries) + 4
    table, tail = struct.pack(f"{order}H", len(entries)), b""
    for tag, (kind, values) in sorted(entries.items()):
        packed = struct.pack(f"{order}{len(values)}{kind}", *values)
        if len(packed) > 4:
            field = struct.pack(f"{order}L", long + len(tail))
            tail += packed
        else:
            field = packed.ljust(4, b"\0")
        table += struct.pack(f"{order}HHL", tag, {"H": 3, "L": 4}[kind], len(values)) + field
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}L", directory)
    return head + data + table + b"\0\0\0\0" + tail


WIDE = np.random.default_rng(3).integers(0, 65536, (5, 7, 3), dtype=np.uint16)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [0, 1])
def test_grey_tiff_of_16_bits_keeps_the_upper_eight(order: str, photometric: int) -> None:
    grey = WIDE[..., :1]
    content = tiff(grey, photometric, order=order)
    shown = 65535 - grey if photometric == 0 else grey
    if photometric == 0 and order == ">":  # which Pillow does not know
        assert reason_for(content).startswith("corrupt image: its header is damaged, or it is an")
    else:
        np.testing.assert_array_equal(read_image(content, ImageSpec(5, 7, 1)), shown >> 8)


@pytest.mark.parametrize("order", ["<", ">"])
def test_colour_tiff_of_16_bits_keeps_the_upper_eight(order: str) -> None:
    got = read_image(tiff(WIDE, 2, order=order), ImageSpec(5, 7, 3))
    np.testing.assert_array_equal(got, WIDE >> 8)


def test_planes_of_8_bits_are_read_and_wider_ones_refused() -> None:
    eight = noise(5, 7, 3)
    np.testing.assert_array_equal(
        read_image(tiff(eight, 2, planes=True), ImageSpec(5, 7, 3)), eight
    )
    reason = reason_for(tiff(WIDE, 2, planes=True))  # Pillow would mix up the channels
    assert reason.startswith("TIFF of separate planes with 16 bits: expected 8 bits, or ")


def test_grey_tiff_of_12_bits_keeps_the_upper_eight() -> None:
    twelve = (WIDE[..., :1] >> 4)[:, :6]
    pairs = twelve.reshape(-1, 2).astype(int)
    packed = np.stack(
        [pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1
    )
    content = tiff(twelve, 1, bits=12, data=packed.astype(np.uint8).tobytes())
    np.testing.assert_array_equal(read_image(content, ImageSpec(5, 6, 1)), twelve >> 4)


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.int16, np.int8, np.uint32])
def test_tiffs_whose_white_is_unknown_are_refused(dtype: type) -> None:
    content = tiff(
        np.ones((5, 7, 1), dtype), 1, extra={339: {"f": 3, "i": 2, "u": 1}[np.dtype(dtype).kind]}
    )
    assert reason_for(content).startswith("TIFF of signed, 32-bit or floating-point values")


def test_a_cmyk_tiff_becomes_red() -> None:
    inks = np.tile(np.array([0, 255, 255, 0], np.uint8), (5, 7, 1))
    np.testing.assert_array_equal(
        read_image(tiff(inks, 5), ImageSpec(5, 7, 3)), np.tile([255, 0, 0], (5, 7, 1))
    )


def test_a_lab_tiff_is_refused_by_its_colours() -> None:
    assert reason_for(tiff(noise(5, 7, 3), 8)).startswith("TIFF in L*a*b* colours")


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
def test_compressed_tiffs_and_palettes(compression: str) -> None:
    flat = Image.new("RGB", (16, 16), (200, 30, 90))
    got = read_image(encode(flat, "TIFF", compression=compression), ImageSpec(16, 16, 3))
    np.testing.assert_allclose(got, np.tile([200, 30, 90], (16, 16, 1)), atol=3)
    if compression != "jpeg":
        got = read_image(
            encode(flat.quantize(4), "TIFF", compression=compression), ImageSpec(16, 16, 3)
        )
        np.testing.assert_array_equal(got, np.tile([200, 30, 90], (16, 16, 1)))


def test_transparency_of_a_tiff_shows_the_background() -> None:
    pixels = np.array([[[200, 100, 0, 0], [200, 100, 0, 255]]], np.uint8)
    got = read_image(tiff(pixels, 2, extra={338: 2}), ImageSpec(1, 2, 3, background=9))
    assert got.tolist() == [[[9, 9, 9], [200, 100, 0]]]
    grey = np.array([[[40, 0], [40, 255]]], np.uint8)
    for kind in (1, 2):  # with and without the alpha multiplied in
        got = read_image(tiff(grey, 1, extra={338: kind}), ImageSpec(1, 2, 1, background=9))
        assert got.ravel().tolist() == [9, 40]


def pages(*images: Image.Image, subfile: tuple[int, ...]) -> bytes:
    """A TIFF of several pages, each with its NewSubfileType."""
    buffer = io.BytesIO()
    with TiffPlugin.AppendingTiffWriter(buffer) as writer:
        for image, kind in zip(images, subfile, strict=True):
            image.save(writer, "TIFF", tiffinfo={254: kind})
            writer.newFrame()
    return buffer.getvalue()


def test_a_tiff_of_several_pages_is_refused() -> None:
    content = encode(COLOUR, "TIFF", save_all=True, append_images=[COLOUR.rotate(180)])
    assert reason_for(content) == (
        "TIFF of several pages: expected one; save the page that counts as a file of its own"
    )


def test_smaller_copies_and_masks_in_a_tiff_are_not_further_pages() -> None:
    small = COLOUR.resize((3, 2))
    content = pages(COLOUR, small, small, subfile=(0, 1, 4))
    np.testing.assert_array_equal(read_image(content, ImageSpec(6, 9, 3)), np.asarray(COLOUR))
    assert reason_for(pages(COLOUR, small, COLOUR, subfile=(0, 1, 0))).startswith("TIFF of several")


def test_many_pages_are_not_all_walked() -> None:
    small = COLOUR.resize((3, 2))
    content = pages(COLOUR, *[small] * 40, subfile=(0, *[1] * 40))
    assert reason_for(content).startswith("TIFF of several pages")


def test_the_preview_in_a_camera_raw_file_is_not_the_photo() -> None:
    for extra in ({254: 1}, {50706: 1}):
        reason = reason_for(tiff(noise(5, 7, 3), 2, extra=extra))
        assert reason.startswith("camera raw image: its first picture is only a preview; develop")
