"""Bytes to uint8 pixels: the one image reader of training, proof and serving.

Everything that decides which pixels a file becomes is in `ImageSpec` and in this file. The spec is
recorded by `prepare` and travels inside the bundle, so both sides read the same bytes alike.

What the reader does with unusual files:

- Of a camera's JPEG with several pictures in it (MPO) the first, the photo itself, is read.
- EXIF orientation is applied. Colour profiles are ignored.
- CMYK and palette images are converted to RGB, or to grey by ITU-R 601-2 luma.
- 16 bits per channel are cut to the upper 8.
- Transparent pixels are laid over `ImageSpec.background`.
- Refused, with a reason: other formats than `FORMATS`, truncated or corrupt data, more pixels than
  `ImageSpec.max_pixels`, and animations (which frame would be the example?).
"""

import dataclasses
import io
import os
import stat
import struct
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from serve.command import LockstepError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"})
RESIZES = ("crop", "stretch", "pad")
RESAMPLINGS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

MOST_PIXELS = 89_478_485
"""Pillow's own limit against decompression bombs, above which it reads nothing here."""

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


@dataclasses.dataclass(frozen=True)
class ImageSpec:
    """How a file becomes an array. Frozen, comparable, and written into every bundle.

    Attributes:
        height: rows of the result, in pixels.
        width: columns of the result, in pixels.
        channels: 1 (grey) or 3 (RGB).
        resize: how another shape is fitted: "crop" scales until both sides are covered and cuts the
            middle out, "pad" scales until both sides fit and fills with `background`, "stretch"
            ignores the aspect ratio.
        resample: filter of the resize: "nearest", "bilinear", "bicubic" or "lanczos"; all but
            "nearest" are antialiased.
        background: grey value (0 to 255) under transparent pixels and around padded images.
        max_pixels: largest width * height that is decoded at all; `MOST_PIXELS` at most.
    """

    height: int
    width: int
    channels: int
    resize: str = "crop"
    resample: str = "bilinear"
    background: int = 255
    max_pixels: int = 50_000_000

    def __post_init__(self) -> None:
        for field in ("height", "width", "max_pixels"):
            value = getattr(self, field)
            if not _is_integer(value) or value < 1:
                raise LockstepError(
                    f"image spec: expected {field} to be an integer of at least 1, got {value!r}"
                )
        if not _is_integer(self.channels):
            raise LockstepError(
                f"image spec: expected channels to be 1 or 3, got {self.channels!r}"
            )
        if self.max_pixels > MOST_PIXELS:
            raise LockstepError(
                f"image spec: expected max_pixels of at most {MOST_PIXELS}, got {self.max_pixels}"
            )
        if not _is_integer(self.background) or not 0 <= self.background <= 255:
            raise LockstepError(
                f"image spec: expected background in 0..255, got {self.background!r}"
            )
        for field, allowed in (
            ("channels", (1, 3)),
            ("resize", RESIZES),
            ("resample", tuple(RESAMPLINGS)),
        ):
            if getattr(self, field) not in allowed:
                raise LockstepError(
                    f"image spec: expected {field} to be one of {', '.join(map(str, allowed))}, "
                    f"got {getattr(self, field)!r}"
                )

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)` of every array read with this spec."""
        return (self.height, self.width, self.channels)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a JSON document."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: object) -> "ImageSpec":
        """Read what `to_json` wrote; a missing or unknown field is an error."""
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(document, Mapping) or set(document) != names:
            found = sorted(document) if isinstance(document, Mapping) else document
            raise LockstepError(
                f"image spec: expected the fields {sorted(names)}, got {found!r:.200}"
            )
        return cls(**document)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


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
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return _to_array(image, spec)
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


def _to_array(image: Image.Image, spec: ImageSpec) -> NDArray[np.uint8]:
    image = _to_mode(image, spec)
    size = (spec.width, spec.height)
    if image.size != size:
        method = RESAMPLINGS[spec.resample]
        if spec.resize == "crop":
            image = ImageOps.fit(image, size, method)
        elif spec.resize == "pad":
            color = spec.background if spec.channels == 1 else (spec.background,) * 3
            image = ImageOps.pad(image, size, method, color=color)
        else:
            image = image.resize(size, method)
    return np.asarray(image, dtype=np.uint8).reshape(spec.shape)


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
