"""Damage ONNX files, each by a number, and open them: the worker of `test_fuzz.py`.

    PYTHONPATH=. python tests/serve/fuzz_bundles.py FOLDER WAY FIRST COUNT

FOLDER holds `bundle.onnx` and `foreign.onnx`. WAY says what becomes of a damaged file:

- damaged: it is opened as it is. It must be refused, or be and answer as the bundle did.
- sealed: the digest is made to fit again, so that onnxruntime is given the damaged graph.
- foreign: it is opened as a model that says nothing of itself.
- made: nothing is damaged; the files in FOLDER/made are opened as they are.

The number under way is in `under_way.txt`, so that a crash can be told. At the end
`outcomes.json` says how often each outcome occurred, what went wrong and how much memory it took;
a file that went wrong stays in FOLDER. A file that takes too much memory or time ends the process.
"""

import contextlib
import copy
import json
import math
import os
import random
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serve.bundle import METADATA_KEY, BundleError, seal
from serve.classifier import Classifier
from serve.command import LockstepError
from serve.description import Description
from serve.onnx_file import outline, with_entry, without_entry

MOST_MEMORY = 2**30
MOST_SECONDS = 20.0

NUMBERS = (0, 1, 2, 5, 11, 127, 128, 255, 2**16, 2**24, 2**31 - 1, 2**31, 2**32, 2**33 + 1,
           2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1)  # fmt: skip
VARINT, BYTES = 0, 2

Damage = Callable[[random.Random, bytes, bytes], bytes]


def read_varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """The number at `position` and the position behind it; ValueError if there is none."""
    number = 0
    for shift in range(0, 70, 7):
        if position >= end:
            break
        number |= (data[position] & 127) << shift
        position += 1
        if data[position - 1] < 128:
            return number % 2**64, position
    raise ValueError("no varint")


def varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes([*encoded, number])


@dataclass
class Field:
    """A field of a protobuf message, which may be a message itself; where it was found."""

    number: int
    wire: int
    value: "int | bytes | list[Field]"
    start: int
    body: int
    end: int

    def encode(self) -> bytes:
        tag = varint(self.number << 3 | self.wire)
        if isinstance(self.value, int):
            return tag + varint(self.value)
        content = self.value if isinstance(self.value, bytes) else encode(self.value)
        return tag + (varint(len(content)) if self.wire == BYTES else b"") + content


def parse(data: bytes, position: int, end: int) -> list[Field]:
    """The fields of a message; ValueError if it is none."""
    fields = []
    while position < end:
        start = position
        tag, body = read_varint(data, start, end)
        if tag >> 3 == 0 or tag & 7 not in (0, 1, 2, 5):
            raise ValueError("no tag")
        value: int | bytes | list[Field]
        if tag & 7 == VARINT:
            value, position = read_varint(data, body, end)
        else:
            size = {1: 8, 5: 4}.get(tag & 7)
            if size is None:
                size, body = read_varint(data, body, end)
            position = body + size
            if position > end:
                raise ValueError("cut off")
            value = data[body:position]
        if tag & 7 == BYTES and value:
            with contextlib.suppress(ValueError):  # else it is text or numbers, no message
                value = parse(data, body, position)
        fields.append(Field(tag >> 3, tag & 7, value, start, body, position))
    return fields


def encode(fields: list[Field]) -> bytes:
    return b"".join(field.encode() for field in fields)


def messages(fields: list[Field]) -> list[list[Field]]:
    """A message and all messages within it."""
    inner = [field.value for field in fields if isinstance(field.value, list)]
    return [fields, *(message for value in inner for message in messages(value))]


def span(rng: random.Random, data: bytes) -> tuple[int, int]:
    start = rng.randrange(len(data))
    return start, min(len(data), start + int(2 ** rng.uniform(0, 10)))


