"""One connection through real sockets, with an application that only echoes."""

import asyncio
import dataclasses
import itertools
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import pytest
import uvloop

from serve.http.connection import BACKLOG, DISCARDED, LINGER, Connection
from serve.http.connections import REFUSED, Connections
from serve.http.limits import Limits, Memory
from serve.http.messages import HttpError, Request, Response, busy

GET = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE = 50_000_000
SWEEP = 0.02


class Echo:
    """Says what was asked; on some paths something else.

    Attributes:
        seen: requests whose heads were judged.
        log: target and status of each answer, in order.
        let_go: until it is set, /wait is not answered.
    """

    def __init__(self) -> None:
        self.seen: list[Request] = []
        self.log: list[tuple[str, int]] = []
        self.waiting = 0
        self.let_go = asyncio.Event()

    def admit(self, request: Request) -> None:
        self.seen.append(request)
        if request.path == "/refused":
            raise busy(429, "not now")

    async def answer(self, request: Request) -> Response:
        if request.path == "/wait":
            self.waiting += 1
            await self.let_go.wait()
        if request.path == "/large":
            return Response(200, bytes(LARGE), "application/octet-stream")
        text = f"{request.method} {request.target} {len(request.body)}"
        return Response(200, text.encode(), "text/plain")

    def refuse(self, request: Request, error: HttpError) -> Response:
        return error.response()

    def answered(self, request: Request, response: Response) -> None:
        self.log.append((request.target, response.status))


@dataclasses.dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, method: str = "GET") -> Answer:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        status = int(first.split(" ")[1])
        size = 0 if method == "HEAD" or status == 100 else int(headers["content-length"])
        return Answer(status, headers, await self.reader.readexactly(size))

    async def ask(self, data: bytes, method: str = "GET") -> Answer:
        self.send(data)
        return await self.answer(method)

    async def ended(self) -> bytes:
        """What still comes until the server closes."""
        return await self.reader.read()

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """Vanish, as a process that is killed does."""
        if not self.writer.is_closing():
            raw = self.writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()


class Stage:
    """A small server, and what can be seen of it."""

    def __init__(self, limits: Limits, timeout: float) -> None:
        self.echo = Echo()
        self.memory = Memory(limits.max_memory)
        self.connections = Connections(limits, self.memory, timeout)
        self.port = 0
        self.clients: list[Client] = []

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: Connection(self.echo, self.connections), "127.0.0.1", 0
        )
        self.port = server.sockets[0].getsockname()[1]
        sweeping = asyncio.create_task(self._sweep())
        try:
            yield
        finally:
            sweeping.cancel()
            server.close()
            for client in self.clients:
                client.reset()
            if len(self.connections):  # the scenario failed
                self.connections.abort()
                await asyncio.sleep(0.01)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP)
            self.connections.sweep()

    async def connect(self) -> Client:
        self.clients.append(Client(*await asyncio.open_connection("127.0.0.1", self.port)))
        return self.clients[-1]

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await asyncio.sleep(0.001)


Scenario = Callable[[Stage], Awaitable[None]]


class Play(Protocol):
    def __call__(self, scenario: Scenario, timeout: float = 20, **limits: Any) -> None: ...


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def play(request: pytest.FixtureRequest) -> Play:
    """Act a scenario, on either event loop. In the end all is let go: connections and memory."""

    def play(scenario: Scenario, timeout: float = 20, **limits: Any) -> None:
        async def act() -> None:
            stage = Stage(Limits(**limits), timeout)
            async with asyncio.timeout(10), stage.serving():
                await scenario(stage)
                for client in stage.clients:
                    client.close()
                await stage.until(lambda: not len(stage.connections))
                await stage.until(lambda: not stage.connections.busy)
                assert stage.memory.held == 0
                # One who waited and left was told of, too.
                await stage.until(lambda: len(stage.echo.log) >= stage.echo.waiting)

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(act())

    return play


# What everybody does


