"""One line of JSON for each answer."""

import logging
import os
import select
import sys
import time
from collections.abc import Iterable, Iterator

import orjson

from serve.command import one_line
from serve.http.messages import Request, Response

FLUSH_AFTER = 2**16
"""Bytes that are written at once; the rest is written a few times a second."""

LONGEST_TEXT = 1000
"""Characters of what a client chose: a line must fit into what a pipe takes whole."""

_log = logging.getLogger("lockstep")


class AccessLog:
    """Collects lines and writes them together: a system call for each would cost more than it.

    Args:
        place: a file, which is appended to, or "-" for standard output.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, place: str) -> None:
        if place == "-":
            self._file, self._at_once = sys.stdout.fileno(), select.PIPE_BUF
        else:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            self._file, self._at_once = os.open(place, flags, 0o666), FLUSH_AFTER
        self._lines: list[bytes] = []
        self._size = 0
        self._fails = False

    def add(self, request: Request, response: Response, seconds: float) -> None:
        line = orjson.dumps(
            {
                "time": round(time.time(), 3),
                "peer": request.peer,
                "method": request.method,
                "path": request.target[:LONGEST_TEXT],
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
        """Write what is collected; each line whole, also where several workers write.

        A full disk costs lines, and is said once; it stops nothing.
        """
        lines, self._lines, self._size = self._lines, [], 0
        try:
            for block in _blocks(lines, self._at_once):
                os.write(self._file, block)
                self._fails = False
        except OSError as error:
            if not self._fails:
                _log.error("the access log loses lines: %s", one_line(error))
            self._fails = True


def _blocks(lines: Iterable[bytes], most: int) -> Iterator[bytes]:
    """Whole lines together, up to so many bytes."""
    block = b""
    for line in lines:
        if block and len(block) + len(line) > most:
            yield block
            block = b""
        block += line
    if block:
        yield block


def _details(request: Request) -> dict[str, object]:
    """What is known of a request only once it was understood."""
    details: dict[str, object] = {}
    if request.id:
        details["id"] = request.id[:200][:LONGEST_TEXT]
    if request.served:
        details |= {"model": request.served.name, "version": request.served.version}
    if request.images:
        details["images"] = request.images
    if request.timing and request.timing.finished:
        stages = request.timing.stages().items()
        details |= {f"{stage}_ms": round(1000 * seconds, 3) for stage, seconds in stages}
    return details
