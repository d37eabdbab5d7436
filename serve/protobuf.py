"""The wire format of protocol buffers: as much of it as reading an ONNX file's outline takes.

Nothing is copied and nothing is believed: a length that runs beyond the data is an error.
https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Iterator
from typing import NamedTuple

from serve.command import LockstepError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
LARGEST_NUMBER = 2**29 - 1
MOST_FIELDS = 1_000_000
"""In one message; each costs some hundred bytes while it is looked at."""


class ProtobufError(LockstepError):
    """Bytes that are no message, or a field of another kind than expected."""


class Field(NamedTuple):
    """One field of a message; `start` and `end` include its tag."""

    number: int
    wire: int
    value: int | memoryview
    start: int
    end: int

    def bytes(self, what: str) -> memoryview:
        """A message or text; `what` names it in errors."""
        if not isinstance(self.value, memoryview):
            raise ProtobufError(f"damaged: expected {what} to be a message")
        return self.value

    def text(self, what: str) -> str:
        try:
            return str(self.bytes(what), "utf-8")
        except UnicodeDecodeError:
            raise ProtobufError(f"damaged: expected {what} to be text") from None

    def integer(self, what: str) -> int:
        """A varint as int64."""
        if not isinstance(self.value, int):
            raise ProtobufError(f"damaged: expected {what} to be a number")
        return self.value - 2**64 if self.value >= 2**63 else self.value


def fields(data: memoryview) -> Iterator[Field]:
    """The fields of a message, in their order.

    Raises:
        ProtobufError: the bytes are cut off or are no message.
    """
    position, size, count = 0, len(data), 0
    while position < size:
        count += 1
        if count > MOST_FIELDS:
            raise ProtobufError(f"a message of more than {MOST_FIELDS:,} fields")
        start = position
        tag, position = varint(data, position)
        number, wire = tag >> 3, tag & 7
        value: int | memoryview
        if wire == VARINT:
            value, position = varint(data, position)
        elif wire == BYTES:
            length, position = varint(data, position)
            if length > size - position:
                raise ProtobufError(
                    f"cut off: {length:,} bytes announced, {size - position:,} there"
                )
            value = data[position : position + length]
            position += length
        elif wire in (FIXED32, FIXED64):
            length = 4 if wire == FIXED32 else 8
            if length > size - position:
                raise ProtobufError("cut off in the middle of a number")
            value = data[position : position + length]
            position += length
        else:
            raise ProtobufError("not an ONNX model: its bytes do not parse")
        if not 0 < number <= LARGEST_NUMBER:  # other readers cut off the upper bits
            raise ProtobufError("not an ONNX model: its bytes do not parse")
        yield Field(number, wire, value, start, position)


def varint(data: memoryview, position: int) -> tuple[int, int]:
    """The number at `position` and the position behind it."""
    result = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise ProtobufError("cut off in the middle of a number")
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & (2**64 - 1), position
    raise ProtobufError("not an ONNX model: its bytes do not parse")


def encode(number: int, value: bytes) -> bytes:
    """A length-delimited field."""
    return _encode_varint(number << 3 | BYTES) + _encode_varint(len(value)) + value


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
