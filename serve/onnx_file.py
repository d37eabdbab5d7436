"""An ONNX file as bytes: its outline, and what makes it unfit to load, before it is loaded.

The few parts of the protobuf wire format that ONNX uses are read here, without copying a tensor, so
that a file which is cut off, claims more than it holds, or reaches outside itself is refused before
a runtime spends memory on it. Field numbers are those of `onnx.proto`:
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from serve.command import LockstepError
from serve.protobuf import BYTES, Field, ProtobufError, encode, fields, varint

MAX_BYTES = 2**31 - 1
"""The largest message that protobuf can hold."""

OPSETS = range(7, 27)
"""Versions of the standard operators that an onnxruntime release has had the last word on."""

STANDARD_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
MAX_DIMENSIONS = 64
MAX_DEPTH = 8
"""Graphs within graphs (branches and loops) are followed so far."""

MAX_WINDOW = 2**15
"""The largest kernel, stride, dilation or padding: a larger one only asks for memory."""

_WINDOWS = {"kernel_shape", "strides", "dilations", "pads", "output_padding", "output_shape"}

_BITS = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64,
    15: 128, 16: 16, 17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2,
}  # fmt: skip
"""Size of an element by TensorProto.DataType; strings (8) have none."""

TYPE_NAMES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 10: "float16",
              11: "float64"}  # fmt: skip

_FEWEST_BYTES = {4: 4, 5: 1, 6: 1, 7: 1, 10: 8, 11: 1}
"""Of an entry in each of a tensor's typed fields; varints take one byte at least."""


class OnnxFileError(LockstepError):
    """A file that is no sound, self-contained ONNX model."""


@dataclass(frozen=True)
class TensorInfo:
    """Name, element type and shape of an input or output; a dimension is a number or a name."""

    name: str
    element: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class NodeInfo:
    """An operator and the names of the tensors that it takes."""

    operator: str
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class OnnxFile:
    """The outline of a model.

    Attributes:
        ir_version, opset: versions of the file format and of the standard operators.
        inputs: without those that have a value in the file.
        outputs: in the graph's order.
        operators: how often each operator occurs.
        makers: by the name of a tensor, the node of the outermost graph that makes it.
        parameters: numbers in the initializers.
        metadata: the entries of `metadata_props`.
    """

    ir_version: int
    opset: int
    producer: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    operators: Mapping[str, int]
    makers: Mapping[str, NodeInfo]
    parameters: int
    metadata: Mapping[str, str]

    @property
    def last_operator(self) -> str:
        """The operator that makes the first output; "" if none does."""
        maker = self.makers.get(self.outputs[0].name) if self.outputs else None
        return maker.operator if maker else ""


def read_file(path: Path) -> bytes:
    """The content of a model file.

    Raises:
        OnnxFileError: no such file, empty, or larger than any ONNX file can be.
    """
    if not path.is_file():
        raise OnnxFileError("no such bundle; expected a path to a model.onnx")
    size = path.stat().st_size
    if not 0 < size <= MAX_BYTES:
        raise OnnxFileError(
            f"expected an ONNX file of 1 to {MAX_BYTES:,} bytes, got {size:,} bytes"
        )
    return path.read_bytes()


def outline(content: bytes) -> OnnxFile:
    """Read a model's outline.

    Raises:
        OnnxFileError: the content is cut off or no ONNX model; it keeps tensors in other files, has
            tensors whose data do not fill their shape, windows beyond any image, operators outside
            the standard, an unknown opset, or a part that only training needs.
    """
    try:
        return _model(memoryview(content))
    except ProtobufError as error:
        raise OnnxFileError(str(error)) from None


def without_entry(content: bytes, key: str) -> bytes:
    """The file without its metadata entry `key`; all other bytes stay as they are."""
    data = memoryview(content)
    kept, start = [], 0
    for field in fields(data):
        if field.number == 14 and _entry(field.bytes("metadata"))[0] == key:
            kept.append(data[start : field.start])
            start = field.end
    return b"".join([*kept, data[start:]])


def with_entry(content: bytes, key: str, value: str) -> bytes:
    """The file with one more metadata entry at its end."""
    entry = encode(1, key.encode()) + encode(2, value.encode())
    return content + encode(14, entry)


def _entry(data: memoryview) -> tuple[str, str]:
    """Key and value of a StringStringEntryProto."""
    texts = {1: "", 2: ""}
    for field in fields(data):
        if field.number in texts:
            texts[field.number] = field.text("metadata")
    return texts[1], texts[2]


