"""Good requests beside malformed ones in the same batches: none is lost, and none gets the answer
of another. Before a real server that batches, over many connections at once."""

import asyncio
import base64
import io
import itertools
import json
import random
import re
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
import tritonclient.http as triton  # type: ignore[import-untyped]
from numpy.typing import NDArray
from PIL import Image

from serve.classifier import Classifier

LETTERS = "abcdefghij"
PIXELS = 64
CONNECTIONS = 48
THREADS = 3
LONG = 120.0
"""Seconds after which an answer is missing."""

MOST_IN_REQUEST = 3
BATCH = 8
INFER = "/v2/models/letters/infer"


@dataclass(frozen=True)
class Expected:
    """What must come of a request.

    Attributes:
        statuses: the ones that are right; none, if the client goes away.
        images: numbers of those whose answers must be given, where the status is 200.
    """

    statuses: tuple[int, ...]
    images: tuple[int, ...] = ()


@dataclass(frozen=True)
class Sent:
    """A request.

    Attributes:
        kind: what the answer looks like.
        content: bytes of it, all that are sent.
        computed: whether the model sees it for sure.
    """

    kind: str
    content: bytes
    expected: Expected
    computed: bool = False


def post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def png(pixels: NDArray[np.uint8]) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(pixels[:, :, 0]).save(encoded, "PNG")
    return encoded.getvalue()


class Traffic:
    """Requests, good and malformed, and the right answers to the good ones.

    Attributes:
        alone: the answer to each image, asked alone.
    """

    def __init__(self, bundle: Path, seed: int) -> None:
        self._random = random.Random(seed)
        self.images = np.random.default_rng(seed).integers(0, 255, (400, 8, 8, 1), np.uint8)
        classifier = Classifier(bundle, threads=1)
        self.alone = np.concatenate([classifier.predict(image[None]) for image in self.images])
        # Nobody could be taken for another.
        order = np.sort(self.alone[:, 0])
        assert np.median(np.diff(order)) > 1e-5
        self._encoded = [png(image) for image in self.images]
        self._white = np.full((8, 8, 1), 255, np.uint8)
        self._good = [self.binary, self.json, self.encoded, self.raw, self.form]
        self._bad = [
            self.white, self.white, self.white_among_good, self.white_encoded, self.white_raw,
            self.unreadable_raw, self.unreadable_encoded, self.wrong_shape, self.too_short,
            self.no_json, self.expired, self.cut_off_in_body, self.gone_before_answer,
        ]  # fmt: skip

    def mix(self, good: int, bad: int) -> list[Sent]:
        """So many of each, in random order."""
        made = [self._random.choice(self._good)() for _ in range(good)]
        made += [make() for make in itertools.islice(itertools.cycle(self._bad), bad)]
        self._random.shuffle(made)
        return made

    def some(self, most: int = MOST_IN_REQUEST) -> tuple[int, ...]:
        count = self._random.randint(1, most)
        return tuple(self._random.randrange(len(self.images)) for _ in range(count))

    def check(self, numbers: tuple[int, ...], answer: NDArray[np.float32]) -> None:
        np.testing.assert_allclose(answer, self.alone[list(numbers)], rtol=0, atol=2e-6)

    # Good ones.

    def binary(self) -> Sent:
        numbers = self.some()
        content = infer_binary(self.images[list(numbers)], priority=self._random.randint(0, 9))
        return Sent("binary", content, Expected((200,), numbers), computed=True)

    def json(self) -> Sent:
        numbers = self.some()
        images = self.images[list(numbers)]
        tensor = {"name": "image", "datatype": "UINT8", "shape": images.shape}
        document = {"inputs": [{**tensor, "data": images.ravel().tolist()}]}
        content = post(INFER, json.dumps(document).encode())
        return Sent("json", content, Expected((200,), numbers), computed=True)

    def encoded(self) -> Sent:
        numbers = self.some()
        content = infer_encoded([self._encoded[number] for number in numbers])
        return Sent("json", content, Expected((200,), numbers), computed=True)

    def raw(self) -> Sent:
        numbers = self.some(1)
        content = post("/predict?top=10", self._encoded[numbers[0]], "Content-Type: image/png")
        return Sent("labels", content, Expected((200,), numbers), computed=True)

    def form(self) -> Sent:
        """With a file that is no image between two that are: only it has no label."""
        numbers = (*self.some(1), *self.some(1))
        first, second = (self._encoded[number] for number in numbers)
        content = multipart([first, b"no image", second])
        return Sent("labels", content, Expected((200,), numbers), computed=True)

    # Those that fail inside the model.

    def white(self) -> Sent:
        return Sent("", infer_binary(self._white[None]), Expected((500,)), computed=True)

    def white_among_good(self) -> Sent:
        images = np.stack([self.images[0], self._white, self.images[1]])
        return Sent("", infer_binary(images), Expected((500,)), computed=True)

    def white_encoded(self) -> Sent:
        content = infer_encoded([self._encoded[0], png(self._white)])
        return Sent("", content, Expected((500,)), computed=True)

    def white_raw(self) -> Sent:
        return Sent("", post("/predict", png(self._white)), Expected((500,)), computed=True)

    # Those that must not reach it.

    def unreadable_raw(self) -> Sent:
        return Sent("", post("/predict", self._encoded[0][:-25]), Expected((422,)))

    def unreadable_encoded(self) -> Sent:
        content = infer_encoded([self._encoded[0], b"\x89PNG no image"])
        return Sent("", content, Expected((422,)))

    def wrong_shape(self) -> Sent:
        images = np.zeros((1, *self._random.choice([(8, 9, 1), (7, 7, 1), (8, 8, 3)])), np.uint8)
        return Sent("", infer_binary(images), Expected((400,)))

    def too_short(self) -> Sent:
        content = infer_binary(self.images[:2], lost=self._random.randint(1, 127))
        return Sent("", content, Expected((400,)))

    def no_json(self) -> Sent:
        return Sent("", post(INFER, b'{"inputs": [{"name": "image", '), Expected((400,)))

    def expired(self) -> Sent:
        """Over after a microsecond: it may just be answered before that is noticed."""
        numbers = self.some()
        content = infer_binary(self.images[list(numbers)], timeout=1)
        return Sent("binary", content, Expected((504, 200), numbers))

    def cut_off_in_body(self) -> Sent:
        content = infer_binary(self.images[:2])
        return Sent("", content[: -self._random.randint(1, 100)], Expected(()))

    def gone_before_answer(self) -> Sent:
        return Sent("", infer_binary(self.images[:2]), Expected(()))


