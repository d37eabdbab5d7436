"""Hostile and broken clients against a whole server: the right status, and nobody else notices."""

import contextlib
import functools
import gzip
import http.client
import io
import json
import random
import re
import socket
import ssl
import statistics
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

INFER = "/v2/models/letters/infer"
MIB = 2**20
PIXELS = [7] * 64

Headers = dict[str, str]


class Answer(NamedTuple):
    status: int
    headers: Headers
    body: bytes

    @property
    def error(self) -> str:
        """The message in an error document, which must be nothing else."""
        document = json.loads(self.body)
        assert set(document) == {"error"}
        assert document["error"]
        assert "Traceback" not in document["error"]
        assert len(document["error"]) < 1000
        return str(document["error"])


class Wire:
    """A client that sends whatever bytes it likes."""

    def __init__(self, server: Any, timeout: float = 20) -> None:
        host, port = server.address.split(":")
        self.socket = socket.create_connection((host, int(port)), timeout)
        self.input = self.socket.makefile("rb")

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self.input.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self, method: str = "GET") -> Answer:
        status = int(self.input.readline().split(b" ")[1])
        headers = {}
        while line := self.input.readline().strip():
            name, _, value = line.decode("latin-1").partition(": ")
            headers[name.lower()] = value
        size = 0 if method == "HEAD" or status in (100, 204) else int(headers["content-length"])
        return Answer(status, headers, self.input.read(size))

    def ended(self) -> bool:
        """The server closes, and says no more."""
        try:
            return self.input.read() == b""
        except ConnectionError:
            return True


def ask(
    server: Any,
    method: str,
    path: str,
    body: bytes | Iterator[bytes] | None = None,
    headers: Headers | None = None,
) -> Answer:
    host, port = server.address.split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, found, answer.read())
    finally:
        connection.close()


def is_live(server: Any) -> bool:
    return ask(server, "GET", "/v2/health/live").status == 200


def peak_memory(server: Any) -> int:
    """Most resident bytes so far."""
    status = Path(f"/proc/{server.process.pid}/status").read_text("ascii")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return 1024 * int(found[1])


def metric(server: Any, name: str, **labels: str) -> float:
    """The sum of a metric over all labels that are not given."""
    total = 0.0
    for line in ask(server, "GET", "/metrics").body.decode().splitlines():
        found = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
        if found and found[1] == name:
            given = dict(re.findall(r'(\w+)="([^"]*)"', found[2] or ""))
            if labels.items() <= given.items():
                total += float(found[3])
    return total


def await_metric(server: Any, expected: Callable[[float], bool], name: str, **labels: str) -> None:
    end = time.monotonic() + 60
    while not expected(metric(server, name, **labels)):
        assert time.monotonic() < end, (name, labels, metric(server, name, **labels))
        time.sleep(0.02)


@pytest.fixture(scope="module")
def watched(server: Any) -> Iterator[Any]:
    """The server with every default. In the end it has not failed once, and is no larger."""
    good = ask(server, "POST", INFER, tensor())
    assert good.status == 200
    before = server.memory
    yield server
    await_metric(server, lambda held: held == 0, "lockstep_held_bytes")
    assert metric(server, "lockstep_http_requests_total", status="500") == 0
    assert ask(server, "POST", INFER, tensor()).body == good.body
    text = "\n".join(server.lines)
    assert "Traceback" not in text, text
    assert "exception" not in text.lower(), text
    # glibc keeps some of what large bodies and images took, for the next ones.
    assert server.memory - before < 200 * MIB, (before, server.memory)
    assert peak_memory(server) < 800 * MIB, peak_memory(server)


@pytest.fixture
def target(watched: Any) -> Iterator[Any]:
    """The same, and it lives after each test."""
    yield watched
    assert is_live(watched)


@pytest.fixture(scope="module")
def strict(start: Callable[..., Any], bundle: Path) -> Iterator[Any]:
    """A server with little patience."""
    server = start(
        bundle,
        *("--max-body", "1MiB", "--max-images", "8", "--max-connections", "40"),
        *("--max-memory", "3MiB", "--max-json", "100KiB"),
        *("--head-timeout", "0.5", "--body-timeout", "0.5", "--write-timeout", "0.5"),
        *("--idle-timeout", "5"),
    )  # fmt: skip
    yield server
    await_metric(server, lambda held: held == 0, "lockstep_held_bytes")
    assert metric(server, "lockstep_http_requests_total", status="500") == 0
    assert not any("Traceback" in line for line in server.lines), server.lines


@pytest.fixture(scope="module")
def busy(start: Callable[..., Any], make_bundle: Callable[..., Path], tmp_path_factory: Any) -> Any:
    """A slow model with a short queue: some 50 ms an image."""
    path = make_bundle(tmp_path_factory.mktemp("slow") / "letters.onnx", work=50)
    return start(path, "--batching", "off", "--threads", "1", "--max-queue", "20")


# Tensors


def tensor(**changes: Any) -> bytes:
    """A good request, or one that is good but for a few fields of its input."""
    described = {"name": "image", "datatype": "UINT8", "shape": [1, 8, 8, 1], "data": PIXELS}
    described.update(changes)
    return json.dumps(
        {"inputs": [{key: value for key, value in described.items() if value is not None}]}
    ).encode()


def request(**fields: Any) -> bytes:
    """A good request with further fields, or other ones."""
    return json.dumps({**json.loads(tensor()), **fields}).encode()


INPUT = json.loads(tensor())["inputs"][0]
OUTPUT = {"name": "probabilities"}


def with_data(text: bytes) -> bytes:
    return tensor(data="DATA").replace(b'"DATA"', text)


