"""From a request to its answer: who may ask, who answers, and what an error looks like."""

import asyncio
import logging
import time
from functools import lru_cache

from prometheus_client import Counter, Histogram

from serve.command import LockstepError, one_line
from serve.http import metrics
from serve.http.access_log import AccessLog
from serve.http.catalogue import RepositoryError
from serve.http.compression import DEFLATE_RATIO, is_packed, packed, unpack
from serve.http.messages import HttpError, Request, Response, busy, expired, internal_error
from serve.http.protocol import ProtocolError
from serve.http.repository import UnknownModelError
from serve.http.routes import Route, find_route
from serve.http.security import Gate
from serve.http.service import Service

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
            is_packed(request)
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
        return packed(request, response) if route.is_packed else response

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
        if not is_packed(request):
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
