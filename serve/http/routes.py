"""Every path there is, and who answers it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

from serve.http import pages, v2
from serve.http.messages import HttpError, Request, Response
from serve.http.predict import predict, served_by
from serve.http.served import Served
from serve.http.service import Service

Handler = Callable[[Service, Request], Awaitable[Response]]


@dataclass(frozen=True)
class Route:
    """A path.

    Attributes:
        pattern: with {model} and {version} where they stand.
        handlers: by method; HEAD is answered as GET is.
        is_public: no API key is asked for.
        is_packed: answers are packed for who takes gzip; the asyncio client of Triton says that it
            does wherever it asks, but unpacks only inferences.
        queue: finds the model whose queue a request will join, before its body is read.
    """

    pattern: str
    handlers: Mapping[str, Handler]
    is_public: bool = False
    is_packed: bool = False
    queue: Callable[[Service, Request], Served] | None = None

    @property
    def methods(self) -> str:
        """As the header Allow lists them."""
        head = ("HEAD",) if "GET" in self.handlers else ()
        return ", ".join((*self.handlers, *head, "OPTIONS"))

    def handler(self, method: str) -> Handler:
        """Raises HttpError: 405."""
        found = self.handlers.get("GET" if method == "HEAD" else method)
        if not found:
            raise HttpError(
                405, f"expected {self.methods}, got {method:.40}", ("Allow", self.methods)
            )
        return found


LONG_PATH = 200

_MODEL = "/v2/models/{model}"
_VERSION = "/v2/models/{model}/versions/{version}"


def _of_model(tail: str, handlers: Mapping[str, Handler], **options: object) -> list[Route]:
    return [Route(start + tail, handlers, **options) for start in (_MODEL, _VERSION)]  # type: ignore[arg-type]


ROUTES = (
    *_of_model("/infer", {"POST": v2.infer}, is_packed=True, queue=v2.find),
    Route("/predict", {"POST": predict}, is_packed=True, queue=served_by),
    Route("/v2/health/live", {"GET": v2.live}, is_public=True),
    Route("/v2/health/ready", {"GET": v2.ready}, is_public=True),
    Route("/v2", {"GET": v2.server_metadata}),
    Route("/v2/models/stats", {"GET": v2.model_statistics}),
    *_of_model("", {"GET": v2.model_metadata}),
    *_of_model("/ready", {"GET": v2.model_ready}),
    *_of_model("/config", {"GET": v2.model_config}),
    *_of_model("/stats", {"GET": v2.model_statistics}),
    Route("/v2/repository/index", {"POST": v2.repository_index}),
    Route("/v2/repository/models/{model}/load", {"POST": v2.repository_load}),
    Route("/v2/repository/models/{model}/unload", {"POST": v2.repository_unload}),
    Route("/models", {"GET": pages.models}, is_packed=True),
    Route("/metrics", {"GET": pages.prometheus}, is_packed=True),
    Route("/openapi.json", {"GET": pages.openapi}, is_public=True, is_packed=True),
    *(
        Route(path, {"GET": page}, is_public=True, is_packed=True)
        for path, page in pages.FILES.items()
    ),
)

_FIXED = {route.pattern: route for route in ROUTES if "{" not in route.pattern}
_OPEN = [(route, route.pattern.split("/")) for route in ROUTES if "{" in route.pattern]


def find_route(path: str) -> tuple[Route, str, str | None]:
    """The route of a path, and the model and the version in it.

    Raises:
        HttpError: 404.
    """
    # Only short ones are remembered: clients choose them.
    return _remembered(path) if len(path) < LONG_PATH else _find(path)


def _find(path: str) -> tuple[Route, str, str | None]:
    if path in _FIXED:
        return _FIXED[path], "", None
    # Split first: an encoded slash belongs to a name.
    segments = path.split("/")
    for route, pattern in _OPEN:
        if len(pattern) == len(segments) and all(
            expected[:1] == "{" or expected == segment
            for expected, segment in zip(pattern, segments, strict=True)
        ):
            model = unquote(segments[pattern.index("{model}")])
            versioned = "{version}" in pattern
            version = unquote(segments[pattern.index("{version}")]) if versioned else None
            return route, model, version
    raise HttpError(404, f"no such path: {path[:200]!r}; GET /docs lists them")


_remembered = lru_cache(1024)(_find)