MALFORMED = {
    "nothing": b"",
    "spaces": b"   ",
    "no JSON": b"hello",
    "half a JSON": tensor()[:-1],
    "JSON and more": tensor() + b"x",
    "two JSONs": tensor() * 2,
    "single quotes": tensor().replace(b'"', b"'"),
    "comma at the end": b'{"inputs": [],}',
    "comment": b"/* hello */" + tensor(),
    "no UTF-8": b'{"id": "\xff\xfe", "inputs": []}',
    "half a surrogate": b'{"id": "\\ud800", "inputs": []}',
    "UTF-16": tensor().decode().encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + tensor(),
    "null": b"null",
    "number": b"17",
    "list": b"[]",
    "empty object": b"{}",
    "unknown field": request(inputz=[]),
    "id is no text": request(id=7),
    "parameters is a list": request(parameters=[]),
    "200,000 deep lists": b"[" * 200_000,
    "200,000 deep lists, closed": b"[" * 200_000 + b"]" * 200_000,
    "200,000 deep objects": b'{"a":' * 200_000 + b"1" + b"}" * 200_000,
    "200,000 deep data": with_data(b"[" * 200_000 + b"]" * 200_000),
    "200,000 deep parameters": request(parameters="X").replace(
        b'"X"', b'{"a":' * 200_000 + b"1" + b"}" * 200_000
    ),
    "deep behind a long text": b'["' + b"[{" * 100_000 + b'",' + b"[" * 200_000,
    "deep behind quotes": b'["\\"",' + b"[" * 200_000,
    "33 deep": b"[" * 33 + b"]" * 33,
    "inputs is missing": b'{"outputs": []}',
    "inputs is null": request(inputs=None),
    "inputs is an object": request(inputs={}),
    "inputs is empty": request(inputs=[]),
    "inputs are numbers": request(inputs=[1]),
    "input has no name": tensor(name=None),
    "name is null": request(inputs=[{**INPUT, "name": None}]),
    "name is a list": tensor(name=["image"]),
    "unknown name": tensor(name="picture"),
    "name of a path": tensor(name="../image"),
    "very long name": tensor(name="a" * 1_000_000),
    "doubled name": request(inputs=[INPUT, INPUT]),
    "one too many": request(inputs=[INPUT, {**INPUT, "name": "other"}]),
    "17 inputs": request(inputs=[INPUT] * 17),
    "unknown field of an input": tensor(colour="red"),
    "wrong datatype": tensor(datatype="FP32"),
    "wrong datatype INT64": tensor(datatype="INT64"),
    "unknown datatype": tensor(datatype="UINT9"),
    "datatype in small letters": tensor(datatype="uint8"),
    "datatype is missing": tensor(datatype=None),
    "datatype is a number": tensor(datatype=8),
    "datatype is an object": tensor(datatype={}),
    "shape is missing": tensor(shape=None),
    "shape is a number": tensor(shape=64),
    "shape is text": tensor(shape="1,8,8,1"),
    "shape of texts": tensor(shape=["1", "8", "8", "1"]),
    "shape of fractions": tensor(shape=[1.0, 8, 8, 1]),
    "shape of truths": tensor(shape=[True, 8, 8, 1]),
    "shape of nulls": tensor(shape=[None, 8, 8, 1]),
    "empty shape": tensor(shape=[]),
    "too few dimensions": tensor(shape=[8, 8, 1]),
    "too many dimensions": tensor(shape=[1, 8, 8, 1, 1]),
    "100,000 dimensions": tensor(shape=[1] * 100_000),
    "other pixels": tensor(shape=[1, 4, 16, 1]),
    "no images": tensor(shape=[0, 8, 8, 1], data=[]),
    "negative batch": tensor(shape=[-1, 8, 8, 1]),
    "negative dimensions": tensor(shape=[1, -8, -8, 1]),
    "negative 2^63": tensor(shape=[-(2**63), 8, 8, 1]),
    "batch of 2^60": tensor(shape=[2**60, 8, 8, 1]),
    "dimensions of 2^60": tensor(shape=[2**60, 2**60, 2**60, 2**60]),
    "dimensions that wrap to 64": tensor(shape=[2**58 + 1, 8, 8, 1]),
    "batch of 2^64": tensor(shape=[2**64, 8, 8, 1]),
    "batch of 10^400": with_data(b"[]").replace(b"[1, 8", b"[1" + b"0" * 400 + b", 8"),
    "too few elements": tensor(data=PIXELS[:-1]),
    "too many elements": tensor(data=[*PIXELS, 1]),
    "data for one of two": tensor(shape=[2, 8, 8, 1]),
    "1,025 images": tensor(shape=[1025, 8, 8, 1], data=PIXELS * 1025),
    "no data": tensor(data=None),
    "data is null": request(inputs=[{**INPUT, "data": None}]),
    "data is a number": tensor(data=7),
    "data is text": tensor(data="7" * 64),
    "data is an object": tensor(data={"0": 7}),
    "data is nested otherwise": tensor(data=[[PIXELS[:32]], [PIXELS[:32]]]),
    "data is nested unevenly": tensor(data=[[1], [2, 3]]),
    "half nested": tensor(data=[PIXELS[:63], 1]),
    "NaN pixel": with_data(b"[" + b"7," * 63 + b"NaN]"),
    "Infinity pixel": with_data(b"[" + b"7," * 63 + b"Infinity]"),
    "-Infinity pixel": with_data(b"[" + b"7," * 63 + b"-Infinity]"),
    "pixel of 1e999": with_data(b"[" + b"7," * 63 + b"1e999]"),
    "pixel of 256": tensor(data=[*PIXELS[1:], 256]),
    "pixel of -1": tensor(data=[*PIXELS[1:], -1]),
    "pixel of 0.5": tensor(data=[*PIXELS[1:], 0.5]),
    "pixel of 2^64": tensor(data=[*PIXELS[1:], 2**64]),
    "pixel of null": tensor(data=[*PIXELS[1:], None]),
    "pixel of text": tensor(data=[*PIXELS[1:], "7"]),
    "pixel of an object": tensor(data=[*PIXELS[1:], {}]),
    "pixels of truths": tensor(data=[True] * 64),
    "images as no base64": tensor(datatype="BYTES", shape=[1], data=["no base64!"]),
    "images as numbers": tensor(datatype="BYTES", shape=[1], data=[7]),
    "images as null": tensor(datatype="BYTES", shape=[1], data=[None]),
    "more images than said": tensor(datatype="BYTES", shape=[1], data=["QQ==", "QQ=="]),
    "images with a shape of pixels": tensor(datatype="BYTES"),
    "outputs is an object": request(outputs={}),
    "outputs are texts": request(outputs=["probabilities"]),
    "unknown output": request(outputs=[{"name": "logits"}]),
    "output without a name": request(outputs=[{}]),
    "doubled output": request(outputs=[OUTPUT, OUTPUT]),
    "10^5 outputs": request(outputs=[OUTPUT] * 100_000),
    "10^5 different outputs": request(outputs=[{"name": f"o{n}"} for n in range(100_000)]),
    "unknown field of an output": request(outputs=[{**OUTPUT, "data": []}]),
    "negative classification": request(
        outputs=[{**OUTPUT, "parameters": {"classification": -1}}]
    ),
    "classification is text": request(outputs=[{**OUTPUT, "parameters": {"classification": "5"}}]),
    "shared memory": request(
        outputs=[{**OUTPUT, "parameters": {"shared_memory_region": "/dev/mem"}}]
    ),
    "binary_data is text": request(outputs=[{**OUTPUT, "parameters": {"binary_data": "yes"}}]),
    "priority of -1": request(parameters={"priority": -1}),
    "priority of 10": request(parameters={"priority": 10}),
    "priority of 1.5": request(parameters={"priority": 1.5}),
    "timeout of -1": request(parameters={"timeout": -1}),
    "timeout of 2^64": request(parameters={"timeout": 2**64}),
    "timeout is text": request(parameters={"timeout": "soon"}),
    "too much JSON": with_data(b"[" + b"7," * (2 * MIB) + b"7]"),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_json_is_400(target: Any, name: str) -> None:
    answer = ask(target, "POST", INFER, MALFORMED[name])
    assert answer.status == 400, answer.body[:200]
    assert answer.headers["content-type"] == "application/json"
    assert answer.error


def test_doubled_keys_are_not_two_tensors(target: Any) -> None:
    """JSON says nothing of names that come twice: the last one counts, and is checked as ever."""
    twice = tensor().replace(b'"name": "image"', b'"name": "other", "name": "image"')
    assert ask(target, "POST", INFER, twice).status == 200
    other = tensor().replace(b'"name": "image"', b'"name": "image", "name": "other"')
    assert ask(target, "POST", INFER, other).status == 400


def binary(size: Any, body: bytes, length: object = None, **changes: Any) -> tuple[bytes, Headers]:
    """A request in binary form, with these claims about its sizes."""
    content = tensor(**{"data": None, "parameters": {"binary_data_size": size}, **changes})
    claimed = len(content) if length is None else length
    return content + body, {"Inference-Header-Content-Length": str(claimed)}


RAW = bytes(PIXELS)
ENCODED = {"datatype": "BYTES", "shape": [1]}
LYING = {
    "size too large": binary(65, RAW),
    "size too small": binary(63, RAW),
    "size of 2^60": binary(2**60, RAW),
    "size of -1": binary(-1, RAW),
    "size of -64": binary(-64, RAW),
    "size is text": binary("64", RAW),
    "size is a fraction": binary(64.5, RAW),
    "size is true": binary(True, b"\x00"),
    "size is null": binary(None, RAW),
    "too many bytes": binary(65, RAW + b"\x00"),
    "too few bytes": binary(63, RAW[:-1]),
    "bytes that nobody claimed": binary(64, RAW + b"\x00"),
    "no bytes": binary(64, b""),
    "shape of two": binary(64, RAW, shape=[2, 8, 8, 1]),
    "shape of 2^60": binary(64, RAW, shape=[2**60, 8, 8, 1]),
    "data twice": binary(64, RAW, data=PIXELS),
    "length too small": binary(64, RAW, 10),
    "length too large": binary(64, RAW, 200),
    "length of 0": binary(64, RAW, 0),
    "length beyond the body": binary(64, RAW, 10_000),
    "length of 2^60": binary(64, RAW, 2**60),
    "length of 10^30": binary(64, RAW, 10**30),
    "length of 10^5000": binary(64, RAW, "1" + "0" * 5000),
    "length of -1": binary(64, RAW, -1),
    "length of a fraction": binary(64, RAW, "1.5"),
    "length with a sign": binary(64, RAW, "+135"),
    "length in hexadecimal": binary(64, RAW, "0x87"),
    "length is text": binary(64, RAW, "all"),
    "length is empty": binary(64, RAW, ""),
    "length in other digits": binary(64, RAW, "\xb2"),
    "length twice": binary(64, RAW, "135, 135"),
    "element longer than all": binary(8, struct.pack("<I", 2**31) + b"abcd", **ENCODED),
    "element of 2^32 - 1": binary(8, struct.pack("<I", 2**32 - 1) + b"abcd", **ENCODED),
    "element shorter than all": binary(8, struct.pack("<I", 3) + b"abcd", **ENCODED),
    "half a length": binary(3, b"\x01\x00\x00", **ENCODED),
    "fewer elements": binary(5, struct.pack("<I", 1) + b"a", datatype="BYTES", shape=[2]),
    "1,024 elements in 4 bytes": binary(4, bytes(4), datatype="BYTES", shape=[1024]),
}


@pytest.mark.parametrize("name", LYING)
def test_lies_about_sizes_are_400(target: Any, name: str) -> None:
    body, headers = LYING[name]
    answer = ask(target, "POST", INFER, body, headers)
    assert answer.status == 400, answer.body[:200]
    assert answer.error


def test_long_texts_beside_short_ones_cost_no_more_memory(target: Any) -> None:
    """An array of numpy would give each of them as much room as the longest one."""
    texts = ["A" * 2_000_000] + [""] * 499
    answer = ask(target, "POST", INFER, tensor(datatype="BYTES", shape=[500], data=texts))
    assert answer.status in (400, 422)
    nested = [[text] for text in texts]
    answer = ask(target, "POST", INFER, tensor(datatype="BYTES", shape=[500, 1], data=nested))
    assert answer.status in (400, 422)
    mixed = ask(target, "POST", INFER, tensor(data=[*texts[:1], *PIXELS[1:]]))
    assert mixed.status == 400
    assert peak_memory(target) < 800 * MIB


def test_a_long_text_between_brackets_costs_no_more_memory(target: Any) -> None:
    texts = b'["' + b"A" * 3_900_000 + b'"' + b",[]" * 40 + b"]"
    assert ask(target, "POST", INFER, with_data(texts)).status == 400
    escapes = b'["' + b"\\n" * 1_900_000 + b'"' + b",[]" * 40 + b"]"
    assert ask(target, "POST", INFER, with_data(escapes)).status == 400
    assert peak_memory(target) < 700 * MIB


# Names


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/nothing/infer",
        "/v2/models//infer",
        "/v2/models/../infer",
        "/v2/models/../../etc/passwd/infer",
        "/v2/models/..%2f..%2fetc%2fpasswd/infer",
        "/v2/models/%2e%2e%2fletters/infer",
        "/v2/models/%2e%2e/infer",
        "/v2/models/%2Fetc%2Fpasswd/infer",
        "/v2/models/..%5c..%5cwindows/infer",
        "/v2/models/letters%00/infer",
        "/v2/models/letters%0d%0aX-Injected:1/infer",
        "/v2/models/%ff%fe/infer",
        "/v2/models/%ed%a0%80/infer",
        "/v2/models/%zz/infer",
        "/v2/models/letters/../letters/infer",
        "/v2/models/" + "a" * 20_000 + "/infer",
        "/v2/models/letters/versions/2/infer",
        "/v2/models/letters/versions/0/infer",
        "/v2/models/letters/versions/-1/infer",
        "/v2/models/letters/versions/01/infer",
        "/v2/models/letters/versions/latest/infer",
        "/v2/models/letters/versions/%2e%2e/infer",
        "/v2/models/letters/versions/" + "9" * 10_000 + "/infer",
        "/v2/models/letters/versions//infer",
        "/v2/models/letters/infer/",
        "/v2/repository/models/..%2f..%2ftmp/load",
        "/v2/repository/models/nothing/load",
        "/v2/repository/models/nothing/unload",
        "/predict?model=nothing",
        "/predict?model=../letters",
        "/predict?model=%2e%2e%2fletters",
        "/predict?model=letters&version=7",
        "/predict?model=",
        "//predict",
        "/predict/",
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/page/../../command.py",
    ],
)
def test_unknown_names_are_404(target: Any, path: str) -> None:
    for body in (tensor(), b""):
        answer = ask(target, "POST", path, body)
        assert answer.status == 404, answer.body[:200]
        assert "x-injected" not in answer.headers
        assert "root:" not in answer.error


