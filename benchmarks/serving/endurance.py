"""A million requests of many kinds and sizes: are the answers right, and does memory stay flat?

python -m benchmarks.serving.endurance runs/fashion-mnist/model.onnx --folder FOLDER
python -m benchmarks.serving.endurance ... --requests 20000
"""

import argparse
import io
import json
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.serving.contestants import lockstep, serving
from benchmarks.serving.load import Asked, Load
from benchmarks.serving.onnx_answer import open_session
from benchmarks.serving.photo_model import make_photo
from benchmarks.serving.questions import Question, v2_binary
from benchmarks.serving.server_process import LOAD_CORE, memory_of, on_core
from serve.classifier import Classifier
from serve.images import read_image

INFER, PREDICT = "/v2/models/model/infer", "/predict"
FLAT = 1.0
"""MiB per 100,000 requests: ten bytes a request."""
ENOUGH = 200_000
"""Requests after which the slope means something."""


@dataclass(frozen=True)
class Malformed:
    """A request that must be refused with this status and a sentence."""

    status: int
    path: str
    body: bytes = field(repr=False)
    content_type: str = "application/json"

    def wire(self) -> bytes:
        head = f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        head += f"Content-Type: {self.content_type}\r\nContent-Length: {len(self.body)}\r\n\r\n"
        return head.encode() + self.body

    def is_right(self, status: int, answer: bytes) -> bool:
        return status == self.status and bool(json.loads(answer)["error"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path, help="a bundle of the 28x28x1 Fashion-MNIST model")
    parser.add_argument("--folder", type=Path, required=True, help="for the log")
    parser.add_argument("--requests", type=int, default=1_000_000, help="(default: 1000000)")
    parser.add_argument("--server-options", default="", help="further options of serve.http")
    options = parser.parse_args()
    kinds = make_kinds(options.model)
    generator, sent = random.Random(0), 0

    def next_request() -> Asked:
        nonlocal sent
        sent += 1
        (kind,) = generator.choices(list(kinds.values()), weights=(45, 15, 25, 15))
        return generator.choice(kind)

    contestant = lockstep(options.server_options)
    with (
        serving(contestant, "tensor", options.model, options.folder) as server,
        memory_of(server, interval=2, clock=lambda: sent) as memory,
        on_core(LOAD_CORE),
    ):
        load = Load(server.port, next_request, connections=8).run(requests=options.requests)
    print(f"{sum(load.counts().values()):,} answers in {load.seconds:,.0f} s: {load.counts()}")
    print(f"wrong {load.wrong}, broken {load.broken}, unanswered {load.unanswered}")
    for status, example in load.examples.items():
        print(f"  wrong with status {status}: {example}")
    flat = memory_is_flat(memory)
    return 0 if flat and not (load.wrong or load.broken or load.unanswered) else 1


def memory_is_flat(samples: list[tuple[float, float]]) -> bool:
    """Print the course of memory, and the slope of its second half. Short runs cannot tell."""
    for index in np.linspace(0, len(samples) - 1, 11).astype(int):
        print(f"  after {samples[index][0]:>9,.0f} requests {samples[index][1]:8.1f} MiB")
    sent, mib = np.array([sample for sample in samples if sample[0] > samples[-1][0] / 2]).T
    slope = float(np.polyfit(sent, mib, 1)[0]) * 1e5
    flat, enough = slope < FLAT, samples[-1][0] >= ENOUGH
    verdict = ("flat" if flat else "NOT FLAT") if enough else "too short a run to tell"
    print(f"second half: {slope:+.2f} MiB per 100,000 requests: {verdict}")
    return flat or not enough


def make_kinds(model: Path) -> dict[str, list[Asked]]:
    """Requests of each kind with the answers of the bare runtime."""
    session, generator = open_session(str(model)), np.random.default_rng(0)
    document = Classifier(model, threads=1).document

    def best(images: np.ndarray) -> int:
        return int(session.run(None, {"image": images})[0][0].argmax())

    def label_best(answer: bytes) -> int:
        return document.class_names.index(json.loads(answer)["results"][0]["label"])

    tensors: list[Asked] = []
    texts: list[Asked] = []
    files: list[Asked] = []
    for number in range(300):
        batch = round(64 ** generator.random() ** 2)  # 1 to 64, most of them small
        images = generator.integers(0, 256, (batch, 28, 28, 1), np.uint8)
        tensors.append(v2_binary(INFER)(images.tobytes(), best(images)))
        texts.append(json_question(images[: 1 + number % 4], best(images[:1])))
        image, form = encode(number)
        pixels = read_image(image, document.image)[None]
        headers = {"Content-Type": form}
        files.append(Question(PREDICT, headers, image, label_best, best(pixels)))
    return {"binary": tensors, "json": texts, "files": files, "malformed": malformed()}


def json_question(images: np.ndarray, expected: int) -> Question:
    """The pixels as numbers in JSON, probabilities the same way."""
    tensor = {"name": "image", "shape": images.shape, "datatype": "UINT8"}
    body = json.dumps({"inputs": [{**tensor, "data": images.ravel().tolist()}]}).encode()
    read: Callable[[bytes], int] = lambda answer: int(  # noqa: E731
        np.reshape(json.loads(answer)["outputs"][0]["data"], (len(images), -1))[0].argmax()
    )
    return Question(INFER, {"Content-Type": "application/json"}, body, read, expected)


def encode(number: int) -> tuple[bytes, str]:
    """A small JPEG or PNG, of a size of its own."""
    photo = make_photo(number, 32 + 8 * (number % 20), 32 + 8 * (number % 13))
    if number % 2:
        return photo, "image/jpeg"
    stream = io.BytesIO()
    Image.open(io.BytesIO(photo)).save(stream, "PNG")
    return stream.getvalue(), "image/png"


def malformed() -> list[Asked]:
    """No JSON, the wrong shape, a wrong number, an unknown model, and files that are no images."""
    photo = make_photo(0, 64, 64)
    tensor = b'{"inputs":[{"name":"image","shape":[1,28,28,1],"datatype":"%s","data":%s}]}'
    return [
        Malformed(400, INFER, b"{"),
        Malformed(400, INFER, b'{"inputs":[]}'),
        Malformed(400, INFER, tensor % (b"UINT8", b"[1,2,3]")),
        Malformed(400, INFER, tensor % (b"UINT8", b"[300" + b",0" * 783 + b"]")),
        Malformed(400, INFER, tensor % (b"FP64", b"[0" + b",0" * 783 + b"]")),
        Malformed(404, "/v2/models/nobody/infer", tensor % (b"UINT8", b"[0" + b",0" * 783 + b"]")),
        Malformed(422, PREDICT, b"no image", "image/png"),
        Malformed(422, PREDICT, photo[: len(photo) // 2], "image/jpeg"),
        Malformed(400, PREDICT, b"", "image/jpeg"),
        Malformed(400, PREDICT, b"--x\r\nno part", "multipart/form-data; boundary=x"),
    ]


if __name__ == "__main__":
    sys.exit(main())
