"""The Open Inference Protocol v2: requests and answers as bytes. Pure functions.

JSON, and the binary tensor extension: a JSON part whose length is in the header
`Inference-Header-Content-Length`, then the tensors, little-endian, in the order in which they are
named. The input is `image`: UINT8 pixels `[batch, height, width, channels]`, or BYTES `[batch]`,
encoded images (in binary each behind its length of 4 bytes; in JSON as base64). The output is
`probabilities`: FP32 `[batch, classes]`; with the classification extension BYTES
`[batch, k]`, "probability:index:label".

Source: github.com/kserve/open-inference-protocol, and the extensions in the documentation of
Triton Inference Server.
"""

import base64
import binascii
import dataclasses
import math
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from serve.bundle import INPUT, OUTPUT
from serve.command import LockstepError
from serve.http.limits import Limits

HEADER_LENGTH = "Inference-Header-Content-Length"
SHORT = 512
"""Bytes of JSON that are remembered with what they mean."""

LOWEST_PRIORITY = 9
DEFAULT_PRIORITY = 5
DATATYPES = ("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
             "FP16", "FP32", "FP64", "BF16", "BYTES")  # fmt: skip

_UNIMPORTANT = bytes(set(range(256)) - set(b'"[]{}'))
_STEPS = np.zeros(256, np.int8)
_STEPS[list(b"[{")] = 1
_STEPS[list(b"]}")] = -1


class ProtocolError(LockstepError):
    """A request that the protocol does not allow."""


@dataclasses.dataclass(frozen=True)
class Output:
    """How the client wants the answer.

    Attributes:
        binary: in binary form, not as JSON.
        classification: so many labels instead of all probabilities; 0 for the probabilities.
    """

    binary: bool
    classification: int = 0


@dataclasses.dataclass(frozen=True)
class InferRequest:
    """A request that keeps every rule.

    Attributes:
        images: uint8 `[batch, height, width, channels]`, or encoded images.
        outputs: none asks for all there are, which is one.
        priority: 1 goes first, `LOWEST_PRIORITY` last.
        timeout: seconds that it may take, or None.
    """

    id: str
    images: NDArray[np.uint8] | list[bytes]
    outputs: tuple[Output, ...]
    priority: int
    timeout: float | None


def read_json(content: bytes, limits: Limits) -> Any:
    """The value in a JSON text that is neither too large nor too deep.

    Raises:
        ProtocolError: it is, or it is no JSON.
    """
    if len(content) > limits.max_json:
        raise ProtocolError(
            f"expected at most {limits.max_json} bytes of JSON, got {len(content)}; send large "
            "tensors in binary form"
        )
    if _depth_may_exceed(content, limits.max_json_depth):
        raise ProtocolError(f"JSON nested deeper than {limits.max_json_depth}")
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise ProtocolError(f"expected JSON: {error}") from None


def _depth_may_exceed(content: bytes, most: int) -> bool:
    if content.count(b"[") + content.count(b"{") <= most:
        return False
    # Whole arrays at once: what a hostile text can make this cost is a few times its size.
    text = content.replace(rb"\\", b"").replace(rb"\"", b"").translate(None, _UNIMPORTANT)
    marks = np.frombuffer(text, np.uint8)
    in_text = np.cumsum(marks == ord('"'), dtype=np.uint8) % 2  # modulo 256 does no harm
    depth = np.cumsum(_STEPS[marks] * (1 - in_text), dtype=np.int32)
    return int(depth.max(initial=0)) > most


def read_infer_request(
    body: bytes,
    header_length: str | None,
    image_shape: tuple[int, int, int],
    classes: int,
    limits: Limits,
) -> InferRequest:
    """Read and check an inference request.

    Args:
        header_length: the header `Inference-Header-Content-Length`, if there was one.
        image_shape: height, width and channels that the model takes.

    Raises:
        ProtocolError: saying what was expected and what came.
    """
    length = _json_length(header_length, len(body))
    # Many requests in binary form begin alike, to the last byte.
    read = _read_head_again if length <= SHORT and length < len(body) else _read_head
    head = read(body[:length], image_shape, classes, limits)
    return InferRequest(
        id=head.id,
        images=_read_images(head, body, length),
        outputs=head.outputs,
        priority=head.priority,
        timeout=head.timeout,
    )


