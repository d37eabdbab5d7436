"""Bytes to uint8 pixels: the one image reader of training, proof and serving.

Everything that decides which pixels a file becomes is in `ImageSpec` and in this file.

What the reader does with unusual files:

- Of a camera's JPEG with several pictures in it (MPO) the first, the photo itself, is read.
- EXIF orientation is applied. Colour profiles are ignored.
- CMYK and palette images are converted to RGB, or to grey by ITU-R 601-2 luma.
- 16 bits per channel are cut to the upper 8.
- Transparent pixels are laid over `ImageSpec.background`.
- Refused, with a reason: other formats than `FORMATS`, truncated or corrupt data, more pixels than
  `ImageSpec.max_pixels`, and animations (which frame would be the example?).
"""

import io
import math
import os
import stat
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from serve.command import LockstepError
from serve.image_spec import RESAMPLINGS, ImageSpec

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"})
SCALED_DECODE_MARGIN = 2
"""A JPEG decoded at a smaller scale still has so many times the pixels needed along each side."""

# Pillow only warns of a decompression bomb up to twice its own limit. Here that is an error too.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)

# What Pillow's decoders raise on damaged data, as found by fuzzing (tests/serve/test_images.py).
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    EOFError,
    struct.error,
    zlib.error,
    MemoryError,
)


class ImageError(LockstepError):
    """An image that cannot be read; the message is the reason."""


def read_image(source: bytes | str | Path, spec: ImageSpec) -> NDArray[np.uint8]:
    """Decode an encoded image, given as bytes or as a path.

    Returns:
        uint8 of shape `spec.shape`.

    Raises:
        ImageError: the reason why this is not a readable still image.
    """
    try:
        with _open(source) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":
                raise ImageError(
                    f"animated image of {frames} frames: expected a still image; "
                    "save the frame that counts as a file of its own"
                )
            pixels = image.width * image.height
            if pixels > spec.max_pixels:
                raise ImageError(
                    f"image of {image.width}x{image.height} = {pixels:,} pixels: expected at most "
                    f"{spec.max_pixels:,}; shrink it, or raise the limit if you trust the source"
                )
            size: tuple[float, float] = image.size
            if _can_shrink(image, spec):
                size = _shrink_while_decoding(image, spec)
            _mend_transparent_colour(image)
            image.load()
            box = _turned_box(image, size)
            ImageOps.exif_transpose(image, in_place=True)
            return _to_array(image, spec, box)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(
            f"decompression bomb: expected at most {spec.max_pixels:,} pixels"
        ) from None
    except UnidentifiedImageError:
        raise ImageError(f"not an image: expected {', '.join(FORMATS)}") from None
    except _DAMAGED as error:
        reason = getattr(error, "strerror", None)
        if reason:  # the operating system refused, not the decoder
            raise ImageError(f"cannot be read: {reason}") from None
        raise ImageError(f"corrupt image: {error or type(error).__name__}") from error


def fit_pixels(pixels: NDArray[np.uint8], spec: ImageSpec) -> NDArray[np.uint8]:
    """Treat an array that some data set already decoded as `read_image` treats a file.

    Args:
        pixels: uint8 `[height, width]`, `[height, width, 1]` or `[height, width, 3]`.
    """
    if (
        pixels.dtype != np.uint8
        or pixels.ndim not in (2, 3)
        or pixels.shape[2:] not in ((), (1,), (3,))
    ):
        raise ImageError(
            "expected uint8 pixels of shape [height, width, 1 or 3], "
            f"got {pixels.dtype} of shape {list(pixels.shape)}"
        )
    return _to_array(to_pillow(pixels), spec)


