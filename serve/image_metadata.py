"""Copies of image files without the metadata that their decoder trips over.

A profile, a text or an EXIF block of which no pixel depends must not cost the image. Sound files
never come here: `serve/images.py` asks for such a copy only when a file could not be read as it is.
"""

import io
import re
import struct
import zlib
from collections.abc import Iterator

from PIL import Image, PngImagePlugin

_PNG = b"\x89PNG\r\n\x1a\n"
_PIXELS = frozenset((b"tRNS", b"acTL", b"fcTL", b"fdAT"))
"""Chunks that a decoder may do without by the standard, but on which the pixels depend."""

# What Pillow raises on metadata that it cannot read.
UNREADABLE = (
    OSError, SyntaxError, ValueError, LookupError, TypeError, ArithmeticError, EOFError,
    AttributeError, RuntimeError, struct.error, zlib.error, MemoryError,
)  # fmt: skip


def without_broken_metadata(content: bytes) -> bytes | None:
    """The same picture without its unreadable metadata; None where that changes nothing."""
    if content.startswith(_PNG):
        copy = _PNG + b"".join(_sound_chunks(content))
    elif content.startswith(b"\xff\xd8"):
        copy = b"\xff\xd8" + b"".join(_sound_segments(content))
    elif content[4:8] == b"ftyp":
        # An item of type Exif (ISO/IEC 23008-12, A.2.1) under another name is not looked at.
        copy = re.sub(rb"(infe[\x02\x03]\0\0.{5,7}?)Exif", rb"\1none", content, flags=re.DOTALL)
    else:
        return None
    return copy if copy != content else None


def _sound_chunks(content: bytes) -> Iterator[bytes]:
    """The chunks of a PNG (PNG 3, 5.3), but of the ancillary ones only those that Pillow reads."""
    reader = PngImagePlugin.PngStream(io.BytesIO())
    at = len(_PNG)
    while at < len(content):
        kind = content[at + 4 : at + 8]
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        is_needed = not kind[:1].islower() or kind in _PIXELS
        if is_needed or _is_sound(reader, kind, content[at:end]):
            yield content[at:end]
        at = end


def _is_sound(reader: PngImagePlugin.PngStream, kind: bytes, chunk: bytes) -> bool:
    data, checksum = chunk[8:-4], chunk[-4:]
    read = getattr(reader, f"chunk_{kind.decode('latin-1')}", None)
    if read is None or zlib.crc32(kind + data) != int.from_bytes(checksum, "big"):
        return False
    reader.fp = io.BytesIO(data)
    try:
        read(0, len(data))
    except UNREADABLE:
        return False
    return True


def _sound_segments(content: bytes) -> Iterator[bytes]:
    """The segments of a JPEG (ITU-T T.81, B.1.1) without those of applications.

    Of these, Adobe's says how the colours are stored, and EXIF how the picture is turned.
    """
    at = 2
    while content[at : at + 1] == b"\xff" and content[at + 1 : at + 2] != b"\xda":
        marker = content[at + 1]
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        data = content[at + 4 : end]
        is_metadata = 0xE0 <= marker <= 0xEF or marker == 0xFE
        is_needed = (marker == 0xEE and data.startswith(b"Adobe") and len(data) >= 12) or (
            marker == 0xE1 and data.startswith(b"Exif\0\0") and _is_sound_exif(data)
        )
        if end <= at + 3:  # a segment is never shorter than its length
            break
        if not is_metadata or is_needed:
            yield content[at:end]
        at = end
    yield content[at:]


def _is_sound_exif(data: bytes) -> bool:
    try:
        Image.Exif().load(data)
    except UNREADABLE:
        return False
    return True
