"""The OpenAPI description: it is valid, says what there is, and the server does what it says."""

import copy
import http.client
import json
import re
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from email.message import Message
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from PIL import Image

from serve.bundle import Rejection
from serve.http.limits import Limits
from serve.http.openapi import PIXEL, document
from serve.http.routes import ROUTES

KEY = "open-sesame-open-sesame"
Start = Callable[..., Any]
Answer = tuple[int, Message, bytes]

DOCUMENT = document(Limits(), ["letters"])
OPERATIONS = [
    (path, method, operation)
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
]


def resolved(value: dict[str, Any]) -> dict[str, Any]:
    """What a reference points at, or the value itself."""
    while "$ref" in value:
        steps = value["$ref"].removeprefix("#/").split("/")
        value = DOCUMENT
        for step in steps:
            value = value[step]
    return value


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def check_schema(schema: dict[str, Any], value: Any) -> None:
    root = {**schema, "components": DOCUMENT["components"]}
    jsonschema_rs.Draft202012Validator(root).validate(value)


def check_answer(path: str, method: str, answer: Answer) -> None:
    """Hold an answer to what the description says: status, headers, type, content."""
    status, headers, body = answer
    responses = DOCUMENT["paths"][path][method]["responses"]
    assert str(status) in responses, f"{method} {path} answered {status}: {body[:200]!r}"
    response = resolved(responses[str(status)])
    for name, reference in response.get("headers", {}).items():
        header = resolved(reference)
        value = headers.get(name)
        assert value is not None or not header["required"], f"{status} without {name}"
        if value is not None:
            is_number = header["schema"].get("type") == "integer"
            check_schema(header["schema"], int(value) if is_number else value)
    kind = headers["Content-Type"].partition(";")[0]
    assert kind in response["content"]
    schema = response["content"][kind]["schema"]
    if kind == "application/json":
        check_schema(schema, json.loads(body))
    else:
        assert schema["type"] == "string"


def ask(
    address: str,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request(method.upper(), path, body, dict(headers or {}))
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def ask_raw(address: str, sent: bytes) -> Answer:
    """Send bytes, and wait for the answer to whatever they are."""
    host, _, port = address.partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(sent)
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status, response.headers, response.read()


def infer_body(**more: Any) -> bytes:
    image = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [PIXEL]}
    return json.dumps({"inputs": [image], **more}).encode()


def held_bytes(address: str) -> float:
    _, _, page = ask(address, "GET", "/metrics")
    found = re.search(rb"^lockstep_held_bytes (\S+)$", page, re.MULTILINE)
    assert found
    return float(found[1])


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


# The description itself.


def test_it_is_openapi_3_1() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    schemathesis.openapi.from_dict(DOCUMENT).validate()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda document: document["info"].pop("title"),
        lambda document: document["paths"]["/predict"]["post"].update(responses=[]),
        lambda document: document["components"]["headers"].update({"bad name": {}}),
    ],
)
def test_the_validation_can_fail(spoil: Callable[[Any], object]) -> None:
    spoiled = copy.deepcopy(DOCUMENT)
    spoil(spoiled)
    with pytest.raises(jsonschema_rs.ValidationError):
        schemathesis.openapi.from_dict(spoiled).validate()


def test_every_schema_in_it_is_json_schema() -> None:
    for name, schema in DOCUMENT["components"]["schemas"].items():
        jsonschema_rs.meta.validate({**schema, "$schema": _DIALECT})
        assert schema.get("additionalProperties") is not None or name in _OPEN, name
        for example in schema.get("examples", []):
            check_schema(schema, example)


_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_OPEN = {"Index", "LoadRequest", "UnloadRequest"}
"""Those that are no objects, or that pass over what they do not know."""


def test_it_covers_exactly_the_routes() -> None:
    described = {(path, method) for path, method, _ in OPERATIONS}
    assert described == {
        (route.pattern, method.lower()) for route in ROUTES for method in route.handlers
    }
    assert len(described) == len(OPERATIONS)


