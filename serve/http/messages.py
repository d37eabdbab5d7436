"""What a request and a response are, whoever reads or writes them."""

import dataclasses
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import orjson

from serve.command import LockstepError

if TYPE_CHECKING:
    from serve.http.batcher import Timing
    from serve.http.routes import Route
    from serve.http.served import Served

JSON = "application/json"
OCTETS = "application/octet-stream"
FORM = "multipart/form-data"
Headers = tuple[tuple[str, str], ...]


@dataclasses.dataclass(slots=True)
class Response:
    """An answer, before the connection adds what every answer carries."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: Headers = ()


class HttpError(LockstepError):
    """A request that gets `status` and this message as its answer."""

    def __init__(self, status: int, message: str, *headers: tuple[str, str]) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers

    def response(self) -> Response:
        return Response(self.status, orjson.dumps({"error": str(self)}), headers=self.headers)


def expired() -> HttpError:
    """The answer to a request whose time is over."""
    return HttpError(504, "the request's time was over before its answer")


def internal_error() -> HttpError:
    """The answer to a request that met a fault of the server."""
    return HttpError(500, "internal error; the server's log has the details")


def busy(status: int, message: str, seconds: float = 1.0) -> HttpError:
    """A refusal that says when to come back: 429 or 503 with Retry-After, in whole seconds."""
    return HttpError(status, message, ("Retry-After", str(max(1, round(seconds)))))


def json_response(document: Any, status: int = HTTPStatus.OK) -> Response:
    return Response(status, orjson.dumps(document))


@dataclasses.dataclass(slots=True)
class Request:
    """A request as it came, without any trust in it.

    Attributes:
        method, target: of the request line.
        headers: by name in lower case; repeated ones are joined by commas.
        peer: the other side's address.
        started: when its first byte came, in seconds of `time.perf_counter`.
        body: as it was sent; once it is being answered, without its compression.
        route: who answers it, if its path is known.
        model, version: that are in its path; "" and None if they are not.
        served: the version that it is for, once that is known.
        timing: how long each stage took, once it is computed.
        images: how many it has.
        id: what the client calls it.
    """

    method: str
    target: str
    headers: dict[str, str]
    peer: str
    started: float
    body: bytes = b""
    route: "Route | None" = None
    model: str = ""
    version: str | None = None
    served: "Served | None" = None
    timing: "Timing | None" = None
    images: int = 0
    id: str = ""

    @property
    def path(self) -> str:
        """The target without its query, still percent-encoded; of an absolute one its path."""
        path = self.target.partition("?")[0]
        if path[:1] != "/" and path.startswith(("http://", "https://")):
            return "/" + path.partition("://")[2].partition("/")[2]
        return path

    def query(self, *names: str) -> dict[str, str]:
        """The query's fields.

        Raises:
            HttpError: 400; one that is not among `names`, or one that is given twice.
        """
        found: dict[str, str] = {}
        text = self.target.partition("?")[2]
        try:
            pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=100)
        except ValueError as error:
            raise HttpError(400, f"the query cannot be read: {error}") from None
        for name, value in pairs:
            if name not in names:
                expected = ", ".join(names) or "none"
                raise HttpError(400, f"unknown query field {name!r:.80}; expected {expected}")
            if name in found:
                raise HttpError(400, f"query field {name} is given twice")
            found[name] = value
        return found
