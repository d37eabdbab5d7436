"""The OpenAPI 3.1 description of every path. What the JSON looks like is in `openapi_schemas`."""

from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any

import serve
from serve.bundle import INPUT, OUTPUT
from serve.http.limits import Limits
from serve.http.messages import FORM, JSON, OCTETS
from serve.http.openapi_schemas import Schema, array, binary, integer, number, ref, schemas, text
from serve.http.predict import TOP
from serve.http.protocol import DEFAULT_PRIORITY, LOWEST_PRIORITY
from serve.image_formats import READABLE

TAGS = {
    "predict": "An image in, labels out.",
    "inference protocol": "The Open Inference Protocol v2 with its extensions for binary tensors "
    "and classification. Any client of it will do, such as `tritonclient.http`.",
    "models": "What is served, and how it is doing.",
    "operations": "For whoever runs the server.",
    "pages": "What browsers look at. These paths need no API key.",
}

PIXEL = "R0lGODdhAQABAIEAAP///wAAAAAAAAAAACwAAAAAAQABAAAIBAABBAQAOw=="
"""A white GIF of one pixel, as base64: an image that every model takes."""


def document(limits: Limits, models: Sequence[str] = ()) -> dict[str, Any]:
    """The whole description.

    Args:
        limits: stand in it as they are.
        models: those that are served; the first one is in the examples, so that they work.
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Lockstep",
            "version": serve.__version__,
            "summary": "Image classifiers over HTTP",
            "description": _about(limits),
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": about} for name, about in TAGS.items()],
        "paths": _paths(),
        "components": {
            "schemas": schemas(limits),
            "parameters": _parameters(models or ["fashion-mnist"]),
            "responses": _ERRORS,
            "headers": _HEADERS,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key, as `Authorization: Bearer KEY`.",
                },
                "key": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "X-API-Key",
                    "description": "The same, as `X-API-Key: KEY`.",
                },
            },
        },
    }


def _pixels(limits: Limits) -> str:
    if limits.max_pixels is None:
        return "as many pixels as its model allows"
    return f"{limits.max_pixels:,} pixels at most"


def _about(limits: Limits) -> str:
    return f"""
Bundles that Lockstep exported, behind HTTP. To try it:
`curl --data-binary @shoe.jpg localhost:8000/predict`

Every error is `{{"error": "..."}}`: what was expected, what came, what to do. 429 and 503 say in
`Retry-After` when to come back. Each operation also lists what can happen to any request: a head
or a body that is malformed, too large or too slow, and a server that is full.

HEAD is answered wherever GET is, and OPTIONS everywhere. Bodies may be packed with
`Content-Encoding: gzip` or `deflate`; answers are, where the client takes gzip.