@dataclasses.dataclass(frozen=True)
class _Head:
    """The JSON part of a request that keeps every rule; the tensor may lie behind it.

    Attributes:
        size: bytes that the tensor has there; None if it is `data`.
        data: the tensor as JSON.
    """

    id: str
    datatype: str
    shape: tuple[int, ...]
    size: int | None
    data: Any
    outputs: tuple[Output, ...]
    priority: int
    timeout: float | None


def _read_head(
    content: bytes, image_shape: tuple[int, int, int], classes: int, limits: Limits
) -> _Head:
    document = _object(read_json(content, limits), "the request")
    # The path says which model it is; KServe's client says it here again.
    _only(document, ("id", "model_name", "parameters", "inputs", "outputs"), "the request")
    parameters = _parameters(document)
    identity = "" if document.get("id") is None else document["id"]
    if not isinstance(identity, str):
        raise ProtocolError(f"id: expected text, got {_shown(identity)}")
    datatype, shape, size, data = _read_input(document.get("inputs"), image_shape, limits)
    return _Head(
        id=identity,
        datatype=datatype,
        shape=shape,
        size=size,
        data=data,
        outputs=_read_outputs(document, parameters, classes, limits),
        priority=_priority(parameters),
        timeout=_timeout(parameters),
    )


_read_head_again = lru_cache(maxsize=256)(_read_head)


def write_infer_response(
    request: InferRequest,
    model: str,
    version: str,
    class_names: Sequence[str],
    probabilities: NDArray[np.float32],
) -> tuple[bytes, int | None]:
    """The answer's body, and the length of its JSON part if tensors in binary form follow."""
    outputs, tensors = [], []
    for output in request.outputs:
        if output.classification:
            texts = _classes(probabilities, class_names, output.classification)
            shape, datatype = [len(texts), output.classification], "BYTES"
            data: Any = [text for row in texts for text in row]
            tensor = write_bytes_tensor([text.encode() for text in data]) if output.binary else b""
        else:
            shape, datatype = list(probabilities.shape), "FP32"
            data = probabilities.ravel()
            tensor = data.astype("<f4", copy=False).tobytes() if output.binary else b""
        described: dict[str, Any] = {"name": OUTPUT, "datatype": datatype, "shape": shape}
        if output.binary:
            described["parameters"] = {"binary_data_size": len(tensor)}
            tensors.append(tensor)
        else:
            described["data"] = data
        outputs.append(described)
    document = {"model_name": model, "model_version": version, "outputs": outputs}
    if request.id:
        document["id"] = request.id
    content = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return b"".join([content, *tensors]), len(content) if tensors else None


def write_bytes_tensor(elements: Sequence[bytes]) -> bytes:
    """A BYTES tensor in binary form: each element behind its length of 4 bytes."""
    return b"".join(part for item in elements for part in (struct.pack("<I", len(item)), item))


def read_bytes_tensor(content: bytes, count: int, position: int = 0) -> list[bytes]:
    """The `count` elements of a BYTES tensor in binary form.

    Args:
        position: where in `content` it begins; it ends where `content` does.

    Raises:
        ProtocolError: the lengths in it do not add up.
    """
    elements = []
    for number in range(count):
        if position + 4 > len(content):
            raise ProtocolError(f"expected {count} elements of BYTES, got {number}")
        (size,) = struct.unpack_from("<I", content, position)
        position += 4
        if position + size > len(content):
            raise ProtocolError(
                f"element {number} of BYTES claims {size} bytes; {len(content) - position} are left"
            )
        elements.append(content[position : position + size])
        position += size
    if position != len(content):
        raise ProtocolError(
            f"{len(content) - position} bytes are left behind {count} elements of BYTES"
        )
    return elements


def _json_length(header_length: str | None, size: int) -> int:
    if header_length is None:
        return size
    is_number = header_length.isascii() and header_length.isdigit() and len(header_length) <= 18
    if not is_number or int(header_length) > size:
        raise ProtocolError(
            f"{HEADER_LENGTH}: expected a number of bytes of the body's {size}, "
            f"got {header_length[:40]!r}"
        )
    return int(header_length)


