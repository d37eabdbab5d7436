"""Make the files in `images/` and store what the bundles of test_decoder_parity.py answer.

PYTHONPATH=. python tests/serve/make_images.py             # draw the files anew, then the answers
PYTHONPATH=. python tests/serve/make_images.py --answers   # only the answers to the files there
"""

import argparse
import io
import json
import struct
import tempfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import ExifTags, Image
from sklearn.datasets import load_digits
from test_decoder_parity import IMAGES, SPECS, Pixels, draw, luma, make_bundle

from serve.images import read_image

HEIGHT, WIDTH = 38, 26
SCANS = (55, 1, 501, 62, 320, 15, 223, 263, 168, 149)
"""Of each digit a scan that both bundles recognize."""

CLEAR = (200, 0, 130)
CLEAR_GREY = 160
"""What stands for transparent where a PNG names one colour."""

Scan = NDArray[np.float64]
Encode = Callable[[Scan], bytes]

# How the upright picture is stored under each EXIF orientation.
TURNED: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda upright: upright,
    2: np.fliplr,
    3: lambda upright: np.rot90(upright, 2),
    4: np.flipud,
    5: lambda upright: upright.swapaxes(0, 1),
    6: np.rot90,
    7: lambda upright: np.rot90(upright, 2).swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}

# PNG

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
         (1, 0, 2, 1))  # fmt: skip
"""First row, first column, and steps down and to the right of each pass (PNG 3, 8.1)."""