Limits of this server: bodies of {limits.max_body:,} bytes, packed or unpacked, of which
{limits.max_json:,} may be JSON, nested {limits.max_json_depth} deep; {limits.max_images:,} images
in a request, each of {_pixels(limits)}. An API key is asked for only where the server was
started with `--api-keys`.
""".strip()


def _paths() -> dict[str, Schema]:
    return {
        "/predict": _post(
            "predict",
            "predict",
            "Label images",
            {
                "200": _json("Prediction", headers=["Server-Timing"]),
                "422": _json(
                    "Error",
                    "Prediction",
                    description="No image could be read: one that is the whole body, or every "
                    "file of a form.",
                ),
            },
            description=_PREDICT,
            parameters=["of-model", "of-version", "top", "priority", "timeout"],
            body={
                "description": "The image itself, or a form with any number of files; the names "
                "of its fields do not matter. "
                f"{READABLE} are read (HEIC where the server has pillow-heif), whatever "
                "`Content-Type` says.",
                "required": True,
                "content": {
                    OCTETS: {"schema": binary("An image file.")},
                    "image/*": {"schema": binary("An image file.")},
                    FORM: {
                        "schema": {
                            "type": "object",
                            "additionalProperties": array(binary(), minItems=1),
                            "minProperties": 1,
                        }
                    },
                },
            },
            errors=[404, 429],
        ),
        **_of_model(
            "/infer",
            _post,
            "inference protocol",
            "infer",
            "Probabilities of images",
            {
                "200": {
                    **_json("InferResponse", headers=["Inference-Header-Content-Length"]),
                    "content": {
                        JSON: {"schema": ref("InferResponse")},
                        OCTETS: {"schema": binary("JSON with tensors behind it.")},
                    },
                }
            },
            description=_INFER,
            parameters=["json-length"],
            body={
                "required": True,
                "content": {
                    JSON: {"schema": ref("InferRequest"), "examples": _INFER_EXAMPLES},
                    OCTETS: {"schema": binary("JSON with tensors behind it.")},
                },
            },
            errors=[422, 429],
        ),
        "/v2": _get(
            "inference protocol", "server", "Name, version, extensions", _ok("ServerMetadata")
        ),
        **_of_model(
            "",
            _get,
            "inference protocol",
            "model",
            "The tensors of a model",
            _ok("ModelMetadata"),
            description=f"The input `{INPUT}` is listed as UINT8. It may also be BYTES of shape "
            "`[images]`: image files.",
        ),
        **_of_model(
            "/ready",
            _get,
            "inference protocol",
            "modelReady",
            "Whether a model takes requests",
            _ready("ModelReady"),
        ),
        "/models": _get(
            "models",
            "models",
            "Every model's document",
            _ok("Models"),
            description="Classes, image size, test figures and the proof, as the bundle has them.",
        ),
        **_of_model("/config", _get, "models", "config", "How a model is run", _ok("ModelConfig")),
        **_of_model(
            "/stats",
            _get,
            "models",
            "stats",
            "Counts and times of a model",
            _ok("ModelStatistics"),
            description="Since this process loaded it. `/metrics` has more, and of every worker.",
        ),
        "/v2/models/stats": _get(
            "models", "allStats", "Counts and times of every model", _ok("ModelStatistics")
        ),
        "/v2/repository/index": _post(
            "models",
            "index",
            "Every version there is",
            _ok("Index"),
            description="Also those that do not answer, with the reason.",
            body=_json_body("IndexRequest"),
        ),
        "/v2/repository/models/{model}/load": _post(
            "models",
            "load",
            "Load a model, or what is new of it",
            _ok("Nothing"),
            description="At once, without waiting for the next look at its folder. If it cannot "
            "be opened, the answer is 400 with the reason, and what was served still is.",
            parameters=["model"],
            body=_json_body("LoadRequest"),
            errors=[404],
        ),
        "/v2/repository/models/{model}/unload": _post(
            "models",
            "unload",
            "Serve a model no more",
            _ok("Nothing"),
            description="Until it is loaded again. Requests that are under way are answered.",
            parameters=["model"],
            body=_json_body("UnloadRequest"),
            errors=[404],
        ),
        "/v2/health/live": _get(
            "operations", "live", "Whether the process runs", _ok("Live"), public=True
        ),
        "/v2/health/ready": _get(
            "operations",
            "ready",
            "Whether the server takes requests",
            _ready("Ready"),
            description="503 while no model is loaded, and from SIGTERM on: a balancer should "
            "send requests elsewhere.",
            public=True,
        ),
        "/metrics": _get(
            "operations",
            "metrics",
            "Numbers for Prometheus",
            {"200": _answer("Prometheus's text format.", {"text/plain": text()})},
            description="Requests by outcome, images, batch sizes, queue depth, and histograms of "
            "decoding, queueing and computing, by model and version.",
        ),
        "/openapi.json": _get(
            "pages",
            "openapi",
            "This description",
            {"200": _answer("OpenAPI 3.1.", {JSON: {"type": "object"}})},
            public=True,
        ),
        **_pages(),
    }


_PREDICT = """
As simple as it gets: `curl --data-binary @shoe.jpg localhost:8000/predict`, or
`curl -F a=@shoe.jpg -F b=@bag.jpg localhost:8000/predict` for several.

A multi-label model, where each label has a probability of its own, answers with `labels`: all that
reach their threshold, so none, one or several.

In a form, a file that cannot be read gets an `error` in its place; the others are answered.
`Server-Timing` says how long decoding, waiting and computing took, in milliseconds.
"""

_INFER = f"""
In JSON, the input `{INPUT}` is a list of image files as base64 (BYTES), or of pixels (UINT8).