@pytest.mark.parametrize(
    "path",
    ["/../serve/command.py", "/page/../../command.py", "/..%2fcommand.py", "/%2e%2e/command.py",
     "/page.js/..", "/page.js%00", "/v2/models/..%2f..", "/etc/passwd", "//etc/passwd"],
)  # fmt: skip
def test_only_files_of_the_page_are_given_out(target: Any, path: str) -> None:
    answer = ask(target, "GET", path)
    assert answer.status == 404
    assert answer.error


@pytest.mark.parametrize(
    "query",
    ["top=0", "top=-1", "top=x", "top=1e3", "top=5&top=5", "size=3", "priority=0", "priority=10",
     "timeout=0", "timeout=-1", "timeout=nan", "timeout=inf",  "timeout=soon",
     "%ff=1", "top=%ff", "top=" + "9" * 10_000, "&".join(f"f{n}=1" for n in range(2000)), "=&=&="],
)  # fmt: skip
def test_bad_queries_are_400(target: Any, query: str) -> None:
    answer = ask(target, "POST", f"/predict?{query}", png(8, 8))
    assert answer.status == 400, answer.body[:200]
    assert answer.error


@pytest.mark.parametrize(
    "method, path",
    [
        ("PUT", INFER),
        ("GET", INFER),
        ("DELETE", "/v2/models/letters"),
        ("POST", "/v2/models/letters"),
        ("POST", "/"),
        ("POST", "/v2/health/live"),
        ("GET", "/predict"),
        ("PATCH", "/predict"),
        ("TRACE", "/predict"),
        ("PROPFIND", "/metrics"),
    ],
)
def test_other_methods_are_405(target: Any, method: str, path: str) -> None:
    answer = ask(target, method, path, b"x")
    assert answer.status == 405
    assert answer.headers["allow"]
    assert answer.error