def test_it_asks_for_a_key_exactly_where_the_server_does() -> None:
    public = {path for path, _, operation in OPERATIONS if not operation["security"]}
    assert public == {route.pattern for route in ROUTES if route.is_public}
    for _, _, operation in OPERATIONS:
        assert ("401" in operation["responses"]) == bool(operation["security"])


def test_every_reference_leads_somewhere_and_everything_is_referred_to() -> None:
    used = set(references(DOCUMENT))
    for reference in used:
        resolved({"$ref": reference})
    components = {
        f"#/components/{kind}/{name}"
        for kind, parts in DOCUMENT["components"].items()
        for name in parts
        if kind != "securitySchemes"
    }
    assert used == components


def test_every_operation_explains_itself() -> None:
    identities = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(set(identities)) == len(identities)
    tags = [tag["name"] for tag in DOCUMENT["tags"]]
    assert {tag for _, _, operation in OPERATIONS for tag in operation["tags"]} == set(tags)
    for path, _, operation in OPERATIONS:
        assert operation["summary"]
        parameters = [resolved(parameter) for parameter in operation["parameters"]]
        assert all(parameter["description"] for parameter in parameters)
        in_path = {parameter["name"] for parameter in parameters if parameter["in"] == "path"}
        assert in_path == set(re.findall(r"{(\w+)}", path))


# What a running server says and does.