In binary form the body is JSON and the tensors behind it, and
`Inference-Header-Content-Length` is the length of the JSON. There the input has
`"parameters": {{"binary_data_size": BYTES}}` in place of `data`. Pixels are one byte each; an image
file stands behind its length, 4 bytes, little-endian. The output is binary if `binary_data` or
`binary_data_output` says so: float32, little-endian, or texts behind their lengths.
"""

_INFER_EXAMPLES = {
    "files": {
        "summary": "An image file",
        "value": {"inputs": [{"name": INPUT, "datatype": "BYTES", "shape": [1], "data": [PIXEL]}]},
    },
    "labels": {
        "summary": "Two image files, the best label of each",
        "value": {
            "id": "two",
            "inputs": [{"name": INPUT, "datatype": "BYTES", "shape": [2], "data": [PIXEL] * 2}],
            "outputs": [{"name": OUTPUT, "parameters": {"classification": 1}}],
        },
    },
    "pixels": {
        "summary": "Pixels, for a model of 2x2 grey ones",
        "value": {
            "inputs": [
                {"name": INPUT, "datatype": "UINT8", "shape": [1, 2, 2, 1], "data": [0, 9, 99, 255]}
            ]
        },
    },
}

_FILES = {
    "css": ("The look of the pages", "text/css"),
    "js": ("A script of the pages", "text/javascript"),
    "svg": ("The icon", "image/svg+xml"),
}


def _pages() -> dict[str, Schema]:
    pages = {
        "/": _page("page", "Try a model: drop an image, or use the camera", "text/html"),
        "/docs": _page("docs", "This description, to read", "text/html"),
    }
    for name in sorted(item.name for item in resources.files("serve.http.page").iterdir()):
        stem, _, extension = name.rpartition(".")
        if extension in _FILES:
            pages[f"/{name}"] = _page(f"{stem}-{extension}", *_FILES[extension])
    return pages


# Operations


def _of_model(
    tail: str,
    method: Callable[..., Schema],
    tag: str,
    identity: str,
    summary: str,
    answers: Mapping[str, Schema],
    *,
    parameters: Sequence[str] = (),
    errors: Sequence[int] = (),
    **more: Any,
) -> dict[str, Schema]:
    """An operation on a model's newest version, and the same on one that is named."""
    return {
        start + tail: method(
            tag,
            identity + suffix,
            summary + addition,
            answers,
            parameters=[*names, *parameters],
            errors=[404, *errors],
            **more,
        )
        for start, names, suffix, addition in (
            ("/v2/models/{model}", ["model"], "", ""),
            (
                "/v2/models/{model}/versions/{version}",
                ["model", "version"],
                "OfVersion",
                " (one version)",
            ),
        )
    }


def _page(identity: str, summary: str, kind: str) -> Schema:
    headers = ["Content-Security-Policy"]
    answer = _answer("A file.", {kind: text()}, headers)
    return _get("pages", identity, summary, {"200": answer}, public=True)


def _get(*description: Any, **more: Any) -> Schema:
    return {"get": _operation(*description, **more)}


def _post(*description: Any, errors: Sequence[int] = (), **more: Any) -> Schema:
    return {"post": _operation(*description, errors=[403, *errors], **more)}


def _operation(
    tag: str,
    identity: str,
    summary: str,
    answers: Mapping[str, Schema],
    *,
    description: str = "",
    parameters: Sequence[str] = (),
    body: Schema | None = None,
    errors: Sequence[int] = (),
    public: bool = False,
) -> Schema:
    """What OpenAPI calls an operation.

    Args:
        answers: by status; those that are not errors, or not only.
        parameters: names in `_parameters`.
        errors: statuses in `_ERRORS` beyond those that any request can get.
        public: no API key is asked for.
    """
    statuses = {*_ALWAYS, *errors, *([] if public else [401])}
    failures = {str(status): _part("responses", str(status)) for status in statuses}
    return {
        "tags": [tag],
        "operationId": identity,
        "summary": summary,
        **({"description": description.strip()} if description else {}),
        "parameters": [_part("parameters", name) for name in parameters],
        **({"requestBody": body} if body else {}),
        "responses": dict(sorted({**failures, **answers}.items())),
        "security": [] if public else [{"bearer": []}, {"key": []}, {}],
    }


def _part(kind: str, name: str) -> Schema:
    return {"$ref": f"#/components/{kind}/{name}"}


# Bodies


def _json_body(name: str) -> Schema:
    return {"description": "May be left out.", "content": {JSON: {"schema": ref(name)}}}


