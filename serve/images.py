"""Bytes to uint8 pixels: the one image reader of training, proof and serving.

Everything that decides which pixels a file becomes is in `ImageSpec`, in this file, and in
`serve/tiff.py`.

What the reader does with unusual files:

- What a file is, is told by its content; its name plays no part.
- Of a camera's JPEG with several pictures in it (MPO) the first, the photo itself, is read; of a
  HEIC file the primary one; of a TIFF with smaller copies of its picture that picture.
- EXIF orientation is applied; one that cannot be read counts as none. Colour profiles are ignored.
- Metadata of which no pixel depends never costs an image, however damaged or large it is.
- CMYK and palette images are converted to RGB, or to grey by ITU-R 601-2 luma.
- 16 bits per channel are cut to the upper 8, and 12 bits likewise.
- Transparent pixels are laid over `ImageSpec.background`.
- Refused, with a reason: other formats than `READABLE`, truncated or corrupt data, more pixels than
  `ImageSpec.max_pixels`, animations and TIFFs of several pages (which would be the example?),
  floating-point pixels (what is white?), and the preview in a camera's raw file.
"""

import importlib.util
import io
import math
import os
import stat
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from serve import tiff
from serve.command import LockstepError
from serve.image_formats import (
    HEAD_BYTES,
    HEIC,
    OTHER_EXTENSIONS,
    PILLOW_FORMATS,
    READABLE,
    SAVE_AS,
    head_of,
    recognise,
)
from serve.image_metadata import UNREADABLE, without_broken_metadata
from serve.image_spec import MOST_DECLARED_PIXELS, RESAMPLINGS, ImageSpec

SCALED_DECODE_MARGIN = 2
"""A JPEG decoded at a smaller scale still has so many times the pixels needed along each side."""

# The limit is `ImageSpec.max_pixels`, looked at before anything is decoded. Pillow's own limit, one
# for all of the process, comes first: it must not be lower. Above it Pillow only warns at first.
if Image.MAX_IMAGE_PIXELS is not None:
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, MOST_DECLARED_PIXELS)
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
# Pillow's opinions of damaged metadata.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

# What Pillow's decoders raise on damaged data, as found by fuzzing (tests/serve/test_images.py).
_DAMAGED = UNREADABLE


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
        try:
            return _read(source, spec)
        except _DAMAGED:
            content = source if isinstance(source, bytes) else Path(source).read_bytes()
            sound = without_broken_metadata(content)
            if sound is None:
                raise
            return _read(sound, spec)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(
            f"decompression bomb: expected at most {spec.max_pixels:,} pixels"
        ) from None
    except _DAMAGED as error:
        raise ImageError(_why_damaged(source, error)) from error


def upright_size(source: bytes | str | Path) -> tuple[tuple[int, int], bool] | None:
    """What an image's header says: height and width once orientation is applied, and if it is grey.

    Decodes no pixels. None for a file whose header cannot be read.
    """
    try:
        with _open(source) as image:
            size = image.size if _orientation(image) in _ON_ITS_SIDE else image.size[::-1]
            return size, image.mode in _GREY or image.mode.startswith("I")
    except (ImageError, Image.DecompressionBombError, Image.DecompressionBombWarning, *_DAMAGED):
        return None


def _read(source: bytes | str | Path, spec: ImageSpec) -> NDArray[np.uint8]:
    with _open(source) as image:
        _refuse_several(image)
        shrinks = _can_shrink(image, spec)
        _check_size(image, spec.max_pixels * (DECLARED_PER_DECODED if shrinks else 1))
        # Pillow itself turns a TIFF while it loads, and finds what it turns by only then in a PNG.
        orientation = _orientation(image) if shrinks or image.format == "TIFF" else None
        size: tuple[float, float] = image.size
        if shrinks:
            size = _shrink_while_decoding(image, spec, orientation in _ON_ITS_SIDE)
            _check_size(image, spec.max_pixels)
        _forget_exif(image)
        _mend_transparent_colour(image)
        image.load()
        _mend_grey(image)
        if orientation is None:
            orientation = _orientation(image)
        box = _turned_box(image, size, orientation)
        turn = _TURNS.get(orientation)
        return _to_array(image if turn is None else image.transpose(turn), spec, box)


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
        is_heic = recognise(_head(source)) is HEIC
        return _open_heic(source) if is_heic else _open_other(io.BytesIO(source))
    try:
        status = os.stat(source)  # noqa: PTH116 (a Path costs as much as reading a small image)
    except (FileNotFoundError, ValueError):  # ValueError: a zero byte in the name
        raise ImageError("no such file") from None
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("not a regular file")
    if status.st_size == 0:
        raise ImageError("empty: 0 bytes")
    try:
        return _open_other(source)
    except UnidentifiedImageError:
        if recognise(_head(source)) is not HEIC:
            raise
    return _open_heic(Path(source).read_bytes())


def _open_other(source: io.BytesIO | str | Path) -> Image.Image:
    return Image.open(source, formats=PILLOW_FORMATS)


def _open_heic(content: bytes) -> Image.Image:
    if importlib.util.find_spec("pillow_heif") is None:
        raise ImageError(
            'HEIC image: needs another package; pip install "lockstep[heic]" (or pillow-heif), or '
            f"{SAVE_AS}"
        )
    from pillow_heif import HeifImageFile

    image: Image.Image = HeifImageFile(io.BytesIO(content))  # type: ignore[no-untyped-call]
    return image


