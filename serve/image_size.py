"""The size of images, as people write it: `64`, `64x48`, `64,48` or `[64, 48]`."""

import re

FORMS = "a side as 64, or height and width as 64x48, 64,48 or [64, 48]"

SIDE = re.compile(r"\s*(\d+)\s*")
PAIR = re.compile(r"\s*(\d+)\s*(?:[x×,]|\s)\s*(\d+)\s*", re.IGNORECASE)
BRACKETS = re.compile(r"\s*(?:\[(.*)\]|\((.*)\))\s*")


def parse_image_size(text: str) -> tuple[int, int]:
    """Height and width in pixels; one number is both.

    Raises:
        ValueError: it is neither a number nor two.

    Example:
        parse_image_size("64x48")  # (64, 48)
    """
    if side := SIDE.fullmatch(text):
        return int(side[1]), int(side[1])
    if brackets := BRACKETS.fullmatch(text):
        text = brackets[1] or brackets[2] or ""
    if pair := PAIR.fullmatch(text):
        return int(pair[1]), int(pair[2])
    raise ValueError(f"expected {FORMS}; got {text!r}")