def test_a_connection_is_used_again(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.connect()
        for number in range(3):
            answer = await client.ask(GET % b"/%d?a=b" % number)
            assert (answer.status, answer.body) == (200, b"GET /%d?a=b 0" % number)
            assert answer.headers["content-type"] == "text/plain"
            assert "connection" not in answer.headers
            assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT", answer.headers["date"])
        assert len(stage.connections) == 1
        assert stage.echo.seen[0].headers == {"host": "x"}
        assert stage.echo.seen[0].peer == "127.0.0.1"

    play(scenario)


def test_a_request_may_come_byte_by_byte(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.connect()
        client.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        message = (
            b"POST /some/path HTTP/1.1\r\nX-Name:  some value \r\nContent-Length: 5\r\n\r\nhello"
        )
        for byte in message * 2:
            client.send(bytes([byte]))
            await asyncio.sleep(0)
        for _ in range(2):
            assert (await client.answer()).body == b"POST /some/path 5"
        assert stage.echo.seen[1].headers == {"x-name": "some value", "content-length": "5"}
        assert stage.echo.seen[1].body == b"hello"

    play(scenario)


def test_headers_that_repeat_are_joined(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.connect()
        await client.ask(b"GET / HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nx-a: 2\r\nX-Empty:\r\n\r\n")
        assert stage.echo.seen[0].headers == {"host": "x", "x-a": "1, 2", "x-empty": ""}

    play(scenario)


def test_pipelined_requests_are_answered_in_order(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.connect()
        targets = [b"/wait", *(b"/%d" % number for number in range(3000)), b"/refused", b"/last"]
        client.send(b"".join(GET % target for target in targets))
        await stage.until(lambda: stage.echo.waiting == 1)
        assert stage.echo.log == []
        stage.echo.let_go.set()
        for target in targets:
            answer = await client.answer()
            if target == b"/refused":
                assert (answer.status, answer.headers["retry-after"]) == (429, "1")
            else:
                assert answer.body == b"GET %s 0" % target
        assert [target.encode() for target, _ in stage.echo.log] == targets

    play(scenario)


def test_a_pipeline_is_not_taken_apart_further_ahead_than_needed(play: Play) -> None:
    """A request as an object takes up much more than its bytes do."""

    async def scenario(stage: Stage) -> None:
        client = await stage.connect()
        client.send(GET % b"/wait" + (GET % b"/" * 5_000))
        await stage.until(lambda: stage.echo.waiting == 1)
        seen = len(stage.echo.seen)
        assert seen < 500
        stage.echo.let_go.set()
        for _ in range(5_001):
            await client.answer()

    play(scenario)


def test_head_has_the_length_but_no_body(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.connect()
        answer = await client.ask(b"HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n", "HEAD")
        assert (answer.status, answer.headers["content-length"]) == (200, "9")
        refused = await client.ask(b"HEAD /refused HTTP/1.1\r\nHost: x\r\n\r\n", "HEAD")
        assert refused.status == 429
        assert (await client.ask(GET % b"/b")).body == b"GET /b 0"  # no byte was left over

    play(scenario)


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        # An answer of HTTP/1.1 does not tell a client of HTTP/1.0 that the connection stays.
        b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    ],
)
def test_some_clients_want_one_answer_only(play: Play, head: bytes) -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.connect()
        answer = await client.ask(head)
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await client.ended() == b""

    play(scenario)


def test_chunks_are_put_together(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.connect()
        chunks = b"3\r\nabc\r\n05;name=value\r\ndefgh\r\n0\r\n\r\n"
        head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert (await client.ask(head + chunks)).body == b"POST / 8"
        assert stage.echo.seen[0].body == b"abcdefgh"
        assert (await client.ask(GET % b"/next")).status == 200

    play(scenario)


def test_trailers_are_no_headers(play: Play) -> None:
    """Nobody has judged them."""

    async def scenario(stage: Stage) -> None:
        client = await stage.connect()
        head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        trailers = b"X-New: 1\r\nContent-Encoding: gzip\r\nHost: y\r\n\r\n"
        await client.ask(head + b"1\r\na\r\n0\r\n" + trailers)
        assert stage.echo.seen[0].headers == {"host": "x", "transfer-encoding": "chunked"}
        assert (await client.ask(GET % b"/next")).status == 200

    play(scenario)


def test_empty_lines_between_requests_are_passed_over(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.connect()
        for _ in range(2):
            assert (await client.ask(b"\r\n\r\n" + GET % b"/")).status == 200

    play(scenario)


def test_an_upgrade_is_a_wish_that_need_not_be_granted(play: Play) -> None:
    """Java's client, and `curl --http2`, ask for HTTP/2 with every first request."""
    wish = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"

    async def scenario(stage: Stage) -> None:
        client = await stage.connect()
        assert (await client.ask(b"GET /a HTTP/1.1\r\nHost: x\r\n" + wish + b"\r\n")).status == 200
        client.send(b"POST /b HTTP/1.1\r\nHost: x\r\n" + wish + b"Content-Length: 3\r\n\r\nabc")
        client.send(GET % b"/c")
        assert (await client.answer()).body == b"POST /b 3"
        assert (await client.answer()).body == b"GET /c 0"
        both = b"GET /d HTTP/1.1\r\nHost: x\r\n" + wish + b"\r\n" + GET % b"/e"
        client.send(both)
        assert (await client.answer()).body == b"GET /d 0"
        assert (await client.answer()).body == b"GET /e 0"

    play(scenario)


def test_a_body_beside_a_wish_to_upgrade_hides_no_request(play: Play) -> None:
    """The parser takes such a request to end with its head."""
    hidden = GET % b"/hidden"
    wish = b"Connection: upgrade\r\nUpgrade: websocket\r\n"
    chunks = b"%x\r\n" % len(hidden) + hidden + b"\r\n0\r\n\r\n"

    async def scenario(stage: Stage) -> None:
        client = await stage.connect()
        client.send(b"POST /a HTTP/1.1\r\nContent-Length: %d\r\n" % len(hidden))
        client.send(wish + b"\r\n" + hidden)
        client.send(b"POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + wish + b"\r\n" + chunks)
        client.send(b"POST /refused HTTP/1.1\r\nContent-Length: %d\r\n" % len(hidden))
        client.send(wish + b"\r\n" + hidden)
        client.send(b"CONNECT x:1 HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(hidden) + hidden)
        client.send(GET % b"/last")
        for body in (b"POST /a %d" % len(hidden), b"POST /b %d" % len(hidden)):
            assert (await client.answer()).body == body
        assert (await client.answer()).status == 429
        assert (await client.answer()).body == b"CONNECT x:1 %d" % len(hidden)
        assert (await client.answer()).body == b"GET /last 0"
        assert [request.body for request in stage.echo.seen[:2]] == [hidden] * 2
        assert "/hidden" not in [request.target for request in stage.echo.seen]

    play(scenario)


def test_a_large_body_beside_a_wish_to_upgrade_is_refused_as_ever(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        head = b"POST /a HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\n"
        for framing in (
            b"Content-Length: 5000000\r\n\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n1000\r\n",
        ):
            client = await stage.connect()
            client.send(head + framing + bytes(1001))
            answer = await client.answer()
            assert (answer.status, answer.headers["connection"]) == (413, "close")
            assert await client.ended() == b""

    play(scenario, max_body=1000)


def test_a_wish_to_upgrade_in_a_head_that_is_too_large_hides_no_request(play: Play) -> None:
    """Its length may be among the headers that were not kept."""

    async def scenario(stage: Stage) -> None:
        client = await stage.connect()
        hidden = GET % b"/hidden"
        client.send(b"POST /a HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\n")
        client.send(b"A: %s\r\nContent-Length: %d\r\n\r\n" % (b"b" * 1200, len(hidden)))
        client.send(hidden)
        assert (await client.answer()).status == 431
        assert await client.ended() == b""
        assert stage.echo.seen == []

    play(scenario, max_head=1000)


def test_other_transfer_encodings_are_not_known(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.connect()
        client.send(b"POST /a HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n")
        assert (await client.answer()).status == 501

    play(scenario)


# Size


def test_answers_that_nobody_takes_are_held_and_bounded(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        loop = asyncio.get_running_loop()
        silent = []
        for _ in range(4):
            raw = socket.create_connection(("127.0.0.1", stage.port))
            raw.setblocking(False)
            await loop.sock_sendall(raw, GET % b"/large")
            silent.append(raw)
        await stage.until(lambda: stage.memory.held == 2 * LARGE)
        await stage.until(lambda: len(stage.connections) == 2)  # the others were too much
        for raw in silent:
            raw.close()

    play(scenario, max_memory=2 * LARGE + 1000)


def test_a_body_that_is_announced_as_too_large_is_not_read(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.connect()
        answer = await client.ask(b"POST / HTTP/1.1\r\nContent-Length: 2000001\r\n\r\n")
        assert answer.status == 413
        assert answer.body == b'{"error":"expected a body of at most 2000000 bytes"}'
        assert answer.headers["connection"] == "close"
        assert stage.echo.seen == []
        exact = await stage.connect()
        exact.send(b"POST / HTTP/1.1\r\nContent-Length: 2000000\r\n\r\n" + bytes(2_000_000))
        assert (await exact.answer()).body == b"POST / 2000000"

    play(scenario, max_body=2_000_000)


def test_chunks_are_too_large_once_they_are(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.connect()
        client.send(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(10):
            client.send(b"64\r\n" + bytes(100) + b"\r\n")
        await stage.until(lambda: stage.memory.held >= 1000)
        assert len(client.reader._buffer) == 0  # type: ignore[attr-defined]
        answer = await client.ask(b"1\r\na\r\n")
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        assert stage.memory.held == 0
        assert stage.echo.log == [("/", 413)]
        assert await client.ended() == b""

    play(scenario, max_body=1000)


def test_the_body_of_a_refused_request_is_forgotten(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.connect()
        for head in (
            b"Content-Length: 5000\r\n\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n1388\r\n",
        ):
            client.send(b"POST /refused HTTP/1.1\r\n" + head + bytes(5000))
            if head.startswith(b"T"):
                client.send(b"\r\n0\r\n\r\n")
            assert (await client.answer()).status == 429
            assert (await client.ask(GET % b"/next")).body == b"GET /next 0"
        assert stage.memory.held == 0

    play(scenario)


def test_the_body_of_a_refused_request_costs_the_connection_if_it_is_large(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        announced = await stage.connect()
        answer = await announced.ask(
            b"POST /refused HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (DISCARDED + 1)
        )
        assert (answer.status, answer.headers["connection"]) == (429, "close")
        chunked = await stage.connect()
        chunked.send(b"POST /refused HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunked.send(b"%x\r\n" % (2 * DISCARDED) + bytes(DISCARDED + 1))
        answer = await chunked.answer()
        assert (answer.status, answer.headers["connection"]) == (429, "close")

    play(scenario)


def test_a_client_that_is_still_sending_can_read_its_refusal(play: Play) -> None:
    """A socket that is closed while input is unread resets the connection under the answer."""

    async def scenario(stage: Stage) -> None:
        client = await stage.connect()
        client.send(b"POST / HTTP/1.1\r\nContent-Length: 8000000\r\n\r\n" + bytes(8_000_000))
        await client.writer.drain()
        answer = await client.answer()
        assert answer.status == 413
        assert await client.ended() == b""

    play(scenario, max_body=1000)


def test_one_who_never_stops_sending_is_cut_off(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.http.connection.LINGER", 0.2)

    async def scenario(stage: Stage) -> None:
        client = await stage.connect()
        client.send(b"POST / HTTP/1.1\r\nContent-Length: 9999999999\r\n\r\n")
        with pytest.raises(ConnectionError):
            while True:
                client.send(bytes(100_000))
                await client.writer.drain()
                await asyncio.sleep(0.01)

    play(scenario, max_body=1000)


def test_what_follows_a_refusal_that_closes_is_not_looked_at(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.connect()
        head = b"POST /refused HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
        client.send(head + b"abc" + GET % b"/hidden" * 3)
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (429, "close")
        with pytest.raises(asyncio.TimeoutError):
            async with asyncio.timeout(0.2):
                while True:
                    client.send(GET % b"/hidden" * 100)
                    await asyncio.sleep(0.01)
        assert [request.target for request in stage.echo.seen] == ["/refused"]
        assert stage.echo.log == [("/refused", 429)]

    play(scenario)


@pytest.mark.parametrize(
    "message",
    [
        b"GET / HTTP/1.1\r\nX-Long: " + b"a" * 3000 + b"\r\n\r\n",
        b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A:\r\n" * 1000 + b"\r\n",
        b"GET / HTTP/1.1\r\n" + b"A" * 3000 + b": b\r\n\r\n",
        # Those that never end:
        b"GET / HTTP/1.1\r\nX-Long: " + b"a" * 30_000,
        b"GET /" + b"a" * 30_000,
        b"GET / HTTP/1.1\r\n" + b"A:\r\n" * 10_000,
    ],
    ids=["value", "target", "many", "name", "endless value", "endless target", "endless many"],
)
def test_a_head_has_a_size(play: Play, message: bytes) -> None:
    async def scenario(stage: Stage) -> None:
        for piece in (len(message), 1000):
            client = await stage.connect()
            for start in range(0, len(message), piece):
                client.send(message[start : start + piece])
                await asyncio.sleep(0.001)
            answer = await client.answer()
            assert answer.status == 431
            assert answer.body == b'{"error":"expected a head of at most 2000 bytes"}'
        assert stage.echo.seen == []

    play(scenario, max_head=2000)


def test_a_flood_of_headers_costs_little(play: Play) -> None:
    """Joining them one by one would take time by the square of their number."""

    async def scenario(stage: Stage) -> None:
        client = await stage.connect()
        loop = asyncio.get_running_loop()
        started = loop.time()
        client.send(b"GET / HTTP/1.1\r\n" + b"A:\r\n" * 500_000)
        assert (await client.answer()).status == 431
        assert loop.time() - started < 2

    play(scenario)


@pytest.mark.parametrize("flood", [b"A: b\r\n", b"A" * 10_000, b"A: " + b"b" * 10_000])
def test_trailers_have_a_size_too(play: Play, flood: bytes) -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.connect()
        client.send(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n")
        for piece in itertools.repeat(flood, 200_000 // len(flood)):
            client.send(piece)
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (431, "close")

    play(scenario, max_head=2000)


def test_bodies_share_one_memory(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        first, second = await stage.connect(), await stage.connect()
        first.send(b"POST /wait HTTP/1.1\r\nContent-Length: 600000\r\n\r\n" + bytes(600_000))
        await stage.until(lambda: stage.echo.waiting == 1)
        assert stage.memory.held == 600_000
        second.send(b"POST / HTTP/1.1\r\nContent-Length: 600000\r\n\r\n" + bytes(600_000))
        answer = await second.answer()
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        stage.echo.let_go.set()
        assert (await first.answer()).body == b"POST /wait 600000"
        assert stage.memory.held == 0
        third = await stage.connect()
        third.send(b"POST / HTTP/1.1\r\nContent-Length: 600000\r\n\r\n" + bytes(600_000))
        assert (await third.answer()).status == 200

    play(scenario, max_memory=1_000_000)


def test_many_small_chunks_count_as_what_they_take_up(play: Play) -> None:
    """A chunk of 2 bytes is an object of 40."""

    async def scenario(stage: Stage) -> None:
        client = await stage.connect()
        client.send(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.send(b"2\r\nab\r\n" * 100_000)
        assert (await client.answer()).status == 503
        few = await stage.connect()
        few.send(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        few.send(b"2\r\nab\r\n" * 100 + b"0\r\n\r\n")
        assert (await few.answer()).body == b"POST / 200"

    play(scenario, max_memory=1_000_000)


# 100-continue


def test_a_client_that_asks_first_is_told_to_go_on(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.connect()
        head = b"POST / HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 3\r\n\r\n"
        assert (await client.ask(head)).status == 100
        assert (await client.ask(b"abc")).body == b"POST / 3"
        assert (await client.ask(GET % b"/next")).status == 200

    play(scenario)


@pytest.mark.parametrize(
    "head, status",
    [
        (b"POST /refused HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n", 429),
        (b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3000\r\n\r\n", 413),
    ],
)
def test_a_client_that_asks_first_is_told_to_let_it_be(
    play: Play, head: bytes, status: int
) -> None:
    """It may send the body nevertheless, or another request: nobody could tell. So this ends."""

    async def scenario(stage: Stage) -> None:
        client = await stage.connect()
        answer = await client.ask(head)
        assert (answer.status, answer.headers["connection"]) == (status, "close")
        assert await client.ended() == b""

    play(scenario, max_body=1000)


# Malformed


@pytest.mark.parametrize(
    "message",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),  # a TLS hello
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"\x00" * 100,
        b"\xff\xfe\xfd",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTX/1.1\r\n\r\n",
        b"FETCH / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nNo colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nSpace : before\r\n\r\n",
        b"GET / HTTP/1.1\r\n folded: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\x00c\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\na",
        b"POST / HTTP/1.1\r\nContent-Length: 1_0\r\n\r\n1234567890",
        b"POST / HTTP/1.1\r\nContent-Length: 0x10\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: \xb2\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n",
    ],
)  # fmt: skip
def test_what_is_no_http_gets_400_and_is_closed(play: Play, message: bytes) -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.connect()
        answer = await client.ask(message)
        assert (answer.status, answer.headers["connection"]) == (400, "close")
        assert answer.body.startswith(b'{"error":"malformed HTTP request: ')
        assert await client.ended() == b""
        assert all(status != 200 for _, status in stage.echo.log)
        assert len(stage.echo.log) == 1

    play(scenario)


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n",
        b"Content-Length: 6\r\nContent-Length: 5\r\n",
        b"Content-Length: 6\r\nContent-Length: 6\r\n",
        b"Content-Length: 6, 6\r\n",
        b"Content-Length: 6 5\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding:\x0bchunked\r\n",
        b"X: y\nTransfer-Encoding: chunked\r\n",
        b"X: y\rTransfer-Encoding: chunked\r\n",
    ],
)
def test_no_request_is_smuggled_in_a_body(play: Play, framing: bytes) -> None:
    """Where two servers could disagree where a body ends, this one does not guess."""
    hidden = b"0\r\n\r\n" + GET % b"/hidden"

    async def scenario(stage: Stage) -> None:
        client = await stage.connect()
        answer = await client.ask(b"POST / HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n" + hidden)
        assert (answer.status, answer.headers["connection"]) == (400, "close")
        assert await client.ended() == b""
        assert "/hidden" not in [request.target for request in stage.echo.seen]

    play(scenario)


def test_requests_before_a_malformed_one_are_answered(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.connect()
        client.send(GET % b"/wait" + GET % b"/a" + b"garbage\r\n\r\n" + GET % b"/never")
        await stage.until(lambda: stage.echo.waiting == 1)
        stage.echo.let_go.set()
        assert (await client.answer()).body == b"GET /wait 0"
        assert (await client.answer()).body == b"GET /a 0"
        assert (await client.answer()).status == 400
        assert await client.ended() == b""

    play(scenario)


# Time


@pytest.mark.parametrize("start", [b"", b"G", b"GET / HTTP/1.1\r\nA: b\r\n", b"\r\n"])
def test_a_head_must_arrive_in_time(play: Play, start: bytes) -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.connect()
        client.send(start)
        if start:
            answer = await client.answer()
            assert (answer.status, answer.headers["connection"]) == (408, "close")
            assert answer.body == b'{"error":"the request\'s head did not arrive in time"}'
        assert await client.ended() == b""

    play(scenario, head_timeout=0.1)


def test_bytes_that_trickle_in_do_not_prolong_the_time(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        async def trickle(client: Client) -> None:
            while True:
                client.send(b"a")
                await asyncio.sleep(0.02)

        for start in (b"GET /", b"POST / HTTP/1.1\r\nContent-Length: 900\r\n\r\n"):
            client = await stage.connect()
            client.send(start)
            async with asyncio.timeout(5):
                trickling = asyncio.create_task(trickle(client))
                assert (await client.answer()).status == 408
                trickling.cancel()

    play(scenario, head_timeout=0.15, body_timeout=0.15)


def test_a_body_must_arrive_in_time(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.connect()
        answer = await client.ask(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc")
        assert (answer.status, answer.headers["connection"]) == (408, "close")
        assert answer.body == b'{"error":"the request\'s body did not arrive in time"}'
        assert stage.memory.held == 0

    play(scenario, body_timeout=0.1)


def test_time_is_not_counted_while_an_answer_is_made(play: Play) -> None:
    """Not that of the one, nor that of the next, which cannot be read meanwhile."""

    async def scenario(stage: Stage) -> None:
        client = await stage.connect()
        client.send(GET % b"/wait" + b"POST /b HTTP/1.1\r\nContent-Length: 4\r\n\r\nab")
        await stage.until(lambda: stage.echo.waiting == 1)
        await asyncio.sleep(0.75)  # longer than any limit
        stage.echo.let_go.set()
        assert (await client.answer()).status == 200
        assert (await client.ask(b"cd")).body == b"POST /b 4"

    play(scenario, head_timeout=0.5, body_timeout=0.5, idle_timeout=0.5)


def test_an_idle_connection_is_closed_without_a_word(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.connect()
        assert (await client.ask(GET % b"/")).status == 200
        assert await client.ended() == b""

    play(scenario, idle_timeout=0.1)


def test_a_client_that_never_reads_is_cut_off(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.setblocking(False)
        with raw:
            loop = asyncio.get_running_loop()
            await loop.sock_connect(raw, ("127.0.0.1", stage.port))
            await loop.sock_sendall(raw, GET % b"/large" + GET % b"/next")
            await stage.until(lambda: ("/large", 200) in stage.echo.log)
            assert stage.connections.busy == 1
            await stage.until(lambda: not len(stage.connections))
            assert "/next" not in dict(stage.echo.log)  # it cost nothing

    play(scenario, write_timeout=0.2)


def test_a_client_that_reads_slowly_gets_everything(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.connect()
        client.send(GET % b"/large" + GET % b"/next")
        answer = await client.answer()
        assert len(answer.body) == LARGE
        assert (await client.answer()).body == b"GET /next 0"

    play(scenario)


def test_one_who_sends_far_ahead_has_to_wait(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.connect()
        client.send(GET % b"/wait")
        await stage.until(lambda: stage.echo.waiting == 1)
        raw = client.writer.get_extra_info("socket")
        buffers = raw.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        count = (40_000_000 + buffers) // len(GET % b"/next")
        client.send(GET % b"/next" * count)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await client.writer.drain()
        assert len(stage.echo.seen) < 2 * BACKLOG // len(GET % b"/next")
        client.reset()
        stage.echo.let_go.set()  # nobody sees who leaves while nothing is read

    play(scenario)


def test_what_was_sent_ahead_is_answered_later(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.connect()
        client.send(GET % b"/wait")
        await stage.until(lambda: stage.echo.waiting == 1)
        body = b"POST /%d HTTP/1.1\r\nContent-Length: 50000\r\n\r\n"
        client.send(b"".join(body % number + bytes(50_000) for number in range(40)))
        stage.echo.let_go.set()
        assert (await client.answer()).status == 200
        for number in range(40):
            assert (await client.answer()).body == b"POST /%d 50000" % number

    play(scenario)


# Gone


@pytest.mark.parametrize("vanish", [Client.close, Client.reset])
@pytest.mark.parametrize(
    "message",
    [
        b"GET /wait HTTP/1.1\r\n\r\n",
        b"POST /wait HTTP/1.1\r\nContent-Length: 5000\r\n\r\n" + bytes(5000),
        b"GET /wait HTTP/1.1\r\n\r\n" + b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nab" * 9,
        b"GET /wait HTTP/1.1\r\n\r\n" + b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\na",
    ],
)
def test_nothing_is_answered_to_one_who_left(
    play: Play, message: bytes, vanish: Callable[[Client], None]
) -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.connect()
        client.send(message)
        await stage.until(lambda: stage.echo.waiting == 1)
        vanish(client)
        await stage.until(lambda: not len(stage.connections))
        await stage.until(lambda: bool(stage.echo.log))
        assert stage.echo.log == [("/wait", 499)]

    play(scenario)


@pytest.mark.parametrize("vanish", [Client.close, Client.reset])
@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"GET /",
        b"POST / HTTP/1.1\r\nContent-Length: 5000\r\n\r\n" + bytes(400),
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n" + bytes(400),
        b"POST /refused HTTP/1.1\r\nContent-Length: 5000\r\n\r\n" + bytes(400),
        b"POST / HTTP/1.1\r\nContent-Length: 9999999999\r\n\r\n" + bytes(400),
    ],
)
def test_half_a_request_leaves_nothing_behind(
    play: Play, message: bytes, vanish: Callable[[Client], None]
) -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.connect()
        client.send(message)
        await client.writer.drain()
        await stage.until(lambda: len(stage.connections) == 1)
        vanish(client)
        await stage.until(lambda: not len(stage.connections))
        assert stage.echo.waiting == 0

    play(scenario)


def test_a_request_behind_an_answer_that_nobody_takes_leaves_nothing_behind(play: Play) -> None:
    """The answer finds the connection reset while the next request is already there."""
    message = GET % b"/refused" + b"POST /b HTTP/1.1\r\nContent-Length: 50\r\n\r\n" + bytes(50)

    async def scenario(stage: Stage) -> None:
        for _ in range(20):
            raw = socket.create_connection(("127.0.0.1", stage.port))
            with raw:
                raw.sendall(message)
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await asyncio.sleep(0.001)
        await stage.until(lambda: not len(stage.connections))

    play(scenario)


def test_many_who_come_and_go_leave_nothing_behind(play: Play) -> None:
    """At every moment of a request's life."""
    message = b"POST /wait HTTP/1.1\r\nContent-Length: 30\r\n\r\n" + bytes(30)

    async def scenario(stage: Stage) -> None:
        for length in range(0, 2 * len(message), 3):
            client = await stage.connect()
            client.send((message * 2)[:length])
            await asyncio.sleep(0)
            client.reset()
        await stage.until(lambda: not len(stage.connections))

    play(scenario)


# All of them


def test_there_are_only_so_many_connections(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        clients = [await stage.connect() for _ in range(3)]
        await stage.until(lambda: len(stage.connections) == 3)
        late = await stage.connect()
        answer = await late.answer()
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert answer.headers["connection"] == "close"
        assert b"too many connections" in answer.body
        assert await late.ended() == b""
        assert (await clients[0].ask(GET % b"/")).status == 200
        sending = await stage.connect()
        head = b"POST / HTTP/1.1\r\nContent-Length: 5000000\r\n\r\n"
        sending.send(head + bytes(5_000_000))
        await sending.writer.drain()
        assert (await sending.answer()).status == 503
        clients[1].close()
        await stage.until(lambda: len(stage.connections) == 2)
        assert (await (await stage.connect()).ask(GET % b"/")).status == 200

    play(scenario, max_connections=3)


def test_no_flood_of_the_refused_is_kept(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        kept = await stage.connect()
        assert (await kept.ask(GET % b"/")).status == 200
        for _ in range(REFUSED + 1):
            refused = await stage.connect()
            assert (await refused.answer()).status == 503
        with pytest.raises(ConnectionError):  # at once, not after the time to linger
            async with asyncio.timeout(LINGER / 2):
                while True:
                    refused.send(b"a")
                    await refused.writer.drain()
                    await asyncio.sleep(0)
        assert (await kept.ask(GET % b"/")).status == 200
        assert len(stage.connections) == 1

    play(scenario, max_connections=1)


def test_the_last_answers_say_so(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        idle, waiting = await stage.connect(), await stage.connect()
        assert (await idle.ask(GET % b"/")).status == 200
        waiting.send(b"POST /wait HTTP/1.1\r\nContent-Length: 1\r\n\r\na" + GET % b"/next")
        await stage.until(lambda: stage.echo.waiting == 1)
        assert stage.connections.busy == 1
        stage.connections.draining = True
        stage.connections.close_idle()
        assert await idle.ended() == b""
        stage.echo.let_go.set()
        assert (await waiting.answer()).body == b"POST /wait 1"
        answer = await waiting.answer()  # it was sent in time
        assert (answer.body, answer.headers["connection"]) == (b"GET /next 0", "close")
        assert await waiting.ended() == b""
        await stage.until(lambda: not stage.connections.busy)

    play(scenario)


@pytest.mark.parametrize("start", [b"", b"GET /wait HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\nCon"])
def test_all_can_be_cut_off(play: Play, start: bytes) -> None:
    async def scenario(stage: Stage) -> None:
        clients = [await stage.connect() for _ in range(3)]
        for client in clients:
            client.send(start)
        await stage.until(lambda: len(stage.connections) == 3)
        if b"/wait" in start:
            await stage.until(lambda: stage.echo.waiting == 3)
        stage.connections.abort()
        for client in clients:
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await client.reader.readexactly(1)
        await stage.until(lambda: not len(stage.connections))

    play(scenario)


def test_a_refusal_of_the_application_is_the_answer(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        def admit(request: Request) -> None:
            raise HttpError(405, "no", ("Allow", "GET"))

        stage.echo.admit = admit  # type: ignore[method-assign]
        client = await stage.connect()
        for _ in range(2):
            answer = await client.ask(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc")
            assert (answer.status, answer.headers["allow"]) == (405, "GET")
            assert answer.body == b'{"error":"no"}'

    play(scenario)


def test_a_fault_of_the_application_is_no_fault_of_the_client(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(stage: Stage) -> None:
        def admit(request: Request) -> None:
            raise KeyError("a bug")

        stage.echo.admit = admit  # type: ignore[method-assign]
        client = await stage.connect()
        answer = await client.ask(GET % b"/")
        assert (answer.status, answer.headers["connection"]) == (500, "close")
        assert b"bug" not in answer.body
        assert await client.ended() == b""

    play(scenario)
    assert "KeyError: 'a bug'" in caplog.text


def test_an_answer_that_takes_too_long_is_504(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.connect()
        client.send(b"POST /wait HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello" + GET % b"/next")
        assert (await client.answer()).status == 504
        assert (await client.answer()).body == b"GET /next 0"
        assert stage.echo.log == [("/wait", 504), ("/next", 200)]
        assert stage.memory.held == 0

    play(scenario, timeout=0.1)