def infer_binary(images: NDArray[np.uint8], lost: int = 0, **parameters: int) -> bytes:
    tensor = {
        "name": "image",
        "datatype": "UINT8",
        "shape": images.shape,
        "parameters": {"binary_data_size": images.size},
    }
    document = {"inputs": [tensor], "parameters": {"binary_data_output": True, **parameters}}
    head = json.dumps(document).encode()
    body = head + images.tobytes()[: images.size - lost]
    return post(INFER, body, f"Inference-Header-Content-Length: {len(head)}")


def infer_encoded(images: list[bytes]) -> bytes:
    tensor: dict[str, Any] = {"name": "image", "datatype": "BYTES", "shape": [len(images)]}
    if len(images) % 2:
        texts = [base64.b64encode(image).decode() for image in images]
        return post(INFER, json.dumps({"inputs": [{**tensor, "data": texts}]}).encode())
    data = b"".join(struct.pack("<I", len(image)) + image for image in images)
    tensor["parameters"] = {"binary_data_size": len(data)}
    head = json.dumps({"inputs": [tensor]}).encode()
    return post(INFER, head + data, f"Inference-Header-Content-Length: {len(head)}")


def multipart(files: list[bytes]) -> bytes:
    boundary = "a-line-between"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{number}.png"'
        "\r\n\r\n".encode()
        + content
        + b"\r\n"
        for number, content in enumerate(files)
    ]
    body = b"".join(parts) + f"--{boundary}--\r\n".encode()
    kind = f"Content-Type: multipart/form-data; boundary={boundary}"
    return post("/predict?top=10", body, kind)


# A small client.


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    pairs = (line.partition(": ") for line in lines)
    headers = {name.lower(): value for name, _, value in pairs}
    body = await reader.readexactly(int(headers["content-length"]))
    return Answer(int(first.split()[1]), headers, body)


def probabilities(kind: str, answer: Answer) -> NDArray[np.float32]:
    """`[images, 10]`, whatever form they have."""
    if kind == "binary":
        length = int(answer.headers["inference-header-content-length"])
        return np.frombuffer(answer.body, np.float32, offset=length).reshape(-1, 10)
    document = json.loads(answer.body)
    if kind == "json":
        return np.array(document["outputs"][0]["data"], np.float32).reshape(-1, 10)
    results = document["results"]
    if len(results) == 3:
        assert "error" in results[1]
        del results[1]
    by_label = [{item["label"]: item["probability"] for item in one["top"]} for one in results]
    return np.array([[found[letter] for letter in LETTERS] for found in by_label], np.float32)


