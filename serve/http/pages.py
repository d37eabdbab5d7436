"""What people and their tools look at: the page, the documentation, the models, the metrics."""

from collections.abc import Awaitable, Callable, Mapping
from importlib import resources

from serve.http import metrics
from serve.http.messages import Headers, Request, Response, json_response
from serve.http.openapi import document
from serve.http.service import Service

PAGE_HEADERS: Headers = (
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "connect-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-cache"),
)
_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


def _file(name: str) -> Callable[[Service, Request], Awaitable[Response]]:
    content = (resources.files("serve.http.page") / name).read_bytes()
    content_type = _TYPES[name.rpartition(".")[2]]

    async def answer(service: Service, request: Request) -> Response:
        return Response(200, content, content_type, PAGE_HEADERS)

    return answer


def _files() -> Mapping[str, Callable[[Service, Request], Awaitable[Response]]]:
    names = sorted(
        item.name
        for item in resources.files("serve.http.page").iterdir()
        if item.name.rpartition(".")[2] in _TYPES
    )
    paths = {"index.html": "/", "docs.html": "/docs"}
    return {paths.get(name, f"/{name}"): _file(name) for name in names}


FILES = _files()
"""The page's files, by path."""


async def models(service: Service, request: Request) -> Response:
    """What every model says of itself."""
    newest = [service.repository.find(name) for name in service.repository.names]
    return json_response(
        {
            "models": [
                {
                    "name": served.name,
                    "version": served.version,
                    "versions": [item.version for item in service.repository.versions(served.name)],
                    "document": served.document.to_json(),
                }
                for served in newest
            ]
        }
    )


async def prometheus(service: Service, request: Request) -> Response:
    service.report()
    body, content_type = metrics.page()
    return Response(200, body, content_type)


async def openapi(service: Service, request: Request) -> Response:
    names = service.repository.names if service.is_open else ()
    return json_response(document(service.limits, names))