def _read_input(
    inputs: object, image_shape: tuple[int, int, int], limits: Limits
) -> tuple[str, tuple[int, ...], int | None, Any]:
    """Datatype, shape, bytes in binary form or None, and the data as JSON."""
    tensor = _only_tensor(inputs, "input", INPUT, limits)
    _only(tensor, ("name", "shape", "datatype", "parameters", "data"), f"input {INPUT}")
    datatype, shape = tensor.get("datatype"), _shape(tensor.get("shape"))
    if datatype not in ("UINT8", "BYTES"):
        known = isinstance(datatype, str) and datatype in DATATYPES
        wrong = "got" if known else "got the unknown"
        raise ProtocolError(
            f"input {INPUT}: expected datatype UINT8 (pixels) or BYTES (encoded images), {wrong} "
            f"{_shown(datatype)}"
        )
    expected = [image_shape] if datatype == "UINT8" else [(), (1,)]
    if not shape or shape[1:] not in expected:
        wanted = ", ".join(map(str, ("batch", *image_shape))) if datatype == "UINT8" else "batch"
        raise ProtocolError(
            f"input {INPUT}: expected {datatype} of shape [{wanted}], got {_shown(list(shape))}"
        )
    if not 1 <= shape[0] <= limits.max_images:
        raise ProtocolError(
            f"input {INPUT}: expected 1 to {limits.max_images} images in a request, got {shape[0]}"
        )
    size = _parameters(tensor).get("binary_data_size")
    if (size is None) == ("data" not in tensor):
        raise ProtocolError(f"input {INPUT}: expected either data or binary_data_size")
    return str(datatype), shape, size, tensor.get("data")


def _read_images(head: _Head, body: bytes, position: int) -> NDArray[np.uint8] | list[bytes]:
    shape, size, left = head.shape, head.size, len(body) - position
    if (0 if size is None else size) != left or isinstance(size, bool):
        raise ProtocolError(
            f"input {INPUT}: binary_data_size is {_shown(size)}, and {left} bytes follow the JSON"
        )
    if size is None:
        return _read_data(head.data, head.datatype, shape)
    if head.datatype == "BYTES":
        return read_bytes_tensor(body, shape[0], position)
    if size != math.prod(shape):
        raise ProtocolError(
            f"input {INPUT}: shape {list(shape)} is {math.prod(shape)} bytes of UINT8, got {size}"
        )
    return np.frombuffer(body, np.uint8, offset=position).reshape(shape)


def _only_tensor(tensors: object, kind: str, name: str, limits: Limits) -> dict[str, Any]:
    """The tensor in a list of one, of this name."""
    if not isinstance(tensors, list):
        raise ProtocolError(f"{kind}s: expected a list of tensors, got {_shown(tensors)}")
    if len(tensors) > limits.max_tensors:
        raise ProtocolError(f"expected at most {limits.max_tensors} {kind}s, got {len(tensors)}")
    names = [_object(item, f"an {kind}").get("name") for item in tensors]
    if names != [name]:
        raise ProtocolError(f"expected one {kind}, {name!r}, got {_shown(names)}")
    return dict(tensors[0])


def _read_data(data: Any, datatype: str, shape: tuple[int, ...]) -> NDArray[np.uint8] | list[bytes]:
    """A tensor that is written as JSON, flat or nested."""
    if not isinstance(data, list):
        raise ProtocolError(f"input {INPUT}: expected data to be a list, got {_shown(data)}")
    expected = f"input {INPUT}: expected data of shape {list(shape)}, or flat"
    if len(data) not in (shape[0], math.prod(shape)):
        raise ProtocolError(f"{expected}, got a list of {len(data)}")
    if datatype == "BYTES":  # not through numpy: it gives every text the room of the longest
        if len(shape) == 2 and all(isinstance(item, list) and len(item) == 1 for item in data):
            data = [text for (text,) in data]
        return [_base64(text) for text in data]
    if isinstance(data[0], list):
        for size in shape[1:]:
            if any(not isinstance(item, list) or len(item) != size for item in data):
                raise ProtocolError(f"{expected}, got lists of other lengths")
            data = list(chain.from_iterable(data))
    if len(data) != math.prod(shape):
        raise ProtocolError(f"{expected}, got a list of {len(data)}")
    # Looked at before numpy sees it, which would give every text the room of the longest.
    if set(map(type, data)) != {int} or min(data) < 0 or max(data) > 255:
        raise ProtocolError(f"input {INPUT}: expected whole numbers from 0 to 255 as UINT8")
    return np.frombuffer(bytes(data), np.uint8).reshape(shape)


