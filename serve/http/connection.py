"""One HTTP/1.1 connection: bytes in, requests out to the application, answers back in order.

httptools (llhttp, the parser of Node.js) reads the bytes; this class keeps the order of pipelined
requests and holds the client to every limit on time and size. A request is judged as soon as its
head is complete, before any of its body is taken. What cannot be answered is closed so that the
client can still read why: its remaining input is thrown away for a moment before the socket goes.
"""

import asyncio
import logging
import time
from collections import deque
from enum import Enum
from http import HTTPStatus
from typing import Protocol, cast

import httptools

from serve.http.connections import Connections
from serve.http.messages import HttpError, Request, Response, busy, expired, internal_error

BACKLOG = 2**16
"""Bytes that a client may send ahead while its request is being answered."""

PIECE = 2**12
"""Bytes that are parsed at once, other than of a body: as an object, a request takes up much more
than its bytes do, and thousands of pipelined ones can come together."""

CHUNK_OVERHEAD = 64
"""Bytes that a piece of a body takes up beside its content."""

HEADER_OVERHEAD = 4
"""Bytes of a header beside its name and value."""

DISCARDED = 2**20
"""Largest body of a refused request that is read and thrown away, so that the connection lives."""

LINGER = 2.0
"""Seconds in which a client that is being closed may still read its last answer."""

_REASONS = {status.value: status.phrase for status in HTTPStatus}

_log = logging.getLogger("lockstep")


class Application(Protocol):
    """What a connection needs of the application."""

    def admit(self, request: Request) -> None:
        """Judge a head before its body is read. Raises HttpError."""

    async def answer(self, request: Request) -> Response:
        """Answer a complete request; never raises but for cancellation."""

    def refuse(self, request: Request, error: HttpError) -> Response:
        """The answer to a request that is not even admitted."""

    def answered(self, request: Request, response: Response) -> None:
        """Told of every answer that was sent, or would have been (499, if nobody waited)."""


class _Reading(Enum):
    """What the client is sending."""

    NOTHING = "nothing"
    HEAD = "head"
    BODY = "body"
    IGNORED = "ignored"