def _model(data: memoryview) -> OnnxFile:
    ir_version, producer = 0, ""
    opsets: dict[str, int] = {}
    metadata: dict[str, str] = {}
    graph: _Graph | None = None
    for field in fields(data):
        match field.number:
            case 1:
                ir_version = field.integer("ir_version")
            case 2:
                producer = field.text("producer_name")
            case 7:
                if graph is not None:
                    raise OnnxFileError("damaged: it holds two graphs")
                graph = _graph(field.bytes("graph"), 0)
            case 8:
                domain, version = _opset(field.bytes("opset_import"))
                opsets[domain] = version
            case 14:
                key, value = _entry(field.bytes("metadata"))
                if key in metadata:
                    raise OnnxFileError(f"damaged: metadata entry {key!r:.80} occurs twice")
                metadata[key] = value
            case 20:
                raise OnnxFileError("holds training information, expected a model for inference")
            case 25:
                _functions(field.bytes("functions"))
    if graph is None:
        raise OnnxFileError("not an ONNX model: it holds no graph")
    standard = {opsets[name] for name in ("", "ai.onnx") if name in opsets}
    opset = max(standard, default=0)
    if len(standard) > 1:
        raise OnnxFileError(f"damaged: it asks for opsets {sorted(standard)} at once")
    if opset not in OPSETS:
        raise OnnxFileError(
            f"expected operators of opset {OPSETS[0]} to {OPSETS[-1]}, got opset {opset}"
        )
    return OnnxFile(
        ir_version=ir_version,
        opset=opset,
        producer=producer,
        inputs=tuple(item for item in graph.inputs if item.name not in graph.initializers),
        outputs=tuple(graph.outputs),
        operators=dict(sorted(graph.operators.items())),
        makers=graph.makers,
        parameters=graph.parameters,
        metadata=metadata,
    )


class _Graph:
    """What is gathered while a graph is read."""

    def __init__(self) -> None:
        self.inputs: list[TensorInfo] = []
        self.outputs: list[TensorInfo] = []
        self.initializers: set[str] = set()
        self.operators: Counter[str] = Counter()
        self.makers: dict[str, NodeInfo] = {}
        self.parameters = 0


def _graph(data: memoryview, depth: int) -> _Graph:
    if depth > MAX_DEPTH:
        raise OnnxFileError(f"graphs within graphs, more than {MAX_DEPTH} deep")
    graph = _Graph()
    for field in fields(data):
        match field.number:
            case 1:
                _node(field.bytes("node"), graph, depth)
            case 5:
                name, elements = _tensor(field.bytes("initializer"))
                graph.initializers.add(name)
                graph.parameters += elements
            case 11:
                graph.inputs.append(_value(field.bytes("input")))
            case 12:
                graph.outputs.append(_value(field.bytes("output")))
            case 15:
                raise OnnxFileError("holds sparse tensors, expected dense ones")
    return graph


def _functions(data: memoryview) -> None:
    """Operators that the file defines itself: their nodes are held to the same rules."""
    for field in fields(data):
        if field.number == 7:
            _node(field.bytes("node"), _Graph(), 0)
        elif field.number == 11:
            _attribute(field.bytes("attribute"), _Graph(), 0)


def _node(data: memoryview, graph: _Graph, depth: int) -> None:
    operator, domain = "", ""
    inputs, outputs = [], []
    for field in fields(data):
        match field.number:
            case 1:
                inputs.append(field.text("input"))
            case 2:
                outputs.append(field.text("output"))
            case 4:
                operator = field.text("op_type")
            case 5:
                _attribute(field.bytes("attribute"), graph, depth)
            case 7:
                domain = field.text("domain")
    if domain not in STANDARD_DOMAINS:
        name = f"{domain:.80}.{operator:.80}".encode("unicode_escape").decode()
        raise OnnxFileError(f"needs operators outside the ONNX standard: {name}")
    graph.operators[operator] += 1
    graph.makers.update(dict.fromkeys(outputs, NodeInfo(operator, tuple(inputs))))