def to_pillow(pixels: NDArray[np.uint8]) -> Image.Image:
    """A Pillow image of uint8 `[height, width]` or `[height, width, 1 or 3]` pixels."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Lossless bytes from which `read_image` gets the same pixels back."""
    buffer = io.BytesIO()
    to_pillow(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _open(source: bytes | str | Path) -> Image.Image:
    if isinstance(source, bytes):
        if not source:
            raise ImageError("empty: 0 bytes")
        return Image.open(io.BytesIO(source), formats=FORMATS)
    try:
        status = os.stat(source)  # noqa: PTH116 (a Path costs as much as reading a small image)
    except (FileNotFoundError, ValueError):  # ValueError: a zero byte in the name
        raise ImageError("no such file") from None
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("not a regular file")
    if status.st_size == 0:
        raise ImageError("empty: 0 bytes")
    return Image.open(source, formats=FORMATS)


Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


def _can_shrink(image: Image.Image, spec: ImageSpec) -> bool:
    """Only JPEGs can; and picking single pixels must pick them from the whole picture."""
    jpeg = image.format in ("JPEG", "MPO")
    return spec.scaled_decode and jpeg and spec.resample != "nearest"


def _shrink_while_decoding(image: Image.Image, spec: ImageSpec) -> tuple[float, float]:
    """Have the JPEG decoder leave out the high frequencies that the resize would remove anyway.

    The decoder's inverse cosine transform can give 1/2, 1/4 or 1/8 of the size (libjpeg,
    `scale_denom`) at a fraction of the cost. The smallest that still has `SCALED_DECODE_MARGIN`
    times the pixels needed is chosen, so that the resize keeps most of the work of antialiasing.

    Returns:
        Width and height of the picture in decoded pixels. Where the scale does not divide a side,
        the last pixel is only partly of the picture, and the rest of it must not be resized too.
    """
    size = (spec.width, spec.height)
    turned = _orientation(image) in (5, 6, 7, 8)
    width, height = image.size[::-1] if turned else image.size
    scales = (size[0] / width, size[1] / height)
    if spec.resize == "stretch":
        needed = size
    else:
        scale = max(scales) if spec.resize == "crop" else min(scales)
        needed = (math.ceil(width * scale), math.ceil(height * scale))
    if turned:
        needed = needed[::-1]
    done = image.draft(None, (needed[0] * SCALED_DECODE_MARGIN, needed[1] * SCALED_DECODE_MARGIN))
    return done[1][2:] if done else image.size


def _orientation(image: Image.Image) -> object:
    return image.getexif().get(ExifTags.Base.Orientation, 1)


def _turned_box(image: Image.Image, size: tuple[float, float]) -> Box | None:
    """Where a picture that takes up `size` of `image` will lie once orientation is applied."""
    if size == image.size:
        return None
    orientation = _orientation(image)
    right, below = image.width - size[0], image.height - size[1]  # what is not of the picture
    left = right if orientation in (2, 3, 7, 8) else 0.0
    top = below if orientation in (3, 4, 6, 7) else 0.0
    box = (left, top, left + size[0], top + size[1])
    return (box[1], box[0], box[3], box[2]) if orientation in (5, 6, 7, 8) else box


def _mend_transparent_colour(image: Image.Image) -> None:
    """Bring the colour that a PNG calls transparent to the depth that its pixels get.

    Pillow widens grey of 2 and 4 bits and cuts colour of 16 bits, but leaves this one as it was.
    """
    transparent = image.info.get("transparency")
    if not isinstance(image, PngImagePlugin.PngImageFile) or transparent is None or not image.tile:
        return
    stored = image.tile[0][3]
    if stored in ("L;2", "L;4"):
        image.info["transparency"] = transparent * (85 if stored == "L;2" else 17)
    elif stored == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in transparent)


def _to_array(image: Image.Image, spec: ImageSpec, box: Box | None = None) -> NDArray[np.uint8]:
    """Args: box: where in `image` the picture lies; left out, all of it."""
    image = _to_mode(image, spec)
    if image.size != (spec.width, spec.height):
        image = _fitted(image, spec, box or (0, 0, *image.size))
    return np.asarray(image, dtype=np.uint8).reshape(spec.shape)


def _fitted(image: Image.Image, spec: ImageSpec, box: Box) -> Image.Image:
    """As `ImageOps.fit`, `ImageOps.pad` and `resize` do it, but of a box between pixels."""
    size, method = (spec.width, spec.height), RESAMPLINGS[spec.resample]
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    if spec.resize == "stretch":
        return image.resize(size, method, box)
    if spec.resize == "crop":
        ratio = size[0] / size[1]
        part = (min(width, ratio * height), min(height, width / ratio))
        left, top = left + (width - part[0]) / 2, top + (height - part[1]) / 2
        right, bottom = min(left + part[0], image.width), min(top + part[1], image.height)
        return image.resize(size, method, (left, top, right, bottom))
    inner = (
        min(size[0], max(1, round(width / height * size[1]))),
        min(size[1], max(1, round(height / width * size[0]))),
    )
    color = spec.background if spec.channels == 1 else (spec.background,) * 3
    padded = Image.new(image.mode, size, color)
    padded.paste(
        image.resize(inner, method, box),
        (round((size[0] - inner[0]) / 2), round((size[1] - inner[1]) / 2)),
    )
    return padded


def _to_mode(image: Image.Image, spec: ImageSpec) -> Image.Image:
    """Grey ("L") or "RGB" of 8 bits per channel, without transparency."""
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip, not scale
        wide = np.asarray(image).astype(np.int64).clip(0, 0xFFFF)
        transparent = image.info.get("transparency")
        image = Image.fromarray((wide >> 8).astype(np.uint8))
        if transparent is not None:
            image.putalpha(Image.fromarray(np.where(wide == transparent, 0, 255).astype(np.uint8)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        ground = (spec.background,) * 3 + (255,)
        image = Image.alpha_composite(Image.new("RGBA", image.size, ground), image)
    if image.mode not in ("1", "L", "RGB"):
        image = image.convert("RGB")
    return image.convert("L" if spec.channels == 1 else "RGB")