def flip(rng: random.Random, data: bytes, positions: list[int]) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 16)):
        changed[rng.choice(positions)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def flip_anywhere(rng: random.Random, data: bytes, other: bytes) -> bytes:
    return flip(rng, data, list(range(len(data))))


def flip_first_bytes(rng: random.Random, data: bytes, other: bytes) -> bytes:
    return flip(rng, data, list(range(min(64, len(data)))))


def flip_structure(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """In tags, lengths and numbers, which say what the other bytes mean."""
    fields = [field for message in messages(parse(data, 0, len(data))) for field in message]
    field = rng.choice(fields)
    return flip(rng, data, list(range(field.start, max(field.body, field.start + 1))))


def cut_off(rng: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def remove_span(rng: random.Random, data: bytes, other: bytes) -> bytes:
    start, end = span(rng, data)
    return data[:start] + data[end:]


def double_span(rng: random.Random, data: bytes, other: bytes) -> bytes:
    start, end = span(rng, data)
    return data[:end] + data[start:]


def splice(rng: random.Random, data: bytes, other: bytes) -> bytes:
    start, end = span(rng, data)
    first, last = span(rng, other)
    return data[:start] + other[first:last] + data[end:]


def concatenate(rng: random.Random, data: bytes, other: bytes) -> bytes:
    parts = [rng.choice((data, other)) for _ in range(rng.randint(1, 3))]
    return b"".join([*parts, data])


def reorder(rng: random.Random, data: bytes, other: bytes) -> bytes:
    fields = parse(data, 0, len(data))
    rng.shuffle(fields)
    return b"".join(data[field.start : field.end] for field in fields)


def change_varint(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """A length, dimension, type or tag becomes another number; what is around it stays."""
    fields = [field for message in messages(parse(data, 0, len(data))) for field in message]
    field = rng.choice(fields)
    number = rng.choice((*NUMBERS, rng.getrandbits(64)))
    start = field.body if field.wire == VARINT else field.start + 1
    end = field.end if field.wire == VARINT else field.body
    return data[:start] + varint(number) + data[end:]


def edit_document(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Change the text of the document in an entry that is well formed."""
    text = list(outline(data).metadata[METADATA_KEY])
    for _ in range(rng.choice((0, 1, 1, 1, 3, 10))):
        place = rng.randrange(len(text))
        new = rng.choice(('"', "{", "[", ",", " ", "\n", "0", "9", "-", "1e999", "null", "é", "\0",
                          "true", '"sha256":"",', '"mean":[0.5],', "NaN", "["  * 5000))  # fmt: skip
        text[place : place + rng.choice((0, 1, 1, 20))] = [new]
    return with_entry(without_entry(data, METADATA_KEY), METADATA_KEY, "".join(text))


def edit_fields(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Change fields and make every length fit again."""
    fields, donor = parse(data, 0, len(data)), parse(other, 0, len(other))
    spare = [field for message in messages([*donor, *fields]) for field in message]
    for _ in range(rng.choice((1, 1, 2, 4))):
        message = rng.choice([message for message in messages(fields) if message])
        index = rng.randrange(len(message))
        field = message[index]
        match rng.choice(("value", "value", "value", "drop", "double", "swap", "graft", "number")):
            case "drop":
                del message[index]
            case "double":
                message.insert(rng.randrange(len(message)), copy.deepcopy(field))
            case "swap":
                other_index = rng.randrange(len(message))
                message[index], message[other_index] = message[other_index], field
            case "graft":
                alike = [item for item in spare if item.number == field.number]
                message[index] = copy.deepcopy(rng.choice(alike or spare))
            case "number":
                field.number = rng.randint(1, 26)
            case _:
                field.value = changed_value(rng, field, spare)
    return encode(fields)


def changed_value(
    rng: random.Random, field: Field, spare: list[Field]
) -> int | bytes | list[Field]:
    if isinstance(field.value, int):
        return rng.choice((*NUMBERS, field.value + 1, field.value ^ 1 << rng.randrange(40)))
    if isinstance(field.value, list):
        values = [item.value for item in spare if isinstance(item.value, list)]
        return copy.deepcopy(rng.choice(values))
    if field.wire == BYTES and rng.random() < 0.5:
        return rng.choice([item.value for item in spare if isinstance(item.value, bytes)])
    return flip(rng, field.value, list(range(len(field.value)))) if field.value else b"x"


ANY_PART: tuple[Damage, ...] = (
    flip_anywhere, flip_first_bytes, flip_structure, cut_off, remove_span, double_span, splice,
    concatenate, reorder, change_varint, edit_fields,
)  # fmt: skip


class Fuzzer:
    """The sound files, and what became of the damaged ones."""

    def __init__(self, folder: Path, way: str) -> None:
        self.folder, self.way = folder, way
        self.bundle = (folder / "bundle.onnx").read_bytes()
        self.foreign = (folder / "foreign.onnx").read_bytes()
        self.made = sorted((folder / "made").glob("*.onnx"))
        classifier = Classifier(folder / "bundle.onnx", threads=1)
        self.document = classifier.document
        self.images = some_images(self.document.image.shape)
        self.answer = classifier.predict(self.images)
        self.under_way = os.open(folder / "under_way.txt", os.O_WRONLY | os.O_CREAT)
        self.since = time.monotonic()
        self.outcomes: Counter[str] = Counter()
        self.failures: list[str] = []

    def damaged(self, number: int) -> tuple[str, bytes]:
        """What was done to the sound file, and the file that came of it."""
        if self.way == "made":
            return self.made[number].stem, self.made[number].read_bytes()
        rng = random.Random(f"{self.way} {number}")
        if self.way == "damaged":
            kind = rng.choice((*ANY_PART, edit_document))
            return kind.__name__, kind(rng, self.bundle, self.foreign)
        files = [without_entry(self.bundle, METADATA_KEY), self.foreign]
        if self.way == "foreign" and number % 2:
            files.reverse()
        kind = edit_fields if rng.random() < 0.7 else rng.choice(ANY_PART)
        content = kind(rng, *files)
        if self.way == "sealed":
            try:
                content = seal(content, self.document.to_json())
            except (LockstepError, UnicodeDecodeError):  # it cannot be read: nobody can seal it
                content = with_entry(content, METADATA_KEY, "{}")
        return kind.__name__, content

    def open(self, number: int, path: Path) -> str:
        """The outcome; whatever it raises is a failure."""
        description = None
        if self.way == "foreign":
            mean = (0.5,) if number % 2 else None
            description = Description(self.document.class_names, mean=mean, std=mean)
        try:
            classifier = Classifier(path, threads=1, description=description)
        except BundleError as error:
            check_message(error, path)
            return "refused"
        images, shape = self.images, classifier.document.image.shape
        if shape != self.document.image.shape:
            if math.prod(shape) > 2**20:
                return "opened, for images too large for a test"
            images = some_images(shape)
        try:
            answer = classifier.predict(images)
        except BundleError as error:
            check_message(error, path)
            return "refused when it ran"
        if self.way == "damaged":
            assert classifier.document == self.document, "another document was accepted"
            np.testing.assert_allclose(answer, self.answer, rtol=0, atol=1e-6)
        return "answered"

    def run(self, number: int) -> None:
        """Open one file and note the outcome."""
        kind, content = self.damaged(number)
        path = self.folder / "damaged.onnx"
        path.write_bytes(content)
        name = f"{self.way} {number} ({kind})"
        os.pwrite(self.under_way, name.ljust(100).encode(), 0)
        self.since = time.monotonic()
        try:
            outcome = self.open(number, path)
        except Exception as error:  # noqa: BLE001
            outcome = "failed"
            self.failures.append(f"{name}: {''.join(traceback.format_exception(error))}")
            path.rename(self.folder / f"{self.way}-{number}.onnx")
        self.outcomes[f"{kind}: {outcome}"] += 1

    def watch(self) -> None:
        """End the process when a file takes too much."""
        while True:
            time.sleep(0.02)
            seconds, memory = time.monotonic() - self.since, peak_memory()
            if seconds > MOST_SECONDS or memory > MOST_MEMORY:
                print(f"took {seconds:.1f} s, {memory / 2**20:.0f} MiB", flush=True)
                os._exit(3)


def some_images(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (2, *shape), dtype=np.uint8)


def check_message(error: BundleError, path: Path) -> None:
    """One line that names the file and says more."""
    message = str(error)
    assert message.startswith(f"{path}: ") and message != f"{path}: ", ascii(message)
    assert message.isprintable(), ascii(message)


def peak_memory() -> int:
    """The most memory of this process so far, in bytes; 0 where Linux does not tell.

    The `ru_maxrss` of a new process would begin with that of the process which started it.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def main(folder: Path, way: str, first: int, count: int) -> None:
    fuzzer = Fuzzer(folder, way)
    threading.Thread(target=fuzzer.watch, daemon=True).start()
    for number in range(first, first + count):
        fuzzer.run(number)
    result = {
        "outcomes": dict(sorted(fuzzer.outcomes.items())),
        "failures": fuzzer.failures,
        "memory": peak_memory(),
    }
    (folder / "outcomes.json").write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
