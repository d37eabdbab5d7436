"""What the tags of a TIFF (TIFF 6.0) say about its pixels that Pillow leaves to the caller."""

from PIL import TiffImagePlugin

from serve.image_formats import RAW, SAVE_AS

_SUBFILE_TYPE, _BITS, _PHOTOMETRIC, _PLANES, _SAMPLE_FORMAT = 254, 258, 262, 284, 339
_DNG_VERSION = 50706
_REDUCED, _MASK = 1, 4
"""Bits of NewSubfileType: a smaller copy, or a mask, of another picture in the file."""

_MOST_PAGES = 32
"""Pages that are looked at; each costs a little Python."""


def reason_to_refuse(image: TiffImagePlugin.TiffImageFile) -> str | None:
    """Why the first picture of a TIFF is not the picture, or its pixels are not known; or None.

    Leaves the first page selected.
    """
    if _DNG_VERSION in image.tag_v2 or _subfile_type(image) & _REDUCED:
        return f"{RAW.name} image: its first picture is only a preview; {RAW.remedy}"
    if image.is_animated and _has_other_pages(image):
        return "TIFF of several pages: expected one; save the page that counts as a file of its own"
    if not set(image.tag_v2.get(_SAMPLE_FORMAT, (1,))) <= {1, 4} or image.mode in ("I", "F"):
        return (
            "TIFF of signed, 32-bit or floating-point values: which of them is white is not said; "
            "save it with 8 or 16 bits"
        )
    bits = image.tag_v2.get(_BITS, (1,))
    if len(bits) > 1 and bits[0] > 8 and image.tag_v2.get(_PLANES) == 2:
        return (
            f"TIFF of separate planes with {bits[0]} bits: expected 8 bits, or the channels of "
            f"each pixel together; {SAVE_AS}"
        )
    if image.mode == "LAB":
        return f"TIFF in L*a*b* colours: expected grey, RGB or CMYK; {SAVE_AS}"
    return None


def grey_levels(image: TiffImagePlugin.TiffImageFile) -> tuple[int, bool]:
    """How grey is stored that Pillow gives with 16 bits: bits in use, and whether 0 is white."""
    return image.tag_v2.get(_BITS, (16,))[0], image.tag_v2.get(_PHOTOMETRIC) == 0


def _subfile_type(image: TiffImagePlugin.TiffImageFile) -> int:
    value = image.tag_v2.get(_SUBFILE_TYPE, 0)
    return value if isinstance(value, int) else 0


def _has_other_pages(image: TiffImagePlugin.TiffImageFile) -> bool:
    """Whether a later page is more than a smaller copy or a mask of the first."""
    try:
        for page in range(1, _MOST_PAGES):
            image.seek(page)
            if not _subfile_type(image) & (_REDUCED | _MASK):
                return True
    except EOFError:
        return False
    finally:
        image.seek(0)
    return True