def _why_damaged(source: bytes | str | Path, error: BaseException) -> str:
    """The reason in words, with the name of a format that is known but not read."""
    reason = getattr(error, "strerror", None)
    if reason:  # the operating system refused, not the decoder
        return f"cannot be read: {reason}"
    kind = recognise(_head(source))
    if kind and not kind.is_read:
        return f"{kind.name} image: this format is not read; {kind.remedy}"
    if not isinstance(error, UnidentifiedImageError):
        return f"corrupt image: {error or type(error).__name__}"
    if kind:
        return f"corrupt image: its header is damaged, or it is an unusual {kind.name}; {SAVE_AS}"
    suffix = "" if isinstance(source, bytes) else Path(source).suffix.lower()
    if suffix in OTHER_EXTENSIONS:
        return f"{suffix} file: this format is not read; {SAVE_AS}"
    return f"not an image: expected {READABLE}"


def _head(source: bytes | str | Path) -> bytes:
    return source[:HEAD_BYTES] if isinstance(source, bytes) else head_of(Path(source))


def _refuse_several(image: Image.Image) -> None:
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        reason = tiff.reason_to_refuse(image)
        if reason:
            raise ImageError(reason)
    elif image.format not in ("MPO", "HEIF") and getattr(image, "is_animated", False):
        raise ImageError(
            "animated image: expected a still image; "
            "save the frame that counts as a file of its own"
        )


def _check_size(image: Image.Image, most: int) -> None:
    pixels = image.width * image.height
    if pixels > most:
        raise ImageError(
            f"image of {image.width}x{image.height} = {pixels:,} pixels: expected at most "
            f"{most:,}; shrink it, or raise the limit if you trust the source"
        )


DECLARED_PER_DECODED = 4
"""A JPEG that is decoded at a smaller scale may declare so many times `ImageSpec.max_pixels`.

Its decoder still goes through all of the file, and of a progressive one it keeps all coefficients:
about 8 bytes for each declared pixel (0.9 GB for 108 megapixels, measured), where other pictures
take up to 16 for each decoded one.
"""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""

_GREY = ("1", "L", "LA", "La")
_ON_ITS_SIDE = (5, 6, 7, 8)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture upright, by its EXIF orientation (Exif 3.0, 4.6.5.1.6)."""


def _can_shrink(image: Image.Image, spec: ImageSpec) -> bool:
    """Only JPEGs can; and picking single pixels must pick them from the whole picture."""
    jpeg = image.format in ("JPEG", "MPO")
    return spec.scaled_decode and jpeg and spec.resample != "nearest"


def _shrink_while_decoding(
    image: Image.Image, spec: ImageSpec, turned: bool
) -> tuple[float, float]:
    """Have the JPEG decoder leave out the high frequencies that the resize would remove anyway.

    The decoder's inverse cosine transform can give 1/2, 1/4 or 1/8 of the size (libjpeg,
    `scale_denom`) at a fraction of the cost. The smallest that still has `SCALED_DECODE_MARGIN`
    times the pixels needed is chosen, so that the resize keeps most of the work of antialiasing.

    Returns:
        Width and height of the picture in decoded pixels. Where the scale does not divide a side,
        the last pixel is only partly of the picture, and the rest of it must not be resized too.
    """
    size = (spec.width, spec.height)
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


def _orientation(image: Image.Image) -> int:
    """By EXIF or XMP; 1, upright, where neither can be read. Decodes nothing."""
    try:
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except _DAMAGED:
        return 1
    return value if isinstance(value, int) else 1


def _forget_exif(image: Image.Image) -> None:
    """Keep Pillow from turning a TIFF on its own, and from reading the rest of its metadata."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        image._exif = Image.Exif()
        image._exif._loaded = True


def _turned_box(image: Image.Image, size: tuple[float, float], orientation: int) -> Box | None:
    """Where a picture that takes up `size` of `image` will lie once orientation is applied."""
    if size == image.size:
        return None
    right, below = image.width - size[0], image.height - size[1]  # what is not of the picture
    left = right if orientation in (2, 3, 7, 8) else 0.0
    top = below if orientation in (3, 4, 6, 7) else 0.0
    box = (left, top, left + size[0], top + size[1])
    return (box[1], box[0], box[3], box[2]) if orientation in _ON_ITS_SIDE else box


def _mend_grey(image: Image.Image) -> None:
    """Bring grey of 12 bits, or with 0 for white, in a TIFF to what Pillow means by 16 bits."""
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.mode.startswith("I;16"):
        bits, is_white_zero = tiff.grey_levels(image)
        wide = np.asarray(image).astype(np.uint16) << (16 - bits)
        image.im = Image.fromarray(0xFFFF - wide if is_white_zero else wide).im
        image._mode = "I;16"


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
        wide = np.asarray(image).clip(0, 0xFFFF).astype(np.uint16)
        transparent = image.info.get("transparency")
        image = Image.fromarray((wide >> 8).astype(np.uint8))
        if transparent is not None:
            image.putalpha(Image.fromarray(np.where(wide == transparent, 0, 255).astype(np.uint8)))
    elif image.mode == "La":  # multiplied by its alpha
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        ground = (spec.background,) * 3 + (255,)
        image = Image.alpha_composite(Image.new("RGBA", image.size, ground), image)
    if image.mode not in ("1", "L", "RGB"):
        image = image.convert("RGB")
    return image.convert("L" if spec.channels == 1 else "RGB")
