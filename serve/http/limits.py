"""What one client, or all of them together, may ask of the server. Each limit is an option."""

import argparse
import dataclasses
import math
import re
from typing import Annotated, Any, get_type_hints

from serve.http.messages import busy
from serve.image_spec import MOST_PIXELS

MODELS_OWN = "model"
KIB, MIB, GIB = 2**10, 2**20, 2**30
_UNITS = {"": 1, "KIB": KIB, "MIB": MIB, "GIB": GIB, "KB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclasses.dataclass(frozen=True)
class Limits:
    """The unit and the text of each limit are its definition, and its help on the command line."""

    max_body: Annotated[int, "bytes", "body of one request, packed or unpacked"] = 64 * MIB
    max_json: Annotated[int, "bytes", "JSON in one request; the rest can be binary"] = 4 * MIB
    max_json_depth: Annotated[int, "", "how deep JSON may be nested"] = 32
    max_head: Annotated[int, "bytes", "request line and headers"] = 32 * KIB
    max_pixels: Annotated[
        int | None, "pixels", "pixels of one encoded image, whatever the model's own limit says"
    ] = None
    max_images: Annotated[int, "", "images in one request"] = 1024
    max_tensors: Annotated[int, "", "input tensors, and outputs, in one request"] = 16
    max_connections: Annotated[int, "", "open connections"] = 4000
    max_memory: Annotated[int, "bytes", "bodies and pixels of all requests at once"] = 512 * MIB
    head_timeout: Annotated[float, "seconds", "for a request's head to arrive"] = 10
    body_timeout: Annotated[float, "seconds", "for a request's body to arrive"] = 60
    idle_timeout: Annotated[float, "seconds", "between two requests on a connection"] = 75
    write_timeout: Annotated[float, "seconds", "for a client to take its answer"] = 30


class Memory:
    """The bytes that requests hold at this moment."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0

    def take(self, size: int) -> None:
        """Count `size` bytes more. Raises HttpError: 503, they would be too many."""
        if self.held + size > self.most:
            raise busy(503, f"requests already hold {self.held} of {self.most} bytes")
        self.held += size

    def give(self, size: int) -> None:
        self.held -= size


def add_limits(parser: argparse.ArgumentParser) -> None:
    """One option for each limit."""
    group = parser.add_argument_group("limits")
    hints = get_type_hints(Limits, include_extras=True)
    for field in dataclasses.fields(Limits):
        unit, text = hints[field.name].__metadata__
        read, metavar = _READ[unit]
        group.add_argument(
            f"--{field.name.replace('_', '-')}",
            metavar=metavar,
            type=read,
            default=field.default,
            help=f"{text} (default: {_shown(field.default, unit)})",
        )


def limits(options: argparse.Namespace) -> Limits:
    """The limits on the command line."""
    return Limits(**{item.name: getattr(options, item.name) for item in dataclasses.fields(Limits)})


def count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def pixel_count(text: str) -> int | None:
    """None leaves it to each model."""
    if text == MODELS_OWN:
        return None
    number = count(text)
    if number > MOST_PIXELS:
        raise ValueError
    return number


def byte_count(text: str) -> int:
    match = re.fullmatch(r"(\d+)\s*([A-Z]*)", text.upper())
    if not match or match[2] not in _UNITS or int(match[1]) < 1:
        raise ValueError
    return int(match[1]) * _UNITS[match[2]]


def seconds(text: str) -> float:
    number = float(text)
    if not math.isfinite(number) or number <= 0:
        raise ValueError
    return number


# For the error of a command line.
pixel_count.__name__ = f"an integer from 1 to {MOST_PIXELS}, or {MODELS_OWN}"
count.__name__ = "an integer of at least 1"
byte_count.__name__ = "a size, as in 64MiB"
seconds.__name__ = "a number of seconds above 0"

_READ: dict[str, tuple[Any, str]] = {
    "": (count, "INT"),
    "pixels": (pixel_count, "INT"),
    "bytes": (byte_count, "SIZE"),
    "seconds": (seconds, "SECONDS"),
}


def _shown(value: Any, unit: str) -> str:
    if unit == "pixels":
        return MODELS_OWN if value is None else str(value)
    if unit == "bytes":
        return f"{value // MIB}MiB" if value % MIB == 0 else f"{value // KIB}KiB"
    return f"{value:g}" if unit == "seconds" else str(value)