def _attribute(data: memoryview, graph: _Graph, depth: int) -> None:
    seen = set()
    name, largest = "", 0
    for field in fields(data):
        if field.number in (5, 6) and field.number in seen:  # they would be merged into one
            raise OnnxFileError("damaged: an attribute holds two values")
        seen.add(field.number)
        match field.number:
            case 1:
                name = field.text("attribute")
            case 8:
                largest = max(largest, *map(abs, _integers(field)), 0)
            case 5 | 10:
                _tensor(field.bytes("tensor"))
            case 6 | 11:
                inner = _graph(field.bytes("graph"), depth + 1)
                graph.operators += inner.operators
                graph.parameters += inner.parameters
            case 22 | 23:
                raise OnnxFileError("holds sparse tensors, expected dense ones")
    if name in _WINDOWS and largest > MAX_WINDOW:
        raise OnnxFileError(f"asks for {name} of {largest:,}, expected {MAX_WINDOW:,} at most")


def _tensor(data: memoryview) -> tuple[str, int]:
    """Name and number of elements of a tensor whose data are here and fill its shape."""
    name, kind, held, external = "", 0, 0, False
    dims: list[int] = []
    for field in fields(data):
        match field.number:
            case 1:
                dims += _integers(field)
                if len(dims) > MAX_DIMENSIONS:
                    raise OnnxFileError(f"holds a tensor of more than {MAX_DIMENSIONS} dimensions")
            case 2:
                kind = field.integer("data_type")
            case 8:
                name = field.text("name")
            case 9:
                held += len(field.bytes("raw_data")) * 8
            case 13:
                external = True
            case 14:
                external = external or field.integer("data_location") == 1
            case number if number in _FEWEST_BYTES:
                # An element that is not packed has a field of its own.
                size = len(field.value) if isinstance(field.value, memoryview) else 1
                packed = field.wire == BYTES and number != 6
                entries = size // _FEWEST_BYTES[number] if packed else 1
                # What is smaller than a byte is stored by the byte.
                held += entries * max(8, _BITS.get(kind, 8))
    if external:
        raise OnnxFileError(
            f"keeps tensor {name!r:.80} in another file; expected one file that holds everything"
        )
    if kind != 8 and kind not in _BITS:
        raise OnnxFileError(f"damaged: tensor {name!r:.80} is of unknown type {kind}")
    if any(size < 0 for size in dims):
        raise OnnxFileError(f"damaged: tensor {name!r:.80} has the shape {dims!r:.80}")
    elements = math.prod(dims)
    # A last byte may be filled up; varints are counted by their shortest form.
    if elements * _BITS.get(kind, 8) > held + 7:
        raise OnnxFileError(
            f"tensor {name!r:.80} claims the shape {dims!r:.80} and holds {held // 8:,} bytes"
        )
    return name, elements


def _integers(field: Field) -> list[int]:
    """A repeated int64: one number, or many packed into bytes."""
    if field.wire != BYTES:
        return [field.integer("dims")]
    data, numbers, position = field.bytes("dims"), [], 0
    while position < len(data):
        value, position = varint(data, position)
        numbers.append(value - 2**64 if value >= 2**63 else value)
    return numbers


def _opset(data: memoryview) -> tuple[str, int]:
    domain, version = "", 0
    for field in fields(data):
        if field.number == 1:
            domain = field.text("domain")
        elif field.number == 2:
            version = field.integer("version")
    return domain, version


def _value(data: memoryview) -> TensorInfo:
    """A ValueInfoProto of a tensor."""
    name, element = "", ""
    shape: tuple[int | str, ...] = ()
    for field in fields(data):
        if field.number == 1:
            name = field.text("name")
        elif field.number == 2:
            element, shape = _type(field.bytes("type"))
    return TensorInfo(name, element, shape)


def _type(data: memoryview) -> tuple[str, tuple[int | str, ...]]:
    element = ""
    shape: list[int | str] = []
    for field in fields(data):
        if field.number != 1:
            return "no tensor", ()
        for part in fields(field.bytes("tensor_type")):
            if part.number == 1:
                kind = part.integer("elem_type")
                element = TYPE_NAMES.get(kind, f"type {kind}")
            elif part.number == 2:
                shape = [
                    _dimension(dimension.bytes("dim"))
                    for dimension in fields(part.bytes("shape"))
                    if dimension.number == 1
                ]
    return element, tuple(shape)


def _dimension(data: memoryview) -> int | str:
    for field in fields(data):
        if field.number == 1:
            return field.integer("dim_value")
        if field.number == 2:
            return field.text("dim_param")
    return "?"