def encode_png(
    samples: NDArray[np.integer],
    colour_type: int,
    depth: int,
    *,
    interlaced: bool = False,
    palette: bytes = b"",
    transparency: bytes = b"",
) -> bytes:
    """A PNG file of any colour type and depth, which Pillow cannot write.

    Args:
        samples: `[height, width, channels]`, each within `depth` bits.
    """
    height, width, _ = samples.shape
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    parts = (samples[top::down, left::right] for top, left, down, right in passes)
    data = b"".join(_filtered(part, depth) for part in parts if part.size)
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, interlaced)
    chunks = [(b"IHDR", header), (b"PLTE", palette), (b"tRNS", transparency)]
    chunks += [(b"IDAT", zlib.compress(data, 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(kind, content) for kind, content in chunks if content or kind == b"IEND"
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def _filtered(samples: NDArray[np.integer], depth: int) -> bytes:
    """Rows of packed samples under the filters none, sub and up in turns."""
    reach = max(1, samples.shape[2] * depth // 8)
    above = np.zeros(0, np.uint8)
    result = []
    for number, row in enumerate(samples):
        packed = _packed(row.ravel(), depth)
        left = np.concatenate([np.zeros(reach, np.uint8), packed])[: len(packed)]
        predicted = (np.zeros_like(packed), left, above)[number % 3]
        result.append(bytes([number % 3]) + (packed - predicted).tobytes())
        above = packed
    return b"".join(result)


def _packed(row: NDArray[np.integer], depth: int) -> Pixels:
    if depth == 16:
        return np.frombuffer(row.astype(">u2").tobytes(), np.uint8)
    bits = row[:, None] >> np.arange(depth - 1, -1, -1) & 1
    return np.packbits(bits.astype(np.uint8))


def png(
    scan: Scan,
    colour_type: int,
    depth: int = 8,
    *,
    interlaced: bool = False,
    transparent: bool = False,
) -> bytes:
    """The picture of a scan as a PNG; `transparent` adds a tRNS chunk."""
    picture = draw(scan, HEIGHT, WIDTH)
    if colour_type == PALETTE:
        return _palette_png(picture, depth, interlaced, transparent)
    samples = luma(picture) if colour_type in (GREY, GREY_ALPHA) else picture
    if colour_type in (GREY_ALPHA, RGBA):
        samples = np.concatenate([samples, alpha()[..., None]], axis=2)
    clear = np.array([CLEAR_GREY] if colour_type == GREY else CLEAR)
    lowest = np.random.default_rng(0).integers(0, 256, samples.shape)
    wide = (samples.astype(np.int64) << 8) + lowest >> 16 - depth
    clear = (clear << 8) + 0x55 >> 16 - depth
    if transparent:
        wide[alpha() < 128] = clear
    return encode_png(
        wide,
        colour_type,
        depth,
        interlaced=interlaced,
        transparency=clear.astype(">u2").tobytes() if transparent else b"",
    )


def _palette_png(picture: Pixels, depth: int, interlaced: bool, transparent: bool) -> bytes:
    """With `transparent` the first entry of the palette is clear and the second half so."""
    image = with_palette(picture, 2**depth - transparent)
    palette, samples = bytes(image.getpalette() or []), np.asarray(image)[..., None]
    if transparent:
        palette, samples = bytes(CLEAR) + palette, samples + 1
        samples = np.where(alpha()[..., None] < 128, 0, samples)
    return encode_png(
        samples,
        PALETTE,
        depth,
        interlaced=interlaced,
        palette=palette[: 3 * 2**depth],
        transparency=b"\x00\x80" if transparent else b"",
    )


# The other formats, by Pillow


def save(image: Image.Image | Pixels, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def colour(scan: Scan, *, kind: str, **options: object) -> bytes:
    return save(draw(scan, HEIGHT, WIDTH), kind, **options)


def jpeg(
    scan: Scan, height: int = HEIGHT, width: int = WIDTH, *, orientation: int = 1, **options: object
) -> bytes:
    """Stored turned, with the orientation that makes it upright again."""
    exif = Image.Exif()
    if orientation != 1:
        exif[ExifTags.Base.Orientation] = orientation
    stored = np.ascontiguousarray(TURNED[orientation](draw(scan, height, width)))
    return save(stored, "JPEG", exif=exif, **{"quality": 90, "subsampling": 0, **options})


def cmyk_jpeg(scan: Scan) -> bytes:
    """With about half of the darkness in the black ink."""
    picture = draw(scan, HEIGHT, WIDTH).astype(np.float64)
    black = (255 - picture.max(axis=2, keepdims=True)) / 2
    colours = 255 - picture * 255 / (255 - black)
    inks = np.concatenate([colours, black], axis=2).round().clip(0, 255).astype(np.uint8)
    return save(Image.fromarray(inks, "CMYK"), "JPEG", quality=90, subsampling=0)


def mpo(scan: Scan) -> bytes:
    """A camera's photo with a preview, here of nothing."""
    preview = Image.new("RGB", (16, 24))
    photo = draw(scan, HEIGHT, WIDTH)
    return save(photo, "MPO", save_all=True, append_images=[preview], quality=90)


def grey(scan: Scan, *, kind: str, **options: object) -> bytes:
    return save(luma(draw(scan, HEIGHT, WIDTH))[..., 0], kind, **options)


def one_bit(scan: Scan, *, kind: str) -> bytes:
    return save(Image.fromarray(luma(draw(scan, HEIGHT, WIDTH))[..., 0] > 127), kind)


def palette(scan: Scan, *, kind: str, **options: object) -> bytes:
    return save(with_palette(draw(scan, HEIGHT, WIDTH), 256), kind, **options)


def turned_tiff(scan: Scan) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return save(np.ascontiguousarray(TURNED[6](draw(scan, HEIGHT, WIDTH))), "TIFF", exif=exif)


def heic(scan: Scan, *, orientation: int = 1, **options: object) -> bytes:
    """Turned by the container, which also has EXIF that says so; that must not turn it again."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored = np.ascontiguousarray(TURNED[orientation](draw(scan, HEIGHT, WIDTH)))
    buffer = io.BytesIO()
    file = pillow_heif.from_pillow(Image.fromarray(stored))
    file.save(buffer, quality=90, exif=exif.tobytes(), **options)
    return buffer.getvalue()


def clear_gif(scan: Scan) -> bytes:
    """The entry 255 of the palette is clear."""
    image = with_palette(draw(scan, HEIGHT, WIDTH), 255)
    image.paste(255, mask=Image.fromarray(np.where(alpha() < 128, 255, 0).astype(np.uint8)))
    return save(image, "GIF", transparency=255)


def clear_webp(scan: Scan, **options: object) -> bytes:
    pixels = np.concatenate([draw(scan, HEIGHT, WIDTH), alpha()[..., None]], axis=2)
    return save(pixels, "WEBP", **options)


def with_palette(picture: Pixels, colours: int) -> Image.Image:
    return Image.fromarray(picture).quantize(colours, dither=Image.Dither.NONE)


def alpha() -> Pixels:
    """Opaque in the middle, clear towards one side and the corners, half clear between."""
    down, right = np.mgrid[:HEIGHT, :WIDTH]
    distance = np.hypot((down - HEIGHT / 2) / HEIGHT, (right - WIDTH / 3) / WIDTH)
    return ((0.75 - distance) / 0.3 * 255).clip(0, 255).astype(np.uint8)


# All files


def encoders() -> dict[str, Encode]:
    """How each file is made, by its name."""
    large = {"height": 480, "width": 640, "quality": 50, "subsampling": 2}
    made: dict[str, Encode] = {
        "jpeg-baseline-444.jpg": jpeg,
        "jpeg-baseline-422.jpg": partial(jpeg, subsampling=1),
        "jpeg-baseline-420.jpg": partial(jpeg, subsampling=2),
        "jpeg-progressive-444.jpg": partial(jpeg, progressive=True),
        "jpeg-progressive-420.jpg": partial(jpeg, progressive=True, subsampling=2),
        "jpeg-grey.jpeg": partial(grey, kind="JPEG", quality=90),
        "jpeg-cmyk.jpg": cmyk_jpeg,
        "jpeg-mpo.jpg": mpo,
        "jpeg-large.jpg": partial(jpeg, **large),
        "jpeg-large-progressive.jpg": partial(jpeg, progressive=True, **large),
        "jpeg-large-orientation-8.jpg": partial(jpeg, orientation=8, **large),
        "webp-lossy.webp": partial(colour, kind="WEBP", quality=90),
        "webp-lossless.webp": partial(colour, kind="WEBP", lossless=True),
        "webp-alpha-lossy.webp": partial(clear_webp, quality=90),
        "webp-alpha-lossless.webp": partial(clear_webp, lossless=True, exact=True),
        "bmp-24-bit.bmp": partial(colour, kind="BMP"),
        "bmp-palette.bmp": partial(palette, kind="BMP"),
        "bmp-1-bit.bmp": partial(one_bit, kind="BMP"),
        "gif-plain.gif": partial(palette, kind="GIF", interlace=0),
        "gif-interlaced.gif": partial(palette, kind="GIF", interlace=1),
        "gif-transparent.gif": clear_gif,
    }
    for name, colour_type, depths in (
        ("grey", GREY, (1, 2, 4, 8, 16)),
        ("rgb", RGB, (8, 16)),
        ("palette", PALETTE, (1, 2, 4, 8)),
        ("grey-alpha", GREY_ALPHA, (8, 16)),
        ("rgba", RGBA, (8, 16)),
    ):
        for depth in depths:
            encode = partial(png, colour_type=colour_type, depth=depth)
            made[f"png-{name}-{depth}.png"] = encode
            made[f"png-{name}-{depth}-interlaced.png"] = partial(encode, interlaced=True)
            if colour_type in (GREY, RGB, PALETTE) and depth > 1:
                made[f"png-{name}-{depth}-transparent.png"] = partial(encode, transparent=True)
    made |= {
        "jpeg-jfif.jfif": jpeg,
        "jpeg-jpe.jpe": partial(jpeg, progressive=True),
        "jpeg-mpo.mpo": mpo,
        "tiff-rgb.tif": partial(colour, kind="TIFF"),
        "tiff-rgb-lzw.tiff": partial(colour, kind="TIFF", compression="tiff_lzw"),
        "tiff-grey-deflate.tif": partial(grey, kind="TIFF", compression="tiff_adobe_deflate"),
        "tiff-palette.tif": partial(palette, kind="TIFF"),
        "tiff-1-bit.tif": partial(one_bit, kind="TIFF"),
        "tiff-orientation-6.tif": turned_tiff,
        "avif.avif": partial(colour, kind="AVIF", quality=90),
        "heic.heic": heic,
        "heic.heif": partial(heic, chroma=444),
        "heic-turned.hif": partial(heic, orientation=6),
    }
    return made


def make_files() -> dict[str, int]:
    """Write all files; returns the number of the scan that each shows."""
    shown = {name: SCANS[number % len(SCANS)] for number, name in enumerate(encoders())}
    made = encoders()
    for orientation in TURNED:
        name = f"jpeg-orientation-{orientation}.jpg"
        shown[name], made[name] = SCANS[2], partial(jpeg, orientation=orientation)
    scans = load_digits().images
    for name, encode in made.items():
        (IMAGES / name).write_bytes(encode(scans[shown[name]]))
    return shown


def store_answers(shown: dict[str, int]) -> None:
    """Write `expected.json`: one line per file, with its scan and each bundle's answer."""
    with tempfile.TemporaryDirectory() as folder:
        bundles = {kind: make_bundle(SPECS[kind], Path(folder) / f"{kind}.onnx") for kind in SPECS}
    lines = []
    for name in sorted(shown):
        entry: dict[str, object] = {"scan": shown[name]}
        for kind, bundle in bundles.items():
            pixels = read_image(IMAGES / name, SPECS[kind])
            entry[kind] = [round(float(value), 6) for value in bundle.predict(pixels[None])[0]]
        lines.append(f"{json.dumps(name)}: {json.dumps(entry)}")
    (IMAGES / "expected.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--answers", action="store_true", help="leave the files as they are")
    if parser.parse_args().answers:
        stored = json.loads((IMAGES / "expected.json").read_text(encoding="utf-8"))
        store_answers({name: entry["scan"] for name, entry in stored.items()})
    else:
        store_answers(make_files())


if __name__ == "__main__":
    main()
