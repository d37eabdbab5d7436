"""Requests with the means to tell a right answer from a wrong one, for every server compared."""

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.serving.onnx_answer import open_session, read_photo
from benchmarks.serving.photo_model import make_photo

JSON, BINARY = "application/json", "application/octet-stream"
Best = Callable[[bytes], int]
"""Reads the best class from the body of an answer."""


@dataclass(frozen=True)
class Question:
    """One POST request, and the class that the bare runtime gives for it."""

    path: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    best: Best
    expected: int

    def is_right(self, status: int, answer: bytes) -> bool:
        """Whether it is a 200 with that class."""
        try:
            return status == 200 and self.best(answer) == self.expected
        except (ValueError, LookupError, TypeError):
            return False

    def wire(self) -> bytes:
        """The request as it goes over a connection that stays open."""
        headers = {"Host": "127.0.0.1", **self.headers, "Content-Length": str(len(self.body))}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST {self.path} HTTP/1.1\r\n{lines}\r\n".encode() + self.body


Ask = Callable[[bytes, int], Question]
"""Makes a question of raw pixels of 28x28x1 or of an encoded photo, and of its class."""


def raw(path: str, best: Best) -> Ask:
    """The bytes as the body."""
    return lambda content, expected: Question(
        path, {"Content-Type": BINARY}, content, best, expected
    )


def as_json(path: str, best: Best, wrap: Callable[[str], object]) -> Ask:
    """The bytes as base64 in JSON of the form that `wrap` gives."""

    def ask(content: bytes, expected: int) -> Question:
        body = json.dumps(wrap(base64.b64encode(content).decode())).encode()
        return Question(path, {"Content-Type": JSON}, body, best, expected)

    return ask


def v2_base64(name: str) -> Callable[[str], object]:
    """For `as_json`: a V2 tensor of one BYTES element."""
    tensor = {"name": name, "shape": [1], "datatype": "BYTES"}
    return lambda text: {"inputs": [{**tensor, "data": [text]}]}


def v2_binary(path: str, best: Best | None = None) -> Ask:
    """The binary tensor extension, in and out: uint8 pixels of any batch, or with `best` a file."""

    def ask(content: bytes, expected: int) -> Question:
        rows = len(content) // 784
        shape, datatype, read = [rows, 28, 28, 1], "UINT8", lambda answer: _first_of(answer, rows)
        if best is not None:
            content = len(content).to_bytes(4, "little") + content
            shape, datatype, read = [1], "BYTES", best
        size = {"binary_data_size": len(content)}
        tensor = {"name": "image", "shape": shape, "datatype": datatype, "parameters": size}
        whole = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
        text = json.dumps(whole).encode()
        headers = {"Content-Type": BINARY, "Inference-Header-Content-Length": str(len(text))}
        return Question(path, headers, text + content, read, expected)

    return ask


def _first_of(answer: bytes, rows: int) -> int:
    """The best class of the first of `rows` rows of 10 float32, at the end of a binary answer."""
    return int(np.frombuffer(answer[-40 * rows :], "<f4").reshape(rows, 10)[0].argmax())


def about(row: str, ask: Ask, model: Path, photo: str, count: int = 16) -> list[Question]:
    """The content of a row; photos are of `photo`, "width,height"."""
    if row == "tensor":
        return about_tensors(ask, model, count)
    width, height = map(int, photo.split(","))
    return about_photos(ask, model, width, height, count)


def about_tensors(ask: Ask, model: Path, count: int = 16) -> list[Question]:
    """Single random images of 28x28x1."""
    session, generator = open_session(str(model)), np.random.default_rng(0)
    images = generator.integers(0, 256, (count, 1, 28, 28, 1), np.uint8)
    return [
        ask(image.tobytes(), int(session.run(None, {"image": image})[0].argmax()))
        for image in images
    ]


def about_photos(ask: Ask, model: Path, width: int, height: int, count: int = 16) -> list[Question]:
    """JPEGs of one size, whose best class is clear of the second."""
    session, found, seed = open_session(str(model)), list[Question](), 0
    while len(found) < count:
        photo = make_photo(seed, width, height)
        (row,) = session.run(None, {"image": read_photo(photo)[None]})[0]
        second, first = np.sort(row)[-2:]
        if first > 1.1 * second:
            found.append(ask(photo, int(row.argmax())))
        seed += 1
    return found