@pytest.fixture(scope="module")
def models(start: Start, make_bundle: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server of "letters" and "spare", which take 2x2 grey pixels."""
    folder = tmp_path_factory.mktemp("models")
    bundles = [
        make_bundle(folder / f"{name}.onnx", shape=(2, 2, 1), rejection=Rejection(0.5, 0.9, 0.99))
        for name in ("letters", "spare")
    ]
    return start(*bundles)


def test_the_server_gives_this_description(models: Any) -> None:
    served = json.loads(ask(models.address, "GET", "/models")[2])["models"]
    names = [model["name"] for model in served]
    assert names[0] == "letters"
    body = ask(models.address, "GET", "/openapi.json")[2]
    assert json.loads(body) == json.loads(json.dumps(document(Limits(), names)))


@pytest.mark.parametrize("path", [path for path, method, _ in OPERATIONS if method == "get"])
def test_every_get_is_answered_as_described(models: Any, path: str) -> None:
    sent = path.replace("{model}", "letters").replace("{version}", "1")
    for method in ("GET", "HEAD"):
        status, headers, body = ask(models.address, method, sent)
        assert status == 200
        if method == "GET":
            check_answer(path, "get", (status, headers, body))
    assert not body


@pytest.mark.parametrize("path", [path for path, method, _ in OPERATIONS if method == "get"])
def test_keys_are_asked_for_as_described(guarded: Any, path: str) -> None:
    sent = path.replace("{model}", "letters").replace("{version}", "1")
    answer = ask(guarded.address, "GET", sent)
    is_secured = bool(DOCUMENT["paths"][path]["get"]["security"])
    assert answer[0] == (401 if is_secured else 200)
    check_answer(path, "get", answer)
    for headers in ({"Authorization": f"Bearer {KEY}"}, {"X-API-Key": KEY}):
        assert ask(guarded.address, "GET", sent, headers=headers)[0] == 200


@pytest.fixture(scope="module")
def guarded(start: Start, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(KEY)
    return start(bundle, "--api-keys", keys)


@pytest.mark.parametrize("path", ["/v2/models/{model}/infer", "/v2/repository/index"])
def test_posts_want_a_key_too(guarded: Any, path: str) -> None:
    answer = ask(guarded.address, "POST", path.replace("{model}", "letters"), b"")
    assert answer[0] == 401
    check_answer(path, "post", answer)


INFER = "/v2/models/{model}/infer"
EXAMPLES = DOCUMENT["paths"][INFER]["post"]["requestBody"]["content"]["application/json"][
    "examples"
]


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_works(models: Any, name: str) -> None:
    """The one in pixels is for 2x2 grey ones, as `models` are; the others are for any model."""
    parameter = DOCUMENT["components"]["parameters"]["model"]["example"]
    value = EXAMPLES[name]["value"]
    check_schema({"$ref": "#/components/schemas/InferRequest"}, value)
    answer = ask(
        models.address,
        "POST",
        f"/v2/models/{parameter}/infer",
        json.dumps(value).encode(),
        {"Content-Type": "application/json"},
    )
    assert answer[0] == 200, answer[2]
    check_answer(INFER, "post", answer)


def test_the_binary_form_is_as_described(models: Any) -> None:
    tensor = {"name": "image", "datatype": "UINT8", "shape": [2, 2, 2, 1]}
    asked = {
        "inputs": [{**tensor, "parameters": {"binary_data_size": 8}}],
        "parameters": {"binary_data_output": True},
    }
    content = json.dumps(asked).encode()
    headers = {"Inference-Header-Content-Length": str(len(content))}
    answer = ask(models.address, "POST", "/v2/models/letters/infer", content + bytes(8), headers)
    assert answer[0] == 200, answer[2]
    check_answer(INFER, "post", answer)
    length = int(answer[1]["Inference-Header-Content-Length"])
    described = json.loads(answer[2][:length])["outputs"][0]
    assert described["parameters"] == {"binary_data_size": len(answer[2]) - length}
    assert sum(struct.unpack("<20f", answer[2][length:])) == pytest.approx(2, abs=1e-4)


def test_encoded_images_in_binary_form_are_as_described(models: Any, tmp_path: Path) -> None:
    Image.new("L", (3, 3)).save(tmp_path / "black.png")
    image = (tmp_path / "black.png").read_bytes()
    tensor = struct.pack("<I", len(image)) + image
    described = {"name": "image", "datatype": "BYTES", "shape": [1]}
    asked = {"inputs": [{**described, "parameters": {"binary_data_size": len(tensor)}}]}
    content = json.dumps(asked).encode()
    headers = {"Inference-Header-Content-Length": str(len(content))}
    answer = ask(models.address, "POST", "/v2/models/letters/infer", content + tensor, headers)
    assert answer[0] == 200, answer[2]
    check_answer(INFER, "post", answer)


def form(*files: tuple[str, bytes]) -> tuple[bytes, dict[str, str]]:
    """A form with these files."""
    parts = [
        f'--edge\r\nContent-Disposition: form-data; name="a"; filename="{name}"\r\n\r\n'.encode()
        + content
        for name, content in files
    ]
    body = b"\r\n".join([*parts, b"--edge--\r\n"])
    return body, {"Content-Type": "multipart/form-data; boundary=edge"}


def test_predictions_are_as_described(models: Any, tmp_path: Path) -> None:
    Image.new("L", (3, 3)).save(tmp_path / "black.png")
    image = (tmp_path / "black.png").read_bytes()
    sent = "/predict?model=letters&top=3"
    bad = form(("a.txt", b"text"))
    for status, (body, headers) in (
        (200, (image, {})),
        (200, (image, {"Content-Type": "image/png"})),
        (200, form(("a.png", image), ("b.txt", b"text"))),
        (422, bad),
        (422, (b"text", {})),
    ):
        answer = ask(models.address, "POST", sent, body, headers)
        assert answer[0] == status, answer[2]
        check_answer("/predict", "post", answer)
    assert set(json.loads(ask(models.address, "POST", sent, *bad)[2])) == {
        "model",
        "version",
        "results",
    }


# Every status there is.


@pytest.fixture(scope="module")
def narrow(start: Start, make_bundle: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server with little patience and room; a white image makes its model fail."""
    path = tmp_path_factory.mktemp("narrow") / "letters.onnx"
    make_bundle(path, shape=(2, 2, 1), white="error")
    limits = {"--max-body": "8KiB", "--max-images": "7", "--max-memory": "4KiB",
              "--max-head": "2KiB", "--head-timeout": "0.5", "--body-timeout": "0.5"}  # fmt: skip
    return start(path, *(part for option in limits.items() for part in option))


def test_its_limits_are_those_of_the_server(narrow: Any) -> None:
    served = json.loads(ask(narrow.address, "GET", "/openapi.json")[2])
    pixels = served["components"]["schemas"]["Pixels"]["properties"]["shape"]
    assert pixels["prefixItems"][0]["maximum"] == 7
    assert "bodies of 8,192 bytes" in served["info"]["description"]


WHITE = json.dumps(
    {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 2, 2, 1], "data": [255] * 4}]}
).encode()
POSTS = {
    400: ("letters", b"no JSON", {}),
    403: ("letters", infer_body(), {"Origin": "https://example.com"}),
    404: ("nothing", infer_body(), {}),
    413: ("letters", bytes(9000), {}),
    415: ("letters", infer_body(), {"Content-Encoding": "br"}),
    422: ("letters", infer_body().replace(PIXEL.encode(), b"bm8gaW1hZ2U="), {}),
    431: ("letters", infer_body(), {"X-Long": "x" * 3000}),
    500: ("letters", WHITE, {}),
    503: ("letters", bytes(5000), {}),
    504: ("letters", infer_body(parameters={"timeout": 1}), {}),
}