class Connection(asyncio.Protocol):
    """A client, from the first byte to the last."""

    def __init__(self, application: Application, connections: Connections) -> None:
        self._application = application
        self._connections = connections
        self._limits = connections.limits
        self._memory = connections.memory
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._parser = httptools.HttpRequestParser(self)
        self._peer = ""
        self._reading = _Reading.NOTHING
        self._deadline = 0.0
        self._head_size = 0
        self._unfinished = 0  # bytes since a head was complete or some of a body came
        self._nobody = self._request = Request("", "", {}, "", 0.0)
        self._chunks: list[bytes] = []
        self._held = 0
        self._length = 0
        self._size = 0
        self._refusal: HttpError | None = None
        # Complete requests in order, with their refusal if they have one, and whether the
        # connection goes on after them.
        self._queue: deque[tuple[Request, Response | None, bool]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._task_deadline = 0.0
        self._is_overdue = False
        self._backlog: list[bytes] = []
        self._backlog_size = 0
        self._stalled_until = 0.0
        self._unsent = 0
        self._closing = False

    @property
    def is_busy(self) -> bool:
        """A request is waiting or being answered, or its answer is being taken."""
        return bool(self._task or self._queue or self._stalled_until)

    @property
    def is_arriving(self) -> bool:
        """The body of a request that was admitted is on its way."""
        return self._reading is _Reading.BODY and not self._refusal

    # What the transport says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=0)
        peer = transport.get_extra_info("peername")
        self._peer = self._nobody.peer = str(peer[0]) if isinstance(peer, tuple) else ""
        self._deadline = time.perf_counter() + self._limits.head_timeout
        if not self._connections.add(self):
            most = self._limits.max_connections
            error = busy(503, f"too many connections: expected at most {most} at once")
            self._refuse(error)
            if self._connections.many_refused:
                self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.remove(self)
        self._ignore_input()
        self._memory.give(sum(len(request.body) for request, _, _ in self._queue))
        self._queue.clear()
        self._taken()
        if self._task:
            self._task.cancel()

    def eof_received(self) -> bool:
        return False  # nobody waits for an answer any more

    def data_received(self, data: bytes) -> None:
        if self._reading is _Reading.IGNORED:
            return
        if self._task or self._stalled_until:
            self._keep(data)
        else:
            self._parse(data)
            self._go_on()

    def pause_writing(self) -> None:
        self._stalled_until = time.perf_counter() + self._limits.write_timeout

    def resume_writing(self) -> None:
        self._taken()
        self._go_on()

    def _taken(self) -> None:
        """The client has all of its answer, or wants no more of it."""
        self._stalled_until = 0.0
        self._memory.give(self._unsent)
        self._unsent = 0

    # What the parser says. A head is only taken while one is expected: not from what follows a
    # refusal, and no trailers, which nobody has judged.

    def on_message_begin(self) -> None:
        if self._reading is not _Reading.HEAD and self._reading is not _Reading.NOTHING:
            return
        self._request = Request("", "", {}, self._peer, time.perf_counter())
        self._head_size = self._size = 0
        self._refusal = None
        self._expect_by(_Reading.HEAD, self._limits.head_timeout)

    def on_url(self, url: bytes) -> None:
        if self._reading is not _Reading.HEAD:
            return
        self._head_size += len(url)
        self._request.target += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._reading is not _Reading.HEAD:
            return
        self._head_size += len(name) + len(value) + HEADER_OVERHEAD
        if self._head_size > self._limits.max_head:
            return  # it is refused when it is complete
        headers = self._request.headers
        key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip()
        headers[key] = f"{headers[key]}, {text}" if key in headers else text

    def on_headers_complete(self) -> None:
        if self._reading is not _Reading.HEAD:
            return
        self._unfinished = 0
        request = self._request
        request.method = self._parser.get_method().decode("latin-1")
        self._expect_by(_Reading.BODY, self._limits.body_timeout)
        length = self._length = int(request.headers.get("content-length") or 0)
        if self._head_size > self._limits.max_head:  # where it ends is not known: close
            self._refuse(self._head_error())
            return
        try:
            if request.headers.get("transfer-encoding", "chunked").lower() != "chunked":
                raise HttpError(501, "expected no Transfer-Encoding but chunked")
            if length > self._limits.max_body:
                raise self._body_error()
            self._application.admit(request)
        except HttpError as error:
            self._refuse_request(error, length)
            return
        if request.headers.get("expect", "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        if self._reading is _Reading.IGNORED:
            return
        self._unfinished = 0
        self._size += len(body)
        if self._refusal:
            if self._size > DISCARDED:
                self._refuse(self._refusal)
            return
        if self._size > self._limits.max_body:
            self._refuse(self._body_error())
            return
        size = len(body) + CHUNK_OVERHEAD
        try:
            self._memory.take(size)
        except HttpError as error:
            self._refuse(error)
        else:
            self._held += size
            self._chunks.append(body)

    def on_message_complete(self) -> None:
        if self._reading is _Reading.IGNORED or self._parser.should_upgrade():
            return
        request, self._reading = self._request, _Reading.NOTHING
        self._request = self._nobody
        self._unfinished = 0
        request.body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks = []
        self._memory.give(self._held - len(request.body))
        self._held = 0
        refusal = self._application.refuse(request, self._refusal) if self._refusal else None
        # An answer of HTTP/1.1 does not tell a client of HTTP/1.0 that the connection stays.
        stays = self._parser.should_keep_alive() and self._parser.get_http_version() != "1.0"
        self._queue.append((request, refusal, stays))

    # Refusals.

    def _head_error(self) -> HttpError:
        return HttpError(431, f"expected a head of at most {self._limits.max_head} bytes")

    def _body_error(self) -> HttpError:
        return HttpError(413, f"expected a body of at most {self._limits.max_body} bytes")

    def _refuse_request(self, error: HttpError, length: int) -> None:
        """Answer with an error; read and forget the body if that is the shorter way."""
        if length > DISCARDED or "expect" in self._request.headers:
            self._refuse(error)
        else:
            self._refusal = error

    def _refuse(self, error: HttpError) -> None:
        """Answer with an error once the requests before are answered, then close."""
        self._ignore_input()
        self._queue.append((self._request, self._application.refuse(self._request, error), False))
        self._go_on()

    def _ignore_input(self) -> None:
        self._reading = _Reading.IGNORED
        self._memory.give(self._held)
        self._held = self._unfinished = 0
        self._chunks, self._backlog, self._backlog_size = [], [], 0

    # The way of a request.

    def _parse(self, data: bytes) -> None:
        """Take input until a request is complete; what is left waits until that is answered."""
        if self._reading is _Reading.NOTHING:
            self._expect_by(_Reading.HEAD, self._limits.head_timeout)
        taken = 0
        while taken < len(data) and not self._queue and self._reading is not _Reading.IGNORED:
            left = self._length - self._size if self._reading is _Reading.BODY else 0
            piece = data[taken : taken + max(left, PIECE)]
            taken += len(piece)
            self._unfinished += len(piece)
            try:
                self._parser.feed_data(piece)
            except httptools.HttpParserUpgrade as wish:
                taken += wish.args[0] - len(piece)
                self._decline_upgrade()
            except httptools.HttpParserCallbackError as error:
                _log.error("a request failed", exc_info=error.__context__)
                self._refuse(internal_error())
            except httptools.HttpParserError as error:
                self._refuse(HttpError(400, f"malformed HTTP request: {error}"))
            if self._unfinished > self._limits.max_head:
                self._refuse(self._head_error())
        if taken < len(data) and self._reading is not _Reading.IGNORED:
            self._keep(data[taken:])

    def _decline_upgrade(self) -> None:
        """Go on as if no other protocol had been asked for, as Java's client does each time.

        The parser takes a request with this wish to end with its head. A new one takes the body; it
        is told only where that ends.
        """
        lines = ["POST / HTTP/" + self._parser.get_http_version()]
        if not self._parser.should_keep_alive():
            lines.append("connection: close")
        headers = self._request.headers
        framing = ("content-length", "transfer-encoding")
        lines += [f"{name}: {headers[name]}" for name in framing if name in headers]
        self._parser = httptools.HttpRequestParser(self)
        if self._reading is not _Reading.IGNORED:
            self._parser.feed_data("\r\n".join([*lines, "\r\n"]).encode("latin-1"))

    def _keep(self, data: bytes) -> None:
        """Put input aside; if it is much, take no more."""
        self._backlog.append(data)
        self._backlog_size += len(data)
        if self._backlog_size > BACKLOG:
            self._transport.pause_reading()

    def _go_on(self) -> None:
        """Answer what is complete and take what was put aside, until something must be awaited."""
        while not (self._task or self._stalled_until or self._closing):
            if self._transport.is_closing():
                return  # a task that begins now would be cancelled before it could let go
            if self._queue:
                request, response, keep_alive = self._queue.popleft()
                if response:
                    self._send(request, response, keep_alive)
                else:
                    self._task_deadline = time.perf_counter() + self._connections.timeout
                    self._task = self._loop.create_task(self._answer(request, keep_alive))
            elif self._backlog:
                data = b"".join(self._backlog)
                if self._backlog_size > BACKLOG:
                    self._transport.resume_reading()
                self._backlog, self._backlog_size = [], 0
                self._parse(data)
            else:
                if self._reading is _Reading.NOTHING:
                    self._expect_by(_Reading.NOTHING, self._limits.idle_timeout)
                return

    async def _answer(self, request: Request, keep_alive: bool) -> None:
        size = len(request.body)
        try:
            response = await self._application.answer(request)
        except asyncio.CancelledError:
            if not self._is_overdue:  # the client is gone
                self._application.answered(request, Response(499))
                raise
            self._is_overdue = False
            response = self._application.refuse(request, expired())
        finally:
            self._memory.give(size)
            self._task = None
        self._send(request, response, keep_alive)
        if self._reading is not _Reading.NOTHING:  # the time to send the next one begins now
            self._deadline = time.perf_counter() + self._limits.body_timeout
        self._go_on()

    def _send(self, request: Request, response: Response, keep_alive: bool) -> None:
        if self._connections.draining and not self._queue:  # what was sent behind it was accepted
            keep_alive = False
        lines = [
            f"HTTP/1.1 {response.status} {_REASONS.get(response.status, '')}",
            *([] if response.status == 204 else [f"content-length: {len(response.body)}"]),
            *(f"{name}: {value}" for name, value in response.headers),
        ]
        if response.body:
            lines.append(f"content-type: {response.content_type}")
        if not keep_alive:
            lines.append("connection: close")
        head = "\r\n".join(lines).encode("latin-1") + b"\r\ndate: " + self._connections.date
        body = b"" if request.method == "HEAD" else response.body
        self._transport.write(head + b"\r\n\r\n" + body)
        self._application.answered(request, response)
        if self._stalled_until and not self._hold_unsent(len(body)):
            return
        if not keep_alive:
            self._finish()

    def _hold_unsent(self, size: int) -> bool:
        """Count an answer that the client does not take at once; false if that is too much."""
        try:
            self._memory.take(size)
        except HttpError:
            self.abort()
            return False
        self._unsent += size
        return True

    def _finish(self) -> None:
        """Close once the client has read its answer, and not while it still sends: that would
        reset the connection under the answer."""
        self._closing = True
        if self._reading is not _Reading.IGNORED:
            self._transport.close()
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._deadline = time.perf_counter() + LINGER

    # Time.

    def _expect_by(self, reading: _Reading, seconds: float) -> None:
        self._reading = reading
        self._deadline = time.perf_counter() + seconds

    def check(self, now: float) -> None:
        """Close the connection, with 408 if a request was begun, when its time is over."""
        if self._stalled_until:
            if now > self._stalled_until:
                self.abort()
        elif self._task:
            if now > self._task_deadline:
                self._is_overdue = True
                self._task.cancel()
        elif now > self._deadline:
            if self._closing or self._reading is _Reading.NOTHING:
                self.close()
            elif self._reading is not _Reading.IGNORED:
                part = self._reading.value
                self._refuse(HttpError(408, f"the request's {part} did not arrive in time"))

    def close(self) -> None:
        """Close after what is already written."""
        self._closing = True
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()
