"""The image spec: everything that decides which pixels a file becomes.

`prepare` records it and every bundle carries it, so training and serving read the same bytes alike;
`serve/images.py` does what it says.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from PIL import Image

from serve.command import LockstepError

RESIZES = ("crop", "stretch", "pad")
RESAMPLINGS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

MOST_SIDE = 4096
"""Largest height or width of the array that an image becomes, in pixels."""

MOST_PIXELS = 250_000_000
"""Largest `max_pixels`: 1 to 4 GB of memory for one image while it is decoded."""

MOST_DECLARED_PIXELS = 4 * MOST_PIXELS
"""Largest size that any file may declare; Pillow's own limit is raised to it."""


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
        max_pixels: largest width * height that is decoded at all; `MOST_PIXELS` at most. Of a JPEG
            that is decoded at a smaller scale, the smaller size counts; it may declare up to four
            times as many pixels.
        scaled_decode: let the JPEG decoder itself shrink a picture that is much too large, by 2, 4
            or 8, before the resize; see `serve/images.py`.
    """

    height: int
    width: int
    channels: int
    resize: str = "crop"
    resample: str = "bilinear"
    background: int = 255
    max_pixels: int = 50_000_000
    scaled_decode: bool = True

    def __post_init__(self) -> None:
        for field in ("height", "width", "max_pixels"):
            value = getattr(self, field)
            if not _is_integer(value) or value < 1:
                raise LockstepError(
                    f"image spec: expected {field} to be an integer of at least 1, "
                    f"got {value!r:.80}"
                )
        if max(self.height, self.width) > MOST_SIDE:
            raise LockstepError(
                f"image spec: expected height and width of at most {MOST_SIDE}, got "
                f"{self.height}x{self.width}"
            )
        if not isinstance(self.scaled_decode, bool):
            raise LockstepError(
                f"image spec: expected scaled_decode to be true or false, got "
                f"{self.scaled_decode!r:.80}"
            )
        if not _is_integer(self.channels):
            raise LockstepError(
                f"image spec: expected channels to be 1 or 3, got {self.channels!r:.80}"
            )
        if self.max_pixels > MOST_PIXELS:
            raise LockstepError(
                f"image spec: expected max_pixels of at most {MOST_PIXELS}, got {self.max_pixels}"
            )
        if not _is_integer(self.background) or not 0 <= self.background <= 255:
            raise LockstepError(
                f"image spec: expected background in 0..255, got {self.background!r:.80}"
            )
        for field, allowed in (
            ("channels", (1, 3)),
            ("resize", RESIZES),
            ("resample", tuple(RESAMPLINGS)),
        ):
            if getattr(self, field) not in allowed:
                raise LockstepError(
                    f"image spec: expected {field} to be one of {', '.join(map(str, allowed))}, "
                    f"got {getattr(self, field)!r:.80}"
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