@pytest.mark.parametrize("status", POSTS)
def test_every_error_is_as_described(narrow: Any, status: int) -> None:
    model, body, headers = POSTS[status]
    answer = ask(narrow.address, "POST", f"/v2/models/{model}/infer", body, headers)
    assert answer[0] == status, answer[2]
    check_answer(INFER, "post", answer)


def test_another_method_is_refused_as_described(narrow: Any) -> None:
    answer = ask(narrow.address, "DELETE", "/v2/models/letters/infer")
    assert answer[0] == 405
    check_answer(INFER, "post", answer)


@pytest.mark.parametrize("sent", [b"", b"Content-Length: 9\r\n\r\n"], ids=["head", "body"])
def test_slow_requests_are_refused_as_described(narrow: Any, sent: bytes) -> None:
    head = b"POST /v2/models/letters/infer HTTP/1.1\r\nHost: localhost\r\n"
    answer = ask_raw(narrow.address, head + sent)
    assert answer[0] == 408
    check_answer(INFER, "post", answer)


def test_a_full_queue_refuses_as_described(start: Start, make_bundle: Any, tmp_path: Path) -> None:
    path = make_bundle(tmp_path / "letters.onnx", work=20)
    options = ["--max-queue", "1", "--batching", "1", "--threads", "1"]
    address = start(path, *options).address
    tensor = {"name": "image", "datatype": "UINT8", "shape": [64, 8, 8, 1]}
    content = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": 4096}}]})
    headers = {"Inference-Header-Content-Length": str(len(content))}
    body = content.encode() + bytes(4096)
    with ThreadPoolExecutor(4) as pool:
        asked = [
            pool.submit(ask, address, "POST", "/v2/models/letters/infer", body, headers)
            for _ in range(4)
        ]
    answers = {answer[0]: answer for answer in (future.result() for future in asked)}
    assert set(answers) == {200, 429}
    check_answer(INFER, "post", answers[429])


def test_every_status_in_it_was_seen() -> None:
    """Those that the tests above provoke are all that there are, and none is left out."""
    responses = DOCUMENT["paths"][INFER]["post"]["responses"]
    assert {int(status) for status in responses} == {200, 401, 405, 408, 429, *POSTS}
    assert {str(status) for status in DOCUMENT["components"]["responses"]} == set(responses) - {
        "200"
    }


# Schemathesis, as a user runs it.

CONFIG = """
[parameters]
"path.model" = "letters"
"query.model" = "letters"

[[operations]]
include-path-regex = "^/v2/repository/models/"
parameters."path.model" = "spare"  # so that "letters" stays

[[operations]]
include-path-regex = "(predict|infer)$"
# A time of a microsecond is over before the answer.
checks.not_a_server_error.expected-statuses = ["2xx", "4xx", "504"]
# No schema says which bytes are an image, or which versions there are.
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "404", "422", "504"]
"""


def run_schemathesis(
    folder: Path, config: str, *arguments: str
) -> "subprocess.CompletedProcess[str]":
    """Its command, with every check that it has, and a configuration."""
    path = folder / "schemathesis.toml"
    path.write_text(config)
    return subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "--config-file", str(path), "run",
         "--phases", "examples,coverage,fuzzing", "--seed", "1", "--no-color",
         "--generation-database", "none", "--continue-on-failure", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=1800,
    )  # fmt: skip


