"""Load at a constant rate, whatever the server does; or as much as it takes.

An own generator, because latency under a rate is what this must get right. `autocannon -R` lets
each connection send what a second allows in one burst at its start, wrk waits for an answer before
it sends what is due, and neither tells the latency of refusals apart.

Request number k is due at k / rate. Its latency runs from then, not from when a connection was free
for it, so a server that stalls is charged for every request that was due meanwhile (no coordinated
omission). The loop never sleeps while it asks: it needs a core of its own.
"""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Protocol, cast

import httptools
import numpy as np
import uvloop

REFUSED = (429, 503)
STALLED = 60.0


class Asked(Protocol):
    """A request and the judge of its answer."""

    def wire(self) -> bytes: ...

    def is_right(self, status: int, answer: bytes) -> bool: ...


class Load:
    """Requests over connections that stay open, and what came of them.

    Args:
        next_request: gives one request after the other.
        connections: how many at most; each has one request under way.
        rate: requests per second; None sends the next when a connection is free.
        skip: with a rate, drop and count a request that finds every connection taken.

    Attributes:
        latency: seconds, by status, from when each request was due to the end of its answer.
        service: the same from when it was sent.
        wrong: answers that are not right, refusals (429 and 503) apart.
        examples: the first wrong answer of each status, with what was asked.
        broken: requests whose connection ended before the answer, or could not be opened.
        skipped: see `skip`.
        unanswered: still without an answer when patience ended.
        seconds: how long it took.
    """

    def __init__(
        self,
        port: int,
        next_request: Callable[[], Asked],
        *,
        connections: int,
        rate: float | None = None,
        skip: bool = False,
    ) -> None:
        self._port, self._next, self._rate, self._skip = port, next_request, rate, skip
        self._most, self._open, self._under_way = connections, 0, 0
        self._free: deque[_Connection] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self.latency: dict[int, list[float]] = defaultdict(list)
        self.service: dict[int, list[float]] = defaultdict(list)
        self.examples: dict[int, str] = {}
        self.wrong = self.broken = self.skipped = self.unanswered = 0
        self.seconds = self._heard = 0.0

    def counts(self) -> dict[int, int]:
        """Answers by status."""
        return {status: len(values) for status, values in sorted(self.latency.items())}

    def milliseconds(self, percent: float, *statuses: int, service: bool = False) -> float:
        """A percentile of the latency of these statuses; nan if there were none."""
        times = self.service if service else self.latency
        values = [value for status in statuses for value in times.get(status, [])]
        return float(np.percentile(values, percent)) * 1e3 if values else float("nan")

    def run(self, *, seconds: float = float("inf"), requests: float = float("inf")) -> "Load":
        """Ask until the time is over or so many were asked, and wait 30 s at most for the rest."""
        uvloop.run(self._run(seconds, requests))
        return self

    async def _run(self, seconds: float, requests: float) -> None:
        start, number = time.perf_counter(), 0
        self._heard = start
        while number < requests:
            now = time.perf_counter()
            due = now if self._rate is None else start + number / self._rate
            if due > start + seconds or now > start + seconds + 30:
                break
            if now >= due:
                if self._free or self._open < self._most:
                    self._ask(due)
                    number += 1
                elif self._skip:
                    self.skipped += 1
                    number += 1
            if self._under_way and now > self._heard + STALLED:
                raise RuntimeError(f"expected an answer within {STALLED} s, got none")
            await asyncio.sleep(0)
        end = time.perf_counter() + 30
        while self._under_way and time.perf_counter() < end:
            await asyncio.sleep(0.001)
        self.unanswered, self.seconds = self._under_way, time.perf_counter() - start
        for connection in self._free:
            connection.transport.close()

    def _ask(self, due: float) -> None:
        self._under_way += 1
        if self._free:
            self._free.popleft().ask(self._next(), due)
        else:
            self._open += 1
            task = asyncio.create_task(self._ask_on_new(due, time.perf_counter()))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _ask_on_new(self, due: float, sent: float) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(
                lambda: _Connection(self), "127.0.0.1", self._port
            )
        except OSError:
            self._open -= 1
            self.broke()
        else:
            connection.ask(self._next(), due, sent)

    def answered(self, connection: "_Connection", asked: Asked, status: int, body: bytes) -> None:
        """An answer is complete."""
        now = self._heard = time.perf_counter()
        self._under_way -= 1
        self.latency[status].append(now - connection.due)
        self.service[status].append(now - connection.sent)
        if not (status in REFUSED or asked.is_right(status, body)):
            self.wrong += 1
            self.examples.setdefault(status, f"{asked}: {body[:200]!r}")

    def free(self, connection: "_Connection") -> None:
        """It can be asked again."""
        self._free.append(connection)

    def broke(self) -> None:
        """A request will have no answer."""
        self._under_way -= 1
        self.broken += 1

    def lost(self, connection: "_Connection") -> None:
        """It ended."""
        self._open -= 1
        if connection in self._free:
            self._free.remove(connection)


class _Connection(asyncio.Protocol):
    """One request at a time."""

    transport: asyncio.Transport
    due = sent = 0.0

    def __init__(self, load: Load) -> None:
        self._load = load
        self._asked: Asked | None = None
        self._lost = False
        self._body: list[bytes] = []
        self._parser = httptools.HttpResponseParser(self)

    def ask(self, asked: Asked, due: float, sent: float | None = None) -> None:
        self._asked, self.due, self.sent = asked, due, sent or time.perf_counter()
        if self._lost:
            self._load.broke()
        else:
            self.transport.write(asked.wire())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        asked, body, self._asked, self._body = self._asked, b"".join(self._body), None, []
        if asked is not None:  # an unasked answer is a 408 to an idle connection
            self._load.answered(self, asked, self._parser.get_status_code(), body)
        if asked is not None and self._parser.should_keep_alive():
            self._load.free(self)
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._load.lost(self)
        if self._asked is not None:
            self._load.broke()