def _base64(text: object) -> bytes:
    try:
        if not isinstance(text, str):
            raise binascii.Error(f"got {_shown(text)}")
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ProtocolError(
            f"input {INPUT}: expected each element of BYTES as base64 text: {error}"
        ) from None


def _read_outputs(
    document: Mapping[str, Any], parameters: Mapping[str, Any], classes: int, limits: Limits
) -> tuple[Output, ...]:
    binary = _flag(parameters, "binary_data_output", False)
    outputs = document.get("outputs")
    if outputs is None or outputs == []:
        return (Output(binary),)
    output = _only_tensor(outputs, "output", OUTPUT, limits)
    _only(output, ("name", "parameters"), f"output {OUTPUT}")
    asked = _parameters(output)
    _check_memory(asked)
    number = asked.get("classification", 0)
    if not _is_integer(number) or number < 0:
        raise ProtocolError(f"classification: expected a number of classes, got {_shown(number)}")
    return (Output(_flag(asked, "binary_data", binary), min(number, classes)),)


def _classes(
    probabilities: NDArray[np.float32], class_names: Sequence[str], most: int
) -> list[list[str]]:
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :most]
    return [
        [f"{row[index]!s}:{index}:{class_names[index]}" for index in indices]
        for row, indices in zip(probabilities, best, strict=True)
    ]


def _priority(parameters: Mapping[str, Any]) -> int:
    priority = parameters.get("priority", 0)
    if not _is_integer(priority) or not 0 <= priority <= LOWEST_PRIORITY:
        raise ProtocolError(
            f"priority: expected 1 (first) to {LOWEST_PRIORITY}, or 0 for {DEFAULT_PRIORITY}, got "
            f"{_shown(priority)}"
        )
    return int(priority) or DEFAULT_PRIORITY


def _timeout(parameters: Mapping[str, Any]) -> float | None:
    timeout = parameters.get("timeout", 0)
    if not _is_integer(timeout) or not 0 <= timeout < 2**63:
        raise ProtocolError(f"timeout: expected microseconds, got {_shown(timeout)}")
    return timeout / 1e6 if timeout else None


def _flag(parameters: Mapping[str, Any], name: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise ProtocolError(f"{name}: expected true or false, got {_shown(value)}")
    return value


def _check_memory(parameters: Mapping[str, Any]) -> None:
    if any(name.startswith("shared_memory") for name in parameters):
        raise ProtocolError("tensors in shared memory are not supported; send them")


def _shape(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(map(_is_integer, value)) or len(value) > 8:
        raise ProtocolError(f"shape: expected a list of whole numbers, got {_shown(value)}")
    return tuple(value)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _parameters(document: Mapping[str, Any]) -> dict[str, Any]:
    """Of a request or a tensor; some clients write null where they have none."""
    parameters = document.get("parameters")
    return {} if parameters is None else _object(parameters, "parameters")


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ProtocolError(f"{what}: expected a JSON object, got {_shown(value)}")
    return value


def _only(document: Mapping[str, Any], names: Sequence[str], what: str) -> None:
    unknown = [name for name in document if name not in names]
    if unknown:
        raise ProtocolError(f"{what}: unknown field {_shown(unknown[0])}")


def _shown(value: object) -> str:
    """A value from outside, short enough for an error, however long or deep it is."""
    if isinstance(value, dict):
        return f"an object of {len(value)}"
    if isinstance(value, list) and (
        len(value) > 8 or any(isinstance(item, list | dict) for item in value)
    ):
        return f"a list of {len(value)}"
    return f"{value!r:.80}"