async def client(host: str, port: int, traffic: Traffic, sent: Iterator[Sent]) -> int:
    """One connection at a time, kept alive. Returns how many good answers it got."""
    good = 0
    reader = writer = None
    try:
        for request in sent:
            if writer is None or reader is None:
                reader, writer = await asyncio.open_connection(host, port)
            writer.write(request.content)
            if not request.expected.statuses:  # gone, at some moment or other
                await writer.drain()
                for _ in range(len(request.content) % 4):
                    await asyncio.sleep(0)
                writer.transport.abort()
                reader = writer = None
                continue
            async with asyncio.timeout(LONG):
                answer = await read_answer(reader)
            assert answer.status in request.expected.statuses, (request, answer)
            if answer.status == 200:
                traffic.check(request.expected.images, probabilities(request.kind, answer))
                good += request.computed
            else:
                assert set(json.loads(answer.body)) == {"error"}
                assert b"Traceback" not in answer.body
    finally:
        if writer:
            writer.transport.abort()
    return good


def triton_client(address: str, traffic: Traffic, chosen: list[tuple[int, ...]]) -> int:
    """The official client, in a thread of its own."""
    with triton.InferenceServerClient(address) as official:
        for turn, numbers in enumerate(chosen):
            images = traffic.images[list(numbers)]
            tensor = triton.InferInput("image", list(images.shape), "UINT8")
            tensor.set_data_from_numpy(images, binary_data=turn % 2 == 0)
            outputs = [triton.InferRequestedOutput("probabilities", binary_data=turn % 3 == 0)]
            result = official.infer("letters", [tensor], outputs=outputs)
            answer = result.as_numpy("probabilities")
            assert answer is not None
            traffic.check(numbers, answer)
    return len(chosen)


async def send(address: str, traffic: Traffic, good: int, bad: int) -> list[Sent]:
    """Good requests, a tenth of them by the official client, and bad ones. Returns them."""
    host, _, port = address.partition(":")
    official = good // 10 // THREADS
    made = traffic.mix(good - THREADS * official, bad)
    sent = iter(made)
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(THREADS) as pool:
        threads = [
            loop.run_in_executor(
                pool, triton_client, address, traffic, [traffic.some() for _ in range(official)]
            )
            for _ in range(THREADS)
        ]
        clients = (client(host, int(port), traffic, sent) for _ in range(CONNECTIONS))
        answered = await asyncio.gather(*clients, *threads)
    assert sum(answered) == good
    return made


# What the server says of it.


def read_metrics(url: str) -> dict[str, float]:
    """Every sample, by its name and labels, added up over worker processes."""
    with urlopen(f"{url}/metrics", timeout=LONG) as response:
        text = response.read().decode()
    return {
        name: float(value)
        for name, value in re.findall(r"^(lockstep_\S+(?:\{.*\})?) (\S+)$", text, re.MULTILINE)
    }


def sample(metrics: dict[str, float], name: str, **labels: str) -> float:
    found = [
        value
        for key, value in metrics.items()
        if key.partition("{")[0] == name
        and all(f'{label}="{text}"' in key for label, text in labels.items())
    ]
    return sum(found)


async def isolation(
    start: Callable[..., Any], bundle: Path, good: int, bad: int, *options: str
) -> None:
    server = start(
        bundle, "--batching", str(BATCH), "--max-delay", "2", "--max-queue", "10000", *options
    )
    traffic = Traffic(bundle, seed=good)
    made = await send(server.address, traffic, good, bad)
    while True:  # until those that are gone are noticed, and told
        metrics = await asyncio.to_thread(read_metrics, server.url)
        held = sample(metrics, "lockstep_queue_images"), sample(metrics, "lockstep_held_bytes")
        if held == (0, 0):
            break
        await asyncio.sleep(0.05)
    whites = sum(request.expected.statuses == (500,) for request in made)
    assert sample(metrics, "lockstep_model_requests_total", outcome="failed") == whites
    assert sample(metrics, "lockstep_model_requests_total", outcome="ok") >= good
    # A call with more images than a request has is one of several requests.
    calls = sample(metrics, "lockstep_batch_images_count")
    mixed = calls - sample(metrics, "lockstep_batch_images_bucket", le="4.0")
    assert mixed > (good + bad) / 20
    assert sample(metrics, "lockstep_batch_images_bucket", le=f"{BATCH}.0") == calls
    assert not [line for line in server.lines if "Traceback" in line]
    assert server.stop() == 0


@pytest.fixture(params=["error", "nan"])
def fragile(
    request: pytest.FixtureRequest, make_bundle: Callable[..., Path], tmp_path: Path
) -> Path:
    """A bundle that fails on white images, or answers them with NaN."""
    return make_bundle(tmp_path / "letters.onnx", white=request.param)


def test_good_requests_beside_malformed_ones(start: Callable[..., Any], fragile: Path) -> None:
    asyncio.run(isolation(start, fragile, 1250, 250))


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_10_000_good_requests_beside_2_000_malformed_ones(
    workers: str, start: Callable[..., Any], fragile: Path
) -> None:
    asyncio.run(isolation(start, fragile, 10_000, 2_000, "--workers", workers))
