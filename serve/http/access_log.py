"""One line of JSON for each answer."""

import sys
import time
from typing import BinaryIO

import orjson

from serve.http.messages import Request, Response

FLUSH_AFTER = 2**16
"""Bytes that are written at once; the rest is written a few times a second."""


class AccessLog:
    """Collects lines and writes them together: a system call for each would cost more than it.

    Args:
        place: a file, which is appended to, or "-" for standard output.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, place: str) -> None:
        self._stream: BinaryIO = sys.stdout.buffer
        if place != "-":
            self._stream = open(place, "ab")  # noqa: SIM115 (for as long as the server runs)
        self._lines: list[bytes] = []
        self._size = 0

    def add(self, request: Request, response: Response, seconds: float) -> None:
        line = orjson.dumps(
            {
                "time": round(time.time(), 3),
                "peer": request.peer,
                "method": request.method,
                "path": request.target[:2000],
                "status": response.status,
                "bytes_in": len(request.body),
                "bytes_out": len(response.body),
                "ms": round(1000 * seconds, 3),
                **_details(request),
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )
        self._lines.append(line)
        self._size += len(line)
        if self._size > FLUSH_AFTER:
            self.flush()

    def flush(self) -> None:
        """Write what is collected; each line whole, also where several workers write."""
        if self._lines:
            self._stream.write(b"".join(self._lines))
            self._stream.flush()
            self._lines, self._size = [], 0


def _details(request: Request) -> dict[str, object]:
    """What is known of a request only once it was understood."""
    details: dict[str, object] = {}
    if request.id:
        details["id"] = request.id
    if request.served:
        details |= {"model": request.served.name, "version": request.served.version}
    if request.images:
        details["images"] = request.images
    if request.timing and request.timing.finished:
        stages = request.timing.stages().items()
        details |= {f"{stage}_ms": round(1000 * seconds, 3) for stage, seconds in stages}
    return details
