"""From a request to its answer: who may ask, who answers, and what an error looks like."""

import asyncio
import gzip
import logging
import time
import zlib
from functools import lru_cache

from prometheus_client import Counter, Histogram

from serve.command import LockstepError, one_line
from serve.http import metrics
from serve.http.access_log import AccessLog
from serve.http.messages import HttpError, Request, Response, busy, expired, internal_error
from serve.http.protocol import ProtocolError
from serve.http.repository import RepositoryError, UnknownModelError
from serve.http.routes import Route, find_route
from serve.http.security import Gate
from serve.http.service import Service

ENCODINGS = {"": False, "identity": False, "gzip": True, "x-gzip": True, "deflate": True}
"""What a body may be packed with, and whether there is anything to unpack."""

DEFLATE_RATIO = 1032
"""No deflated body becomes more times its size (zlib.net/zlib_tech.html)."""

WORTH_PACKING = range(2**10, 2**20)
"""Bytes of an answer that is packed if the client takes gzip: a larger one would take too long."""

_log = logging.getLogger("lockstep")


class App:
    """Answers requests. See `connection.Application`."""

    def __init__(self, service: Service, gate: Gate, access_log: AccessLog | None) -> None:
        self._service = service
        self._gate = gate
        self._access_log = access_log

    def admit(self, request: Request) -> None:
        """Refuse what can be refused before its body is read.

        Raises:
            HttpError: 401, 403, 404, 405, 415, 429, 503.
        """
        route, request.model, request.version = find_route(request.path)
        request.route = route
        if request.method == "OPTIONS":
            return
        route.handler(request.method)
        if not route.is_public:
            self._gate.check_key(request.headers)
            self._gate.check_host(request.headers)
        if request.method == "POST":
            self._gate.check_origin(request.headers)
            _packing(request)
        if route.queue:
            if self._service.draining:
                raise busy(503, "the server is shutting down")
            try:
                request.served = route.queue(self._service, request)
            except UnknownModelError as error:
                raise self._error(error) from None
            request.served.check_room()

    async def answer(self, request: Request) -> Response:
        """Answer a request that was admitted."""
        route = request.route
        assert route  # it was admitted
        if request.method == "OPTIONS":
            headers = self._gate.preflight(request.headers, route.methods)
            return Response(204, headers=(("Allow", route.methods), *headers))
        try:
            response = await self._handled(request, route)
        except HttpError as error:
            response = error.response()
        except TimeoutError:
            response = expired().response()
        except LockstepError as error:
            response = self._error(error).response()
        except Exception:  # noqa: BLE001 (a fault of one request must not become one of all)
            _log.exception("%s %s failed", request.method, request.path[:200])
            response = internal_error().response()
        self._allow_page(request, response)
        return _packed(request, response) if route.is_packed else response

    def refuse(self, request: Request, error: HttpError) -> Response:
        """Answer a request that was not admitted."""
        response = error.response()
        self._allow_page(request, response)
        return response

    def _allow_page(self, request: Request, response: Response) -> None:
        """Let the page that asks read the answer, if it may."""
        if "origin" in request.headers:
            response.headers += self._gate.cors(request.headers)

    def answered(self, request: Request, response: Response) -> None:
        """Count and log an answer."""
        seconds = time.perf_counter() - request.started if request.started else 0.0
        pattern = request.route.pattern if request.route else ""
        requests, durations = _counters(request.method, pattern, response.status)
        requests.inc()
        durations.observe(seconds)
        if request.served and request.method == "POST":
            request.served.count(metrics.outcome(response.status), seconds)
        if self._access_log:
            self._access_log.add(request, response, seconds)

    async def sweep(self) -> None:
        """What is worth doing a few times a second only."""
        self._service.connections.sweep()
        self._service.report()
        if self._access_log:
            self._access_log.flush()

    async def _handled(self, request: Request, route: Route) -> Response:
        handler = route.handler(request.method)
        if not _packing(request):
            return await handler(self._service, request)
        # Room for the most that it can become is kept until it is clear what it becomes.
        most = self._service.limits.max_body
        room = min(most, DEFLATE_RATIO * len(request.body))
        self._service.memory.take(room)
        try:
            loop = asyncio.get_running_loop()
            request.body = await loop.run_in_executor(None, unpack, request.body, most)
            self._service.memory.give(room - len(request.body))
            room = len(request.body)
            return await handler(self._service, request)
        finally:
            self._service.memory.give(room)

    def _error(self, error: LockstepError) -> HttpError:
        if isinstance(error, UnknownModelError):
            return HttpError(404, str(error))
        if isinstance(error, ProtocolError | RepositoryError):
            return HttpError(400, str(error))
        _log.error("a model failed: %s", one_line(error))
        return HttpError(500, "the model failed on this input; the server's log has the details")


@lru_cache(None)
def _counters(method: str, pattern: str, status: int) -> tuple[Counter, Histogram]:
    """Finding a counter by its labels costs more than counting."""
    requests = metrics.http_requests.labels(method, pattern, status)
    return requests, metrics.http_seconds.labels(pattern)


def _packing(request: Request) -> bool:
    """Whether the body is packed. Raises HttpError: 415; in a way that is not known."""
    name = request.headers.get("content-encoding", "").strip().lower()
    if name not in ENCODINGS:
        raise HttpError(
            415,
            f"expected Content-Encoding gzip, deflate or none, got {name!r:.40}",
            ("Accept-Encoding", "gzip, deflate"),
        )
    return ENCODINGS[name]


def unpack(body: bytes, most: int) -> bytes:
    """Inflate gzip or zlib data.

    Raises:
        HttpError: 400; it is damaged, or cut off. 413; it becomes more than `most` bytes.
    """
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # either header
    try:
        content = inflater.decompress(body, most + 1)
    except zlib.error as error:
        raise HttpError(400, f"the packed body is damaged: {error}") from None
    if len(content) > most:
        raise HttpError(413, f"expected a body of at most {most} bytes, unpacked")
    if not inflater.eof or inflater.unused_data:
        raise HttpError(400, "the packed body is cut off, or has something behind it")
    return content


def _packed(request: Request, response: Response) -> Response:
    size_fits = len(response.body) in WORTH_PACKING
    if size_fits and _takes_gzip(request.headers.get("accept-encoding", "")):
        response.body = gzip.compress(response.body, 1)
        response.headers += (("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding"))
    return response


def _takes_gzip(accept_encoding: str) -> bool:
    """Whether gzip is among the encodings, and not with the weight 0 (RFC 9110, 12.5.3)."""
    for entry in accept_encoding.lower().split(","):
        name, _, weight = entry.replace(" ", "").partition(";")
        if name == "gzip":
            return weight.rstrip("0.") != "q="
    return False
