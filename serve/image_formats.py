"""Image formats, told by the first bytes of a file: which are read, and which are only named.

A file is an image if its content is one, whatever its name; or if its name says so, whatever it
holds (a damaged photo must be counted, not passed over).
"""

import re
from dataclasses import dataclass
from pathlib import Path

HEAD_BYTES = 512
"""How much of a file `recognise` needs."""

SAVE_AS = "save it as JPEG or PNG"


@dataclass(frozen=True)
class ImageFormat:
    """A format by the name that people use.

    Attributes:
        name: for example "HEIC".
        is_read: whether `serve/images.py` reads it.
        remedy: what to do with a file of a format that is not read.
    """

    name: str
    is_read: bool = False
    remedy: str = SAVE_AS


JPEG, PNG, WEBP, BMP, GIF, TIFF, AVIF, HEIC = READ = tuple(
    ImageFormat(name, is_read=True)
    for name in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "HEIC")
)
JPEG_XL = ImageFormat("JPEG XL")
RAW = ImageFormat("camera raw", remedy="develop it, then save it as JPEG or PNG")
DICOM = ImageFormat("DICOM", remedy="choose its window of grey values, then save it as PNG")

PILLOW_FORMATS = tuple(kind.name for kind in READ if kind is not HEIC)
"""What Pillow itself reads; HEIC needs the package pillow-heif."""

READABLE = ", ".join(kind.name for kind in READ)
"""The formats that are read, for error messages."""

EXTENSIONS = frozenset(
    f".{ending}"
    for ending in (
        *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "webp", "bmp", "gif"),
        *("tif", "tiff", "avif", "heic", "heif", "hif"),
    )
)
"""Endings of the formats that are read."""

OTHER_EXTENSIONS = frozenset(
    f".{ending}"
    for ending in (
        *("apng", "jif", "dib", "jxl", "jxr", "wdp", "jp2", "j2k", "jpf", "jpx", "j2c", "tga"),
        *("psd", "xcf", "svg", "svgz", "eps", "ico", "cur", "icns", "dds", "exr", "hdr", "pbm"),
        *("pgm", "ppm", "pnm", "pam", "pfm", "qoi", "pcx", "ras", "sgi", "xpm", "xbm", "flif"),
        *("bpg", "wmf", "emf", "dcm", "dicom", "raw", "dng", "cr2", "cr3", "crw", "nef", "nrw"),
        *("arw", "srf", "sr2", "orf", "rw2", "raf", "pef", "x3f", "erf", "mrw", "3fr", "iiq"),
        *("rwl", "srw"),
    )
)
"""Endings of image formats that are not read, or are read whatever their ending."""

_NAMED_LIKE_IMAGES = EXTENSIONS | OTHER_EXTENSIONS

_SIGNATURES = tuple(
    (re.compile(pattern, re.DOTALL), kind)
    for pattern, kind in (
        (rb"\xff\xd8\xff", JPEG),
        (rb"\x89PNG\r\n\x1a\n", PNG),
        (rb"RIFF....WEBP", WEBP),
        (rb"GIF8[79]a", GIF),
        (rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", BMP),  # the size of its header
        (rb"II\*\0....CR\x02", RAW),
        (rb"II[*+]\0|MM\0[*+]", TIFF),
        (rb"FUJIFILMCCD-RAW|IIR[OS]|MMOR|IIU\0|FOVb|\0MRM|II\x1a\0\0\0HEAPCCDR", RAW),
        (rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", JPEG_XL),
        (rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n", ImageFormat("JPEG 2000")),
        (rb"II\xbc\x01", ImageFormat("JPEG XR")),
        (rb"8BPS", ImageFormat("Photoshop")),
        (rb"gimp xcf", ImageFormat("GIMP")),
        (rb"%!PS-Adobe-\d\.\d EPSF|\xc5\xd0\xd3\xc6", ImageFormat("EPS")),
        (rb"\0\0[\x01\x02]\0[\x01-\x40]\0...\0", ImageFormat("icon")),
        (rb"icns", ImageFormat("icon")),
        (rb"DDS \x7c\0\0\0", ImageFormat("DDS")),
        (rb"v/1\x01", ImageFormat("OpenEXR")),
        (rb"#\?(RADIANCE|RGBE)", ImageFormat("Radiance HDR")),
        (rb"P[1-6]\s+(#|\d+\s)|P7\nWIDTH|P[fF]\n\d+ \d+\n", ImageFormat("Netpbm")),
        (rb"qoif", ImageFormat("QOI")),
        (rb"BPG\xfb", ImageFormat("BPG")),
        (rb"FLIF", ImageFormat("FLIF")),
        (rb"\x01\xda[\0\x01][\x01\x02]\0[\x01-\x03]", ImageFormat("SGI")),
        (rb"\x59\xa6\x6a\x95", ImageFormat("Sun raster")),
        (rb"/\* XPM \*/", ImageFormat("XPM")),
        (rb".{128}DICM", DICOM),
        (rb"(\xef\xbb\xbf)?\s*(<\?xml.*|<!--.*|<!DOCTYPE svg.*)?<svg[\s>]", ImageFormat("SVG")),
    )
)

_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"heif")
_AVIF_BRANDS = (b"avif", b"avis")
_GENERAL_BRANDS = (b"mif1", b"mif2", b"msf1", b"miaf")


def recognise(head: bytes) -> ImageFormat | None:
    """The image format of a file that begins with `head`, or None if it is no known image.

    Args:
        head: the first `HEAD_BYTES` bytes, or all of a shorter file.
    """
    if head[4:8] == b"ftyp":
        return _of_brands(head)
    for pattern, kind in _SIGNATURES:
        if pattern.match(head):
            return kind
    return None


def _of_brands(head: bytes) -> ImageFormat | None:
    """The format of an ISO media file (ISO/IEC 14496-12, 4.3), many of which are videos."""
    major, size = head[8:12], int.from_bytes(head[:4], "big")
    compatible = {head[at : at + 4] for at in range(16, min(size, len(head)), 4)}
    if major == b"crx ":
        return RAW
    if major == b"jxl ":
        return JPEG_XL
    if major in _HEIC_BRANDS:
        return HEIC
    if major in _AVIF_BRANDS:
        return AVIF
    if major in _GENERAL_BRANDS:
        return AVIF if compatible.intersection(_AVIF_BRANDS) else HEIC
    return None


def is_image_file(path: Path) -> bool:
    """Whether the name or the content of a regular file says that it is an image."""
    return path.suffix.lower() in _NAMED_LIKE_IMAGES or recognise(head_of(path)) is not None


def head_of(path: Path) -> bytes:
    """The first bytes of a file, none of one that cannot be opened."""
    try:
        with open(path, "rb", buffering=0) as stream:
            return stream.read(HEAD_BYTES)
    except (OSError, ValueError):
        return b""