def check_run(done: "subprocess.CompletedProcess[str]", operations: int) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Tested: {operations}\n" in done.stdout


def check_server(server: Any) -> None:
    """It is alive, complains of nothing, and has let go of everything."""
    assert server.process.poll() is None
    assert not [line for line in server.lines if " ERROR " in line or "Traceback" in line]
    wait_until(lambda: held_bytes(server.address) == 0)


@pytest.mark.parametrize(
    "examples", [8, pytest.param(150, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_schemathesis_finds_nothing(models: Any, tmp_path: Path, examples: int) -> None:
    url = f"{models.url}/openapi.json"
    done = run_schemathesis(tmp_path, CONFIG, url, "--max-examples", str(examples))
    check_run(done, len(OPERATIONS) - 1)  # it leaves out the one that it read
    check_server(models)


def test_schemathesis_finds_nothing_with_names_of_its_own(models: Any, tmp_path: Path) -> None:
    """Models that nobody has heard of; the repository is left alone."""
    config = CONFIG.replace('"path.model" = "letters"', "").replace('"query.model" = "letters"', "")
    url = f"{models.url}/openapi.json"
    options = ["--max-examples", "8", "--phases", "fuzzing",
               "--include-path-regex", "predict|{model}",
               "--exclude-path-regex", "^/v2/repository"]  # fmt: skip
    named = [path for path, _, _ in OPERATIONS if "{model}" in path and "repository" not in path]
    check_run(run_schemathesis(tmp_path, config, url, *options), len(named) + 1)
    check_server(models)


def exact() -> dict[str, Any]:
    """The description of JSON inference on `models`, so exact that what it allows is right."""
    described = copy.deepcopy(DOCUMENT)
    described["paths"] = {INFER: described["paths"][INFER]}
    operation = described["paths"][INFER]["post"]
    operation["parameters"] = operation["parameters"][:1]  # no length of a JSON part
    del operation["requestBody"]["content"]["application/octet-stream"]
    schemas = described["components"]["schemas"]
    pixels, encoded = schemas["Pixels"]["properties"], schemas["EncodedImages"]["properties"]
    pixels["shape"] = {"const": [1, 2, 2, 1]}
    pixels["data"] = {"const": [0, 9, 99, 255]}
    encoded["shape"] = {"const": [1]}
    encoded["data"] = {**encoded["data"], "items": {"const": PIXEL}, "maxItems": 1}
    # JSON Schema has 8.0 among the integers; the protocol's readers do not.
    request, output = schemas["InferRequest"], schemas["RequestedOutput"]
    request["properties"]["parameters"]["properties"]["priority"] = {"enum": [0, 1, 9]}
    request["properties"]["parameters"]["properties"]["timeout"] = {"enum": [0, 10**7, 2**62]}
    output["properties"]["parameters"]["properties"]["classification"] = {"enum": [0, 1, 99]}
    return described


@pytest.mark.parametrize(
    "examples", [30, pytest.param(1000, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_what_the_schema_allows_is_answered(models: Any, tmp_path: Path, examples: int) -> None:
    """Nothing right gets 400 or 422, and nothing wrong gets 200."""
    path = tmp_path / "exact.json"
    path.write_text(json.dumps(exact()))
    config = CONFIG.replace('"400", "404", "422", ', "")
    options = ["--url", models.url, "--max-examples", str(examples)]
    check_run(run_schemathesis(tmp_path, config, str(path), *options), 1)
    check_server(models)


def test_schemathesis_can_find_something(models: Any, tmp_path: Path) -> None:
    """A description that is wrong in one field and one status."""
    described = copy.deepcopy(DOCUMENT)
    described["components"]["schemas"]["Live"] = {"properties": {"live": {"const": False}}}
    del described["paths"]["/predict"]["post"]["responses"]["400"]
    paths = ("/predict", "/v2/health/live")
    described["paths"] = {path: described["paths"][path] for path in paths}
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(described))
    done = run_schemathesis(tmp_path, CONFIG, str(path), "--url", models.url, "--max-examples", "8")
    assert done.returncode == 1
    assert "POST /predict" in done.stdout and "GET /v2/health/live" in done.stdout
