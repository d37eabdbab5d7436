"""One line of JSON for each answer."""

import logging
import os
import queue
import select
import sys
import threading
import time
from collections.abc import Iterable, Iterator

import orjson

from serve.command import one_line
from serve.http.messages import Request, Response

FLUSH_AFTER = 2**16
"""Bytes that are written at once; the rest is written a few times a second."""

MOST_WAITING = 16
"""Blocks that may wait to be written; a reader that stalls costs lines, and stops nothing."""

LAST_SECONDS = 2.0
"""Time for the last lines to be written, in the end."""

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
        self._waiting: queue.Queue[list[bytes] | None] = queue.Queue(MOST_WAITING)
        self._writer = threading.Thread(target=self._write, name="access log", daemon=True)
        self._writer.start()

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
        """Have written what is collected; each line whole, also where several workers write."""
        lines, self._lines, self._size = self._lines, [], 0
        if not lines:
            return
        try:
            self._waiting.put_nowait(lines)
        except queue.Full:
            self._lose("nobody reads it")

    def close(self) -> None:
        """Write the last lines, if somebody takes them."""
        self.flush()
        if not self._waiting.full():
            self._waiting.put_nowait(None)
            self._writer.join(LAST_SECONDS)

    def _write(self) -> None:
        """In a thread: a pipe may be full, and a disk slow."""
        while lines := self._waiting.get():
            try:
                for block in _blocks(lines, self._at_once):
                    os.write(self._file, block)
                    self._fails = False
            except OSError as error:
                self._lose(one_line(error))

    def _lose(self, reason: str) -> None:
        """Say once that lines are lost."""
        if not self._fails:
            _log.error("the access log loses lines: %s", reason)
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
        details["id"] = request.id[:LONGEST_TEXT]
    if request.served:
        details |= {"model": request.served.name, "version": request.served.version}
    if request.images:
        details["images"] = request.images
    if request.timing and request.timing.finished:
        stages = request.timing.stages().items()
        details |= {f"{stage}_ms": round(1000 * seconds, 3) for stage, seconds in stages}
    return details