# Bodies


@functools.cache
def packed(size: int, wbits: int) -> bytes:
    """Zeros, as few bytes as possible: about 1 for 1,000."""
    compressor = zlib.compressobj(9, wbits=wbits)
    zeros = bytes(MIB)
    parts = [compressor.compress(zeros) for _ in range(size // MIB)]
    return b"".join([*parts, compressor.flush()])


GZIP, DEFLATE, BARE = 31, 15, -15
PACKED: dict[str, Callable[[], tuple[bytes, str, int]]] = {
    "gzip bomb": lambda: (packed(256 * MIB, GZIP), "gzip", 413),
    "deflate bomb": lambda: (packed(256 * MIB, DEFLATE), "deflate", 413),
    "one byte too many": lambda: (gzip.compress(bytes(64 * MIB + 1)), "gzip", 413),
    "bomb in a bomb": lambda: (gzip.compress(packed(64 * MIB, GZIP)), "gzip", 400),
    "truncated gzip": lambda: (gzip.compress(tensor())[:-9], "gzip", 400),
    "truncated deflate": lambda: (zlib.compress(tensor())[:-5], "deflate", 400),
    "no checksum": lambda: (gzip.compress(tensor())[:-8], "gzip", 400),
    "wrong checksum": lambda: (gzip.compress(tensor())[:-8] + bytes(8), "gzip", 400),
    "garbage behind": lambda: (gzip.compress(tensor()) + b"garbage", "gzip", 400),
    "garbage": lambda: (b"garbage", "gzip", 400),
    "nothing": lambda: (b"", "gzip", 400),
    "not packed": lambda: (tensor(), "gzip", 400),
    "JSON that is no JSON": lambda: (gzip.compress(b"hello"), "gzip", 400),
    "brotli": lambda: (tensor(), "br", 415),
    "twice": lambda: (gzip.compress(gzip.compress(tensor())), "gzip, gzip", 415),
    "unknown": lambda: (tensor(), "cow", 415),
    "very long": lambda: (tensor(), "a" * 10_000, 415),
}


@pytest.mark.parametrize("name", PACKED)
def test_hostile_compression(target: Any, name: str) -> None:
    body, encoding, status = PACKED[name]()
    answer = ask(target, "POST", INFER, body, {"Content-Encoding": encoding})
    assert answer.status == status, answer.body[:200]
    assert answer.error
    if status == 415:
        assert answer.headers["accept-encoding"] == "gzip, deflate"


def test_bombs_at_once_are_bounded_together(target: Any) -> None:
    body = packed(256 * MIB, GZIP)

    def throw(_: int) -> int:
        return ask(target, "POST", "/predict", body, {"Content-Encoding": "gzip"}).status

    with ThreadPoolExecutor(12) as pool:
        statuses = set(pool.map(throw, range(12)))
    assert statuses <= {413, 503}
    assert peak_memory(target) < 800 * MIB


def test_many_packed_requests_at_once_are_all_answered(target: Any) -> None:
    """Each is small; that nobody knows it before must not turn the others away."""

    def send(_: int) -> int:
        body = gzip.compress(tensor())
        return ask(target, "POST", INFER, body, {"Content-Encoding": "gzip"}).status

    with ThreadPoolExecutor(30) as pool:
        assert set(pool.map(send, range(120))) == {200}


def test_a_body_of_one_byte_too_much_by_its_length(target: Any) -> None:
    with Wire(target) as wire:
        wire.send(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 67108865\r\n\r\n")
        answer = wire.answer()  # nothing of it was sent
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        assert answer.error == "expected a body of at most 67108864 bytes"
        assert wire.ended()


def test_a_body_of_chunks_without_end(strict: Any) -> None:
    with Wire(strict) as wire:
        wire.send(b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(17):
            wire.send(b"10000\r\n" + bytes(65536) + b"\r\n")
        answer = wire.answer()
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        assert answer.error == "expected a body of at most 1048576 bytes"


def test_a_client_that_sends_everything_before_it_reads_gets_its_413(target: Any) -> None:
    body = bytes(80 * MIB)
    answer = ask(target, "POST", "/predict", iter([body[: 40 * MIB]] * 2))
    assert answer.status == 413


def test_bodies_of_all_share_one_memory(strict: Any) -> None:
    """3 MiB: of four bodies that are almost there, one is too many."""
    wires = [Wire(strict) for _ in range(4)]
    with contextlib.ExitStack() as stack:
        for wire in wires:
            stack.enter_context(wire)
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
        for wire in wires:
            wire.send(head + bytes(999_999))
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(Wire.answer, wires))
    statuses = sorted(answer.status for answer in answers)
    assert statuses == [408, 408, 408, 503]
    refused = next(answer for answer in answers if answer.status == 503)
    assert refused.headers["retry-after"] == "1"
    assert "memory" in refused.error or "bytes" in refused.error


@pytest.mark.parametrize("path, status", [("/predict", 100), ("/nothing", 404), (INFER, 100)])
def test_expecting_to_be_told_to_go_on(target: Any, path: str, status: int) -> None:
    body = png(8, 8) if path == "/predict" else tensor()
    with Wire(target) as wire:
        wire.send(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
        )
        assert wire.answer().status == status
        if status == 100:
            wire.send(body)
            assert wire.answer().status == 200
        else:
            assert wire.ended()


# Images


def png(width: int, height: int, mode: str = "L") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def encoded(name: str, size: tuple[int, int] = (40, 30), **options: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, name, **options)
    return buffer.getvalue()


def animation(name: str) -> bytes:
    frames = [Image.new("RGB", (8, 8), (50 * number, 0, 0)) for number in range(4)]
    buffer = io.BytesIO()
    frames[0].save(buffer, name, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def png_of(width: int, height: int, *, color: int = 0, data: bytes = b"") -> bytes:
    """A PNG whose head claims this size, whatever is in it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    head = struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


JPEG = encoded("JPEG")
GOOD_IMAGES: dict[str, Callable[[], bytes]] = {
    "1x1": lambda: png(1, 1),
    "20,000x1": lambda: png(20_000, 1),
    "1x20,000": lambda: png(1, 20_000),
    "almost 50,000,000 pixels": lambda: png(7000, 7000),
    "20,000x1 JPEG": lambda: encoded("JPEG", (20_000, 1)),
    "one frame of GIF": lambda: encoded("GIF"),
    "bytes behind the end": lambda: JPEG + b"<?php evil(); ?>",
}
BAD_IMAGES: dict[str, Callable[[], bytes]] = {
    "text": lambda: b"hello, I am a photo",
    "text as JPEG": lambda: b"\xff\xd8\xff\xe0 hello, I am a photo" * 100,
    "one byte": lambda: b"\xff",
    "zeros": lambda: bytes(100_000),
    "HTML": lambda: b"<html><script>alert(1)</script></html>",
    "SVG": lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>',
    "PDF": lambda: b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n",
    "ZIP": lambda: b"PK\x03\x04" + bytes(60),
    "PostScript": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
    "TGA": lambda: encoded("TGA"),
    "PPM": lambda: encoded("PPM"),
    "half a TIFF": lambda: encoded("TIFF")[:1000],
    "half an AVIF": lambda: encoded("AVIF")[:300],
    "half a JPEG": lambda: JPEG[: len(JPEG) // 2],
    "head of a JPEG": lambda: JPEG[:200],
    "half a PNG": lambda: encoded("PNG")[:2000],
    "half a GIF": lambda: encoded("GIF")[:500],
    "half a WebP": lambda: encoded("WEBP")[:300],
    "half a BMP": lambda: encoded("BMP")[:1000],
    "50,000,001 pixels": lambda: png(50_000_001, 1, "1"),
    "bomb": lambda: png(20_000, 20_000, "1"),
    "bomb of 2^31 x 2^31": lambda: png_of(2**31 - 1, 2**31 - 1),
    "bomb without data": lambda: png_of(65_000, 65_000, color=2),
    "PNG of 0x0": lambda: png_of(0, 0),
    "PNG without data": lambda: png_of(2000, 2000),
    "PNG of garbage": lambda: png_of(20, 20, data=b"garbage"),
    "animated GIF": lambda: animation("GIF"),
    "animated WebP": lambda: animation("WEBP"),
    "animated PNG": lambda: animation("PNG"),
}


@pytest.mark.parametrize("name", GOOD_IMAGES)
def test_odd_images_are_answered(target: Any, name: str) -> None:
    answer = ask(target, "POST", "/predict", GOOD_IMAGES[name]())
    assert answer.status == 200, answer.body[:200]
    assert json.loads(answer.body)["results"][0]["label"]


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_images_are_422(target: Any, name: str) -> None:
    image = BAD_IMAGES[name]()
    raw = ask(target, "POST", "/predict", image)
    assert raw.status == 422, raw.body[:200]
    assert raw.error
    element = struct.pack("<I", len(image)) + image
    body, headers = binary(len(element), element, **ENCODED)
    tensors = ask(target, "POST", INFER, body, headers)
    assert (tensors.status, tensors.error) == (422, raw.error)
    form, headers = multipart([("bad.jpg", image), ("good.png", png(8, 8))])
    mixed = ask(target, "POST", "/predict", form, headers)
    results = json.loads(mixed.body)["results"]
    assert (mixed.status, results[0]["error"]) == (200, raw.error)
    assert results[1]["label"]


@pytest.mark.slow
def test_bombs_of_images_at_once_are_bounded_together(
    start: Callable[..., Any], bundle: Path
) -> None:
    """Just within the limit, each is 200 MB of colours and transparency, several times over."""
    server = start(bundle)
    image = png(7000, 7000, "RGBA")

    def throw(_: int) -> int:
        return ask(server, "POST", "/predict", image).status

    after = []
    for _ in range(3):
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(throw, range(8))) <= {200, 429, 503}
        after.append(server.memory)
    assert is_live(server)
    assert peak_memory(server) < 2000 * MIB
    assert after[2] < after[0] + 100 * MIB


def test_too_many_images(strict: Any) -> None:
    image = png(8, 8)
    body, headers = multipart([("a.png", image)] * 8)
    assert ask(strict, "POST", "/predict", body, headers).status == 200
    body, headers = multipart([("a.png", image)] * 9)
    assert ask(strict, "POST", "/predict", body, headers).status == 400
    element = struct.pack("<I", len(image)) + image
    body, headers = binary(9 * len(element), 9 * element, datatype="BYTES", shape=[9])
    assert ask(strict, "POST", INFER, body, headers).status == 400
    body, headers = binary(9 * 64, 9 * RAW, shape=[9, 8, 8, 1])
    assert ask(strict, "POST", INFER, body, headers).status == 400


# Forms


def multipart(files: list[tuple[str, bytes]], boundary: str = "xyz") -> tuple[bytes, Headers]:
    parts = [
        f"--{boundary}\r\nContent-Disposition: form-data; ".encode()
        + f'name="f"; filename="{name}"\r\n\r\n'.encode()
        + content
        + b"\r\n"
        for name, content in files
    ]
    return (
        b"".join([*parts, f"--{boundary}--\r\n".encode()]),
        {"Content-Type": f"multipart/form-data; boundary={boundary}"},
    )


PART = b'--xyz\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n'
FORMS = {
    "nothing": b"",
    "no part": b"--xyz--\r\n",
    "no boundary in it": b"hello",
    "cut off in a head": PART[:40],
    "cut off in a part": PART + png(8, 8),
    "no last boundary": PART + png(8, 8) + b"\r\n--xyz\r\n",
    "no file": b'--xyz\r\nContent-Disposition: form-data; name="f"\r\n\r\nx\r\n--xyz--\r\n',
    "no disposition": b"--xyz\r\n\r\nx\r\n--xyz--\r\n",
    "head without an end": b"--xyz\r\n" + b"A" * (8 * MIB),
    "value without an end": b"--xyz\r\nA: " + b"b" * (8 * MIB),
    "heads without an end": b"--xyz\r\n" + b"A: b\r\n" * MIB,
    "1,025 parts": (PART + b"x\r\n") * 1025 + b"--xyz--\r\n",
    "100,000 parts": (PART + b"x\r\n") * 100_000 + b"--xyz--\r\n",
    "100,000 empty parts": b"--xyz\r\n\r\n" * 100_000 + b"--xyz--\r\n",
    "almost boundaries": PART + b"\r\n--xy" * (2 * MIB),
    "line ends": PART + b"\r\n" * (4 * MIB),
    "line ends before": b"\r\n" * (4 * MIB),
    "line ends within": PART + b"\n\r" * (4 * MIB),
}


@pytest.mark.parametrize("name", FORMS)
def test_hostile_forms_are_400(target: Any, name: str) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=xyz"}
    answer = ask(target, "POST", "/predict", FORMS[name], headers)
    assert answer.status == 400, answer.body[:200]
    assert answer.error


@pytest.mark.parametrize(
    "content_type",
    ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary",
     "multipart/form-data; boundary=other", "multipart/form-data; boundary=" + "x" * 20_000,
     "multipart/form-data;" + " a=b;" * 5000, 'multipart/form-data; boundary="' + "\\" * 20_000],
)  # fmt: skip
def test_forms_with_odd_boundaries_are_400(target: Any, content_type: str) -> None:
    body, _ = multipart([("a.png", png(8, 8))])
    assert ask(target, "POST", "/predict", body, {"Content-Type": content_type}).status == 400


def test_names_of_files_are_only_text(target: Any) -> None:
    names = ["../../etc/passwd", "<script>alert(1)</script>", "a\\..\\b", "", "ü\u202e", "a" * 4000]
    body, headers = multipart([(name, png(8, 8)) for name in names])
    answer = ask(target, "POST", "/predict", body, headers)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert len(json.loads(answer.body)["results"]) == len(names)


@pytest.mark.parametrize(
    "content_type",
    ["text/html", "application/json", "video/mp4", "multipart/mixed", "\xff", "x" * 9000],
)
def test_other_types_are_415(target: Any, content_type: str) -> None:
    answer = ask(target, "POST", "/predict", b"x", {"Content-Type": content_type})
    assert answer.status == 415
    assert answer.error


# Connections


RAW_MESSAGES = {
    "TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), 400),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "garbage": (bytes(range(256)) * 10, 400),
    "zeros": (bytes(100_000), 400),
    "SSH": (b"SSH-2.0-OpenSSH_9.2p1\r\n", 400),
    "length twice": (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
        400,
    ),
    "length and chunks": (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n",
        400,
    ),
    "chunks and length": (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        b"Content-Length: 4\r\n\r\n0\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n",
        400,
    ),
    "odd chunks": (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: cow, chunked, identity\r\n\r\n",
        400,
    ),
    "length of -1": (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        400,
    ),
    "a megabyte of header": (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * MIB, 431),
    "100,000 headers": (
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 100_000 + b"\r\n",
        431,
    ),
    "a header 60,000 times": (b"GET / HTTP/1.1\r\n" + b"A:\r\n" * 60_000 + b"\r\n", 431),
    "a megabyte of path": (b"GET /" + b"a" * MIB + b" HTTP/1.1\r\n\r\n", 431),
    "no path": (b"GET  HTTP/1.1\r\n\r\n", 400),
    "a star": (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    "a proxy": (b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n", 404),
}


@pytest.mark.parametrize("name", RAW_MESSAGES)
def test_odd_bytes(target: Any, name: str) -> None:
    message, status = RAW_MESSAGES[name]
    with Wire(target) as wire:
        with contextlib.suppress(ConnectionError):  # it may have had enough before the end
            wire.send(message)
        answer = wire.answer()
        assert answer.status == status
        assert answer.error
        if status != 404:
            assert answer.headers["connection"] == "close"
            assert wire.ended()


def test_an_upgrade_is_answered_as_if_it_were_none(target: Any) -> None:
    wish = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: abc=\r\n\r\n"
    with Wire(target) as wire:
        for _ in range(2):
            wire.send(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n" + wish)
            assert wire.answer().status == 200


def test_thousands_of_requests_in_one_packet_are_answered_in_order(target: Any) -> None:
    paths = ["/v2/health/live", "/nothing", "/v2/models/letters"] * 1500
    with Wire(target) as wire:
        sending = threading.Thread(
            target=wire.send,
            args=["".join(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n" for path in paths).encode()],
        )
        sending.start()
        for path in paths:
            answer = wire.answer()
            assert answer.status == (404 if path == "/nothing" else 200)
            assert (b"live" in answer.body) == (path == "/v2/health/live")
        sending.join()


def test_pipelined_answers_belong_to_their_requests(target: Any) -> None:
    images = np.random.default_rng(1).integers(0, 255, (200, 64))
    bodies = [tensor(data=image.tolist()) for image in images]
    alone = [json.loads(ask(target, "POST", INFER, body).body)["outputs"] for body in bodies]
    with Wire(target) as wire:
        wire.send(
            b"".join(
                f"POST {INFER} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
                for body in bodies
            )
        )
        together = [json.loads(wire.answer().body)["outputs"] for _ in bodies]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one[0]["data"], other[0]["data"], atol=1e-6)
    assert len({json.dumps(answer) for answer in alone}) == len(bodies)


def test_http_1_0_and_head(target: Any) -> None:
    with Wire(target) as wire:
        wire.send(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
        head = wire.answer("HEAD")
        assert (head.status, head.body) == (200, b"")
        wire.send(b"GET / HTTP/1.0\r\n\r\n")
        page = wire.answer()
        assert len(page.body) == int(head.headers["content-length"])
        assert page.headers["connection"] == "close"
        assert wire.ended()


@contextlib.contextmanager
def trickling(server: Any, heads: int, bodies: int) -> Iterator[list[Wire]]:
    """Connections that send a byte now and then: of heads, and of bodies."""
    wires = [Wire(server) for _ in range(heads + bodies)]
    stop = threading.Event()

    def trickle() -> None:
        while not stop.wait(0.2):
            for wire in wires:
                with contextlib.suppress(OSError):
                    wire.send(b"a")

    for wire in wires[:heads]:
        wire.send(b"POST /predict HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    for wire in wires[heads:]:
        wire.send(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        yield wires
    finally:
        stop.set()
        thread.join()
        for wire in wires:
            wire.close()


def seconds_to_answer(server: Any) -> float:
    """Median of 60 requests that cost next to nothing."""
    seconds = []
    for _ in range(60):
        started = time.perf_counter()
        assert is_live(server)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def test_hundreds_of_slow_clients_keep_nobody_waiting(target: Any) -> None:
    """In units of what an answer takes without them, on the machine as busy as it is."""
    alone = seconds_to_answer(target)
    with trickling(target, 490, 490):
        await_metric(target, lambda number: number >= 980, "lockstep_connections")
        assert seconds_to_answer(target) < max(20 * alone, 0.1)
        assert ask(target, "POST", INFER, tensor()).status == 200
    await_metric(target, lambda number: number < 10, "lockstep_connections")


def test_slow_clients_are_told_and_closed(strict: Any) -> None:
    with trickling(strict, 15, 15) as wires:
        for wire in wires:
            answer = wire.answer()
            assert (answer.status, answer.headers["connection"]) == (408, "close")
            assert answer.error
    await_metric(strict, lambda number: number < 5, "lockstep_connections")


def test_a_client_that_never_reads_is_closed(strict: Any) -> None:
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(strict)) for _ in range(5)]
        for wire in wires:
            wire.socket.settimeout(1)
            with pytest.raises(OSError):
                while True:
                    wire.send(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
        await_metric(strict, lambda number: number <= 1, "lockstep_connections")


def test_there_are_only_so_many_connections(strict: Any) -> None:
    await_metric(strict, lambda number: number <= 1, "lockstep_connections")
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(Wire(strict))
        with Wire(strict) as late:
            answer = late.answer()
            assert (answer.status, answer.headers["connection"]) == (503, "close")
            assert answer.headers["retry-after"] == "1"
            assert "connections" in answer.error
    await_metric(strict, lambda number: number <= 1, "lockstep_connections")


def test_clients_that_vanish_leave_nothing_behind(target: Any) -> None:
    message = (
        f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(tensor())}\r\n\r\n".encode()
        + tensor()
    )
    for length in range(0, 2 * len(message), 5):
        with Wire(target) as wire:
            wire.send((message * 2)[:length])
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await_metric(target, lambda number: number <= 1, "lockstep_connections")
    await_metric(target, lambda held: held == 0, "lockstep_held_bytes")


# Too much to do


FOUR = binary(4 * 64, 4 * RAW, shape=[4, 8, 8, 1])


def test_a_full_queue_is_429_at_once(busy: Any) -> None:
    def send(_: int) -> Answer:
        return ask(busy, "POST", INFER, *FOUR)

    with ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(send, range(60)))
    assert {answer.status for answer in answers} == {200, 429}
    for answer in answers:
        if answer.status == 429:
            assert int(answer.headers["retry-after"]) >= 1
            assert "queue" in answer.error
    assert send(0).status == 200


def test_a_request_larger_than_the_queue_is_answered_when_nothing_waits(busy: Any) -> None:
    await_metric(busy, lambda count: count == 0, "lockstep_queue_images")
    body, headers = binary(25 * 64, 25 * RAW, shape=[25, 8, 8, 1])
    assert ask(busy, "POST", INFER, body, headers).status == 200


def test_no_time_is_504(busy: Any) -> None:
    for answer in (
        ask(busy, "POST", INFER, request(parameters={"timeout": 1000})),
        ask(busy, "POST", "/predict?timeout=0.001", png(8, 8)),
    ):
        assert answer.status == 504
        assert "time" in answer.error
    await_metric(busy, lambda count: count == 0, "lockstep_queue_images")


def test_who_gives_up_is_not_computed(busy: Any) -> None:
    def computed() -> int:
        stats = json.loads(ask(busy, "GET", "/v2/models/letters/stats").body)
        return int(stats["model_stats"][0]["inference_count"])

    before = computed()
    gave_up = metric(busy, "lockstep_model_requests_total", outcome="gave up")
    body, headers = FOUR
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST {INFER} HTTP/1.1\r\nContent-Length: {len(body)}\r\n{fields}\r\n"
    wires = [Wire(busy) for _ in range(5)]
    for wire in wires:
        wire.send(head.encode() + body)
    for wire in wires:
        wire.close()
    await_metric(
        busy,
        lambda count: count >= gave_up + 3,  # the others were quicker than we
        "lockstep_model_requests_total",
        outcome="gave up",
    )
    await_metric(busy, lambda count: count == 0, "lockstep_queue_images")
    assert computed() - before <= 2 * 4
    await_metric(busy, lambda held: held == 0, "lockstep_held_bytes")


# Everything at once


def mutated(generator: random.Random, seeds: list[bytes]) -> bytes:
    """A request with some of its bytes changed, lost, doubled or swapped for those of another."""
    message = bytearray(generator.choice(seeds))
    for _ in range(generator.choice((1, 1, 2, 3, 8, 30))):
        place = generator.randrange(len(message) + 1)
        end = min(len(message), place + generator.choice((1, 1, 2, 5, 20, 200)))
        other = generator.choice(seeds)
        start = generator.randrange(len(other))
        match generator.randrange(7):
            case 0:
                message[place:end] = generator.randbytes(end - place)
            case 1:
                del message[place:end]
            case 2:
                message[place:place] = message[place:end] * generator.choice((1, 3, 50))
            case 3:
                message[place:end] = other[start : start + end - place]
            case 4:
                message[place:place] = generator.choice(
                    (b"\r\n", b"\n", b"\r", b"\x00", b"\r\n\r\n", b":", b" ", b"%00", b"9" * 20)
                )
            case 5:
                message[place:end] = bytes(
                    byte ^ (1 << generator.randrange(8)) for byte in message[place:end]
                )
            case _:
                message = bytearray(message[:place] + other[start:])
        if not message:
            message += b"\x00"
    return bytes(message[:100_000])


def fuzz_seeds() -> list[bytes]:
    def post(path: str, body: bytes, headers: Headers | None = None) -> bytes:
        lines = [
            f"POST {path} HTTP/1.1",
            "Host: localhost",
            f"Content-Length: {len(body)}",
            *(f"{name}: {value}" for name, value in (headers or {}).items()),
        ]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    chunked = b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    image = png(8, 8)
    element = struct.pack("<I", len(image)) + image
    return [
        b"GET /v2/models/letters HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n",
        b"GET /v2/health/live HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" * 3,
        b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"OPTIONS /predict HTTP/1.1\r\nHost: x\r\nOrigin: https://a.b\r\n\r\n",
        post(INFER, tensor()),
        post(INFER, tensor()) * 2,
        post(INFER, request(outputs=[{**OUTPUT, "parameters": {"classification": 3}}])),
        post(INFER, *binary(64, RAW)),
        post(INFER, *binary(len(element), element, **ENCODED)),
        post(INFER, gzip.compress(tensor()), {"Content-Encoding": "gzip"}),
        post("/predict?top=3&priority=1&timeout=9", image, {"Expect": "100-continue"}),
        post("/predict", JPEG, {"Content-Type": "image/jpeg", "Origin": "http://localhost"}),
        post("/predict", *multipart([("a.png", image), ("b.jpg", JPEG)])),
        post("/v2/repository/index", b'{"ready": true}'),
        post("/v2/repository/models/letters/load", b"{}"),
        chunked + b"%x\r\n" % len(image) + image + b"\r\n0\r\nTrailer: x\r\n\r\n",
    ]


@pytest.mark.slow
def test_fuzzed_requests(start: Callable[..., Any], bundle: Path) -> None:
    """20,000 damaged requests: no failure of the server, and nothing is held in the end."""
    server = start(
        bundle, "--head-timeout", "0.5", "--body-timeout", "0.5", "--idle-timeout", "0.5",
        "--write-timeout", "5", "--max-body", "1MiB",
    )  # fmt: skip
    seeds = fuzz_seeds()
    for seed in seeds:  # they are good
        with Wire(server) as wire:
            wire.send(seed)
            assert wire.answer("HEAD" if seed.startswith(b"HEAD") else "GET").status in (
                100, 200, 204, 403,
            )  # fmt: skip
    before = server.memory

    def throw(number: int) -> set[int]:
        generator = random.Random(number)
        with contextlib.suppress(ConnectionError), Wire(server) as wire:
            wire.send(mutated(generator, seeds))
            if generator.random() < 0.5:
                with contextlib.suppress(OSError):  # ENOTCONN: the server has closed before
                    wire.socket.shutdown(socket.SHUT_WR)
            received = wire.input.read(10_000_000)
            found = re.findall(rb"HTTP/1\.1 (\d{3}) ", received)
            assert received == b"" or received.startswith(b"HTTP/1.1 ")
            return {int(status) for status in found}
        return set()

    with ThreadPoolExecutor(64) as pool:
        statuses = set().union(*pool.map(throw, range(20_000), chunksize=50))
    assert {200, 400, 404, 408} <= statuses
    assert 500 not in statuses
    assert is_live(server)
    await_metric(server, lambda number: number <= 1, "lockstep_connections")
    await_metric(server, lambda held: held == 0, "lockstep_held_bytes")
    await_metric(server, lambda count: count == 0, "lockstep_queue_images")
    assert metric(server, "lockstep_http_requests_total", status="500") == 0
    assert not any("Traceback" in line for line in server.lines), server.lines
    assert server.memory - before < 100 * MIB
    assert ask(server, "POST", INFER, tensor()).status == 200


def test_tls_spoken_to_a_plain_port(target: Any) -> None:
    host, port = target.address.split(":")
    with (
        socket.create_connection((host, int(port)), 20) as client,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        ssl.create_default_context().wrap_socket(client, server_hostname="localhost")