def _ok(name: str) -> dict[str, Schema]:
    return {"200": _json(name)}


def _ready(name: str) -> dict[str, Schema]:
    """200 or 503 with the same document; 503 may also be an error."""
    return {
        "200": _json(name, description="It does."),
        "503": _json(name, "Error", description="It does not."),
    }


def _json(*names: str, description: str = "Done.", headers: Sequence[str] = ()) -> Schema:
    """An answer that is one of these schemas."""
    schema = ref(names[0]) if len(names) == 1 else {"anyOf": [ref(name) for name in names]}
    return _answer(description, {JSON: schema}, headers)


def _answer(description: str, content: Mapping[str, Schema], headers: Sequence[str] = ()) -> Schema:
    return {
        "description": description,
        **({"headers": {name: _part("headers", name) for name in headers}} if headers else {}),
        "content": {kind: {"schema": schema} for kind, schema in content.items()},
    }


def _header(description: str, schema: Schema | None = None, *, required: bool = False) -> Schema:
    return {"description": description, "required": required, "schema": schema or text()}


def _error(description: str, *headers: str) -> Schema:
    return _json("Error", description=description, headers=headers)


# What is referred to by name


_ERRORS = {
    "400": _error("The request is malformed: its HTTP, its fields, or its body."),
    "401": _error("There is no API key, or a wrong one.", "WWW-Authenticate"),
    "403": _error("A page of another host asks, which `--cors-origin` does not allow."),
    "404": _error("There is no such model, or no such version of it."),
    "405": _error("This path has no such method.", "Allow"),
    "408": _error("The head or the body did not arrive in time."),
    "413": _error("The body is too large, packed or unpacked."),
    "415": _error("A `Content-Type` or a `Content-Encoding` that is not known.", "Accept-Encoding"),
    "422": _error("An image cannot be read."),
    "429": _error("The model's queue is full.", "Retry-After"),
    "431": _error("The request line and the headers are too large."),
    "500": _error("A fault of the server or of the model; the server's log says which."),
    "503": _error(
        "Too many connections, too much in memory, or the server is shutting down.", "Retry-After"
    ),
    "504": _error("The request's time was over before its answer."),
}

_ALWAYS = (400, 405, 408, 413, 415, 431, 500, 503, 504)
"""Errors that any request can get."""

_HEADERS = {
    "Accept-Encoding": _header("The known encodings, where it is about `Content-Encoding`."),
    "Allow": _header("The methods that the path has.", required=True),
    "Content-Security-Policy": _header("Nothing from elsewhere.", required=True),
    "Inference-Header-Content-Length": _header(
        "Length of the JSON, where tensors stand behind it.", integer(minimum=2)
    ),
    "Retry-After": _header("Seconds to wait.", integer(minimum=1), required=True),
    "Server-Timing": _header(
        "Milliseconds, as `decode;dur=1.2, queue;dur=0.1, compute;dur=0.6`.", required=True
    ),
    "WWW-Authenticate": _header("The scheme to use.", {"const": "Bearer"}, required=True),
}


def _parameters(models: Sequence[str]) -> dict[str, Schema]:
    """By the names under which operations refer to them."""
    return {
        "model": _path("model", "The model's name.", models[0]),
        "version": _path("version", "The number of one of its versions.", "1"),
        "of-model": {
            **_query("model", text("The model's name. May be left out if there is only one.")),
            "required": len(models) > 1,
            "example": models[0],
        },
        "of-version": _query("version", text("One of the model's versions; left out, the newest.")),
        "top": _query("top", integer("So many labels.", minimum=1, maximum=10**9 - 1, default=TOP)),
        "priority": _query(
            "priority",
            integer("1 goes first.", minimum=1, maximum=LOWEST_PRIORITY, default=DEFAULT_PRIORITY),
        ),
        "timeout": _query(
            "timeout",
            number("Seconds until nobody wants the answer any more.", exclusiveMinimum=0),
        ),
        "json-length": {
            "name": "Inference-Header-Content-Length",
            "in": "header",
            "description": "Bytes of JSON in the body; leave it out if all of it is JSON.",
            "schema": integer(minimum=0),
        },
    }


def _path(name: str, description: str, example: str) -> Schema:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": text(),
        "example": example,
    }


def _query(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "query", "description": schema.pop("description"), "schema": schema}
