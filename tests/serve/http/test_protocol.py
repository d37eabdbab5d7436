"""The protocol v2 as pure functions: what is a request, what is none, and what an answer is."""

import base64
import contextlib
import copy
import json
import random
import re
import struct
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from serve.http.limits import Limits
from serve.http.protocol import (
    DATATYPES,
    DEFAULT_PRIORITY,
    LOWEST_PRIORITY,
    InferRequest,
    Output,
    ProtocolError,
    read_bytes_tensor,
    read_infer_request,
    read_json,
    write_bytes_tensor,
    write_infer_response,
)

SHAPE = (2, 3, 1)
SIZE = 6
CLASSES = ("ant", "bee: a: fly", "Käfer")
LIMITS = Limits()
HOSTILE_BYTES = 4 * 2**20
MUTATIONS = 6000

Json = dict[str, Any]


# Requests


def pixels(count: int = 2) -> NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, *SHAPE), np.uint8)


def tensor(**changes: Any) -> Json:
    """Two images as JSON; a change to None leaves the field out."""
    images = pixels()
    fields = {"name": "image", "shape": list(images.shape), "datatype": "UINT8",
              "data": images.ravel().tolist(), **changes}  # fmt: skip
    return {name: value for name, value in fields.items() if value is not None}


def document(*, image: Json | None = None, **fields: Any) -> Json:
    return {"inputs": [image or tensor()], **fields}


def read(
    content: Json | bytes,
    binary: bytes = b"",
    *,
    header: str | None = None,
    limits: Limits = LIMITS,
) -> InferRequest:
    """The request in JSON, followed by tensors in binary form if there are any."""
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    if binary and header is None:
        header = str(len(text))
    return read_infer_request(text + binary, header, SHAPE, len(CLASSES), limits)


def read_tensor(data: Any = None, binary: bytes = b"", **changes: Any) -> Any:
    """What is read of one tensor in one form or the other."""
    if binary:
        changes["parameters"] = {"binary_data_size": len(binary)}
    return read(document(image=tensor(data=data, **changes)), binary).images


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(ProtocolError) as caught:
        read(*arguments, **options)
    return str(caught.value)


def tensor_refusal(data: Any = None, binary: bytes = b"", **changes: Any) -> str:
    with pytest.raises(ProtocolError) as caught:
        read_tensor(data, binary, **changes)
    return str(caught.value)


# Pixels


def test_pixels_are_the_same_flat_nested_and_binary() -> None:
    images = pixels()
    forms = [
        read_tensor(images.ravel().tolist()),
        read_tensor(images.tolist()),
        read_tensor(None, images.tobytes()),
    ]
    for found in forms:
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, images)


def test_every_value_of_a_byte_arrives() -> None:
    values = np.arange(258, dtype=np.int64) % 256
    expected = values.astype(np.uint8).reshape(43, *SHAPE)
    for data in (values.tolist(), values.reshape(43, *SHAPE).tolist()):
        np.testing.assert_array_equal(read_tensor(data, shape=[43, *SHAPE]), expected)


@pytest.mark.parametrize("value", [-1, 256, 2**31, 2**63, 2**64, -(2**63), 0.5, 1.0, "1", None, {}])
def test_other_values_than_those_of_a_byte_are_refused(value: Any) -> None:
    data = [*[0] * (2 * SIZE - 1), value]
    assert "whole numbers from 0 to 255" in tensor_refusal(data)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "01", "0x1"])
def test_what_is_no_number_in_json_is_refused(text: str) -> None:
    content = json.dumps(document(image=tensor(data="DATA"))).replace(
        '"DATA"', f"[{', '.join([text] * 12)}]"
    )
    with pytest.raises(ProtocolError):
        read(content.encode())


@pytest.mark.parametrize(
    "data",
    [
        [],
        [0] * 11,
        [0] * 13,
        [[0] * 6, [0] * 5],
        [[0] * 6, [0] * 6],  # nested, but not as the shape says
        [[0] * 6, 0],
        [[[[0]] * 2] * 3] * 2,
        [[]] * 12,
        [[0]] * 12,
    ],
)
def test_data_that_do_not_fit_the_shape_are_refused(data: Any) -> None:
    text = tensor_refusal(data)
    assert re.search(r"expected data of shape \[2, 2, 3, 1\]|nested unevenly|whole numbers", text)


@pytest.mark.parametrize("data", ["text", 7, {"0": 0}, True])
def test_data_are_a_list(data: Any) -> None:
    assert "expected data to be a list" in tensor_refusal(data)


@pytest.mark.parametrize("size", [0, 1, 11, 13, -1, 2**60, 1.5, "12", True, None, [12]])
def test_binary_data_must_be_as_long_as_they_claim(size: Any) -> None:
    image = tensor(data=None, parameters={"binary_data_size": size})
    assert "binary_data_size" in refusal(document(image=image), pixels().tobytes())


@pytest.mark.parametrize("count", [0, 6, 11, 13, 18])
def test_binary_pixels_must_fill_the_shape(count: int) -> None:
    image = tensor(data=None, parameters={"binary_data_size": count})
    text = refusal(document(image=image), bytes(count))
    assert "12 bytes of UINT8" in text or "binary_data_size" in text


def test_data_come_in_one_form() -> None:
    both = tensor(parameters={"binary_data_size": 12})
    assert "either data or binary_data_size" in refusal(document(image=both), bytes(12))
    assert "either data or binary_data_size" in refusal(document(image=tensor(data=None)))


def test_nothing_may_follow_json_that_nobody_asked_for() -> None:
    assert "5 bytes follow" in refusal(document(), b"extra")


@pytest.mark.parametrize(
    "header", ["", "-1", "+5", "1e3", "0x10", "٣", "9" * 30, "5, 5", " 5", "999999"]
)
def test_the_length_of_the_json_part_must_be_true(header: str) -> None:
    assert "Inference-Header-Content-Length" in refusal(document(), header=header)


def test_a_json_part_that_is_cut_short_is_refused() -> None:
    size = len(json.dumps(document()))
    for length in range(size):
        with pytest.raises(ProtocolError):
            read(document(), header=str(length))
    assert read(document(), header=str(size)).id == ""


# Encoded images


ENCODED = [b"\x89PNG\r\n", b"", bytes(range(256)), b"\xff\xd8\0"]
TEXTS = [base64.b64encode(item).decode() for item in ENCODED]


def test_encoded_images_are_the_same_in_every_form() -> None:
    column = [[text] for text in TEXTS]
    binary = write_bytes_tensor(ENCODED)
    assert read_tensor(TEXTS, datatype="BYTES", shape=[4]) == ENCODED
    assert read_tensor(TEXTS, datatype="BYTES", shape=[4, 1]) == ENCODED
    assert read_tensor(column, datatype="BYTES", shape=[4, 1]) == ENCODED
    assert read_tensor(None, binary, datatype="BYTES", shape=[4]) == ENCODED
    assert read_tensor(None, binary, datatype="BYTES", shape=[4, 1]) == ENCODED


@pytest.mark.parametrize("item", ["QQ", "Q===", "Q Q=", "QQ==\n", "é", "QQ==\0", "-_-_", 5, None])
@pytest.mark.parametrize("nested", [False, True])
def test_what_is_no_base64_is_refused(item: Any, nested: bool) -> None:
    data = ["QUJD", item]
    shape = [2, 1] if nested else [2]
    text = tensor_refusal([[part] for part in data] if nested else data, datatype="BYTES",
                          shape=shape)  # fmt: skip
    assert "base64" in text


@pytest.mark.parametrize("item", [1234, True, ["QUJD"], {}])
@pytest.mark.parametrize("nested", [False, True])
def test_other_things_than_text_are_no_encoded_image(item: Any, nested: bool) -> None:
    data = ["QUJD", item]
    with pytest.raises(ProtocolError):
        read_tensor(
            [[part] for part in data] if nested else data,
            datatype="BYTES",
            shape=[2, 1] if nested else [2],
        )


@pytest.mark.parametrize(
    ("binary", "expected"),
    [
        (b"\1\0\0", "expected 2 elements of BYTES, got 0"),
        (b"\1\0\0\0a", "expected 2 elements of BYTES, got 1"),
        (b"\2\0\0\0a", "claims 2 bytes; 1 are left"),
        (b"\xff\xff\xff\xffa", "claims 4294967295 bytes; 1 are left"),
        (b"\1\0\0\0a\1\0\0\0bc", "1 bytes are left"),
        (b"\1\0\0\0a\1\0\0\0b\0\0\0\0", "4 bytes are left"),
    ],
)
def test_lengths_of_encoded_images_must_add_up(binary: bytes, expected: str) -> None:
    assert expected in tensor_refusal(None, binary, datatype="BYTES", shape=[2])


def test_bytes_tensors_are_little_endian_and_come_back() -> None:
    assert write_bytes_tensor([b"abc", b""]) == b"\3\0\0\0abc\0\0\0\0"
    assert read_bytes_tensor(write_bytes_tensor(ENCODED), len(ENCODED)) == ENCODED
    assert read_bytes_tensor(b"", 0) == []


@contextlib.contextmanager
def peak_memory() -> Iterator[list[int]]:
    """The most bytes that Python held within the block, once it is over."""
    found: list[int] = []
    tracemalloc.start()
    try:
        yield found
        found.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()


def test_one_long_text_among_many_takes_no_room_for_many() -> None:
    """numpy would give each of them the length of the longest, at 4 bytes a character."""
    texts = ["A" * 400_000, *["QUJD"] * 1023]
    with peak_memory() as peak:
        images = read_tensor(texts, datatype="BYTES", shape=[1024])
    assert len(images) == 1024
    assert len(images[0]) == 300_000
    assert peak[0] < 8 * 2**20


@pytest.mark.parametrize("rest", ["", 7])
def test_a_long_text_among_pixels_takes_no_room_for_many(rest: object) -> None:
    data = ["A" * 400_000, *[rest] * 1023]
    with peak_memory() as peak:
        assert "data" in tensor_refusal(data)
    assert peak[0] < 8 * 2**20


# Tensors


@pytest.mark.parametrize(
    "shape",
    [
        None,
        [],
        [12],
        [2, 6],
        [2, 2, 3],
        [2, 3, 2, 1],
        [2, 2, 3, 1, 1],
        [-1, *SHAPE],
        [0, *SHAPE],
        [2**60, *SHAPE],
        [2**64, *SHAPE],
        [2, -2, -3, 1],
        [2, 2, 3, 1.0],
        [True, *SHAPE],
        ["2", *SHAPE],
        [None, *SHAPE],
        [1] * 100_000,
        "2,2,3,1",
        {"0": 2},
    ],
)
def test_other_shapes_are_refused(shape: Any) -> None:
    text = tensor_refusal(pixels().ravel().tolist(), shape=shape)
    assert re.search(r"expected UINT8 of shape|list of whole numbers|expected 1 to 1024", text)
    assert len(text) < 300


@pytest.mark.parametrize("shape", [[], [1, 2], [2, 1, 1], [0], [-1], [2**60], [1.0]])
def test_other_shapes_of_encoded_images_are_refused(shape: list[Any]) -> None:
    with pytest.raises(ProtocolError):
        read_tensor(["QUJD"], datatype="BYTES", shape=shape)


@pytest.mark.parametrize("datatype", [name for name in DATATYPES if name not in ("UINT8", "BYTES")])
def test_datatypes_that_the_model_does_not_take_are_refused(datatype: str) -> None:
    text = tensor_refusal(pixels().ravel().tolist(), datatype=datatype)
    assert f"expected datatype UINT8 (pixels) or BYTES (encoded images), got '{datatype}'" in text


@pytest.mark.parametrize("datatype", [None, "uint8", "UINT8 ", "FP8", "", 8, [], ["UINT8"], {}])
def test_datatypes_that_nobody_knows_are_called_unknown(datatype: Any) -> None:
    assert "got the unknown" in tensor_refusal(pixels().ravel().tolist(), datatype=datatype)


@pytest.mark.parametrize("name", [None, "", "Image", "image ", "input", 0, [], "i" * 10_000])
def test_the_input_has_one_name(name: Any) -> None:
    text = refusal(document(image=tensor(name=name)))
    assert "expected one input, 'image'" in text
    assert len(text) < 200


@pytest.mark.parametrize("inputs", [None, {}, "image", 1, []])
def test_there_is_one_input(inputs: Any) -> None:
    assert "input" in refusal({"inputs": inputs})
    assert "input" in refusal({})


def test_inputs_are_not_doubled() -> None:
    assert "expected one input, 'image'" in refusal({"inputs": [tensor(), tensor()]})
    assert "expected at most 16 inputs, got 17" in refusal({"inputs": [tensor()] * 17})


@pytest.mark.parametrize("item", [None, 1, "image", [], [tensor()]])
def test_an_input_is_an_object(item: Any) -> None:
    assert "expected a JSON object" in refusal({"inputs": [item]})


def test_unknown_fields_are_refused() -> None:
    assert "unknown field 'output'" in refusal(document(output=[]))
    assert "unknown field 'type'" in refusal(document(image=tensor(type="UINT8")))
    assert "unknown field 'shape'" in refusal(
        document(outputs=[{"name": "probabilities", "shape": [1]}])
    )


def test_images_of_a_request_are_limited() -> None:
    limits = Limits(max_images=1)
    assert "expected 1 to 1 images in a request, got 2" in refusal(document(), limits=limits)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'"text"', b"\xff", b"{}{}",
                                     b"{'inputs': []}", b'{"a": "\xff"}', b'{"\\ud800": 1}',
                                     b"\xef\xbb\xbf{}"])  # fmt: skip
def test_what_is_no_json_object_is_refused(content: bytes) -> None:
    with pytest.raises(ProtocolError, match="expected"):
        read(content)


# Outputs


PROBABILITIES = np.array([[0.1, 0.7, 0.2], [0.25, 0.25, 0.5]], np.float32)


def outputs(*asked: Any, **parameters: Any) -> tuple[Output, ...]:
    return read(document(outputs=list(asked), parameters=parameters)).outputs


def test_every_output_is_given_unless_some_are_chosen() -> None:
    assert read(document()).outputs == (Output(binary=False),)
    assert outputs() == (Output(binary=False),)
    assert outputs(binary_data_output=True) == (Output(binary=True),)
    assert outputs({"name": "probabilities"}) == (Output(binary=False),)
    assert outputs({"name": "probabilities"}, binary_data_output=True) == (Output(binary=True),)


def test_an_output_may_have_a_form_of_its_own() -> None:
    def asked(**parameters: Any) -> Json:
        return {"name": "probabilities", "parameters": parameters}

    assert outputs(asked(binary_data=True)) == (Output(binary=True),)
    assert outputs(asked(binary_data=False), binary_data_output=True) == (Output(binary=False),)
    assert outputs(asked(classification=2)) == (Output(binary=False, classification=2),)
    assert outputs(asked(classification=0)) == (Output(binary=False),)
    most = Output(binary=True, classification=3)
    assert outputs(asked(classification=10**9, binary_data=True)) == (most,)


@pytest.mark.parametrize(
    "asked",
    [
        [{"name": "logits"}],
        [{}],
        [{"name": None}],
        [{"name": "probabilities"}] * 2,
        [{"name": "probabilities"}, {"name": "logits"}],
        [{"name": str(number)} for number in range(16)],
        [{"name": "probabilities"}] * 100_000,
        [None],
        ["probabilities"],
        {"name": "probabilities"},
        "probabilities",
        1,
    ],
)
def test_other_outputs_are_refused(asked: Any) -> None:
    text = refusal(document(outputs=asked))
    assert "output" in text
    assert len(text) < 300


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"classification": -1}, "expected a number of classes, got -1"),
        ({"classification": 1.5}, "expected a number of classes"),
        ({"classification": "3"}, "expected a number of classes"),
        ({"classification": True}, "expected a number of classes"),
        ({"binary_data": 1}, "expected true or false, got 1"),
        ({"binary_data": "true"}, "expected true or false"),
        ({"shared_memory_region": "a", "shared_memory_byte_size": 9}, "shared memory"),
        ([], "expected a JSON object"),
    ],
)
def test_parameters_of_an_output_are_checked(parameters: Any, expected: str) -> None:
    asked = [{"name": "probabilities", "parameters": parameters}]
    assert expected in refusal(document(outputs=asked))


def test_shared_memory_is_refused_for_inputs() -> None:
    image = tensor(data=None, parameters={"shared_memory_region": "a",
                                          "shared_memory_byte_size": 12})  # fmt: skip
    with pytest.raises(ProtocolError):
        read(document(image=image))


# The rest of a request


def test_a_plain_request_has_defaults() -> None:
    found = read(document())
    assert (found.id, found.priority, found.timeout) == ("", DEFAULT_PRIORITY, None)


def test_id_priority_and_timeout_are_read() -> None:
    found = read(document(id="Ä-1", parameters={"priority": 1, "timeout": 1500}))
    assert (found.id, found.priority, found.timeout) == ("Ä-1", 1, 0.0015)
    zero = read(document(parameters={"priority": 0, "timeout": 0}))
    assert (zero.priority, zero.timeout) == (DEFAULT_PRIORITY, None)
    assert read(document(parameters={"priority": LOWEST_PRIORITY})).priority == LOWEST_PRIORITY


def test_parameters_that_are_no_business_of_ours_are_passed_over() -> None:
    ours = {"sequence_id": 7, "sequence_start": True, "sequence_end": False, "team": "blue"}
    assert read(document(parameters=ours)).priority == DEFAULT_PRIORITY


def test_the_model_may_be_named_again_as_kserve_does() -> None:
    np.testing.assert_array_equal(read(document(model_name="letters")).images, pixels())


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"id": 5}, "id: expected text, got 5"),
        ({"parameters": []}, "parameters: expected a JSON object"),
        ({"parameters": {"priority": 10}}, "priority: expected 1 (first) to 9"),
        ({"parameters": {"priority": -1}}, "priority"),
        ({"parameters": {"priority": "1"}}, "priority"),
        ({"parameters": {"priority": True}}, "priority"),
        ({"parameters": {"timeout": -1}}, "timeout: expected microseconds"),
        ({"parameters": {"timeout": 2**63}}, "timeout: expected microseconds"),
        ({"parameters": {"timeout": 0.5}}, "timeout"),
        ({"parameters": {"timeout": "1s"}}, "timeout"),
        ({"parameters": {"binary_data_output": 1}}, "binary_data_output: expected true or false"),
    ],
)
def test_other_fields_are_checked(fields: Json, expected: str) -> None:
    assert expected in refusal(document(**fields))


# Answers


def answer(*asked: Output, id: str = "") -> tuple[Json, bytes]:  # noqa: A002
    """The JSON part of an answer, and what follows it."""
    request = InferRequest(id, pixels(), asked, DEFAULT_PRIORITY, None)
    body, length = write_infer_response(request, "insects", "3", CLASSES, PROBABILITIES)
    assert (length is None) == (not any(output.binary for output in asked))
    return json.loads(body[:length]), body[len(body) if length is None else length :]


def test_an_answer_in_json_has_every_bit() -> None:
    found, rest = answer(Output(binary=False), id="Ä-1")
    assert rest == b""
    (output,) = found.pop("outputs")
    assert found == {"model_name": "insects", "model_version": "3", "id": "Ä-1"}
    data = output.pop("data")
    assert output == {"name": "probabilities", "datatype": "FP32", "shape": [2, 3]}
    assert np.array(data, np.float32).tobytes() == PROBABILITIES.tobytes()


def test_an_answer_in_binary_form_says_its_size() -> None:
    found, rest = answer(Output(binary=True))
    assert "id" not in found
    assert found["outputs"] == [
        {
            "name": "probabilities",
            "datatype": "FP32",
            "shape": [2, 3],
            "parameters": {"binary_data_size": 24},
        }
    ]
    assert rest == struct.pack("<6f", *PROBABILITIES.ravel())


def test_random_probabilities_are_the_same_bits_in_both_forms() -> None:
    bits = np.random.default_rng(0).integers(0, 0x3F800001, (500, 3), np.uint32)
    probabilities = bits.view(np.float32)  # every float from 0 to 1 is as likely
    request = InferRequest("", pixels(), (Output(binary=False),), DEFAULT_PRIORITY, None)
    body, _ = write_infer_response(request, "insects", "3", CLASSES, probabilities)
    data = np.array(json.loads(body)["outputs"][0]["data"], np.float32)
    assert data.tobytes() == probabilities.tobytes()


@pytest.mark.parametrize("part", [np.s_[::2], np.s_[:, ::-1], np.s_[::-1, ::-1]])
def test_parts_of_larger_answers_are_written_in_order(part: Any) -> None:
    """A batch's answer is split; what a client gets must not depend on how."""
    wide = np.random.default_rng(0).random((6, 3), np.float32)[part]
    for binary in (False, True):
        request = InferRequest("", pixels(), (Output(binary),), DEFAULT_PRIORITY, None)
        body, length = write_infer_response(request, "insects", "3", CLASSES, wide)
        if length is None:
            found = np.array(json.loads(body)["outputs"][0]["data"], np.float32)
        else:
            found = np.frombuffer(body, "<f4", offset=length)
        np.testing.assert_array_equal(found.reshape(wide.shape), wide)


def test_classes_are_ranked_and_named() -> None:
    found, _ = answer(Output(binary=False, classification=2))
    (output,) = found["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, 2])
    # Of equal probabilities the first class goes first.
    assert output["data"] == ["0.7:1:bee: a: fly", "0.2:2:Käfer", "0.5:2:Käfer", "0.25:0:ant"]


def test_classes_in_binary_form_are_the_same() -> None:
    plain, _ = answer(Output(binary=False, classification=3))
    found, rest = answer(Output(binary=True, classification=3))
    (output,) = found["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, 3])
    assert output["parameters"] == {"binary_data_size": len(rest)}
    texts = [item.decode() for item in read_bytes_tensor(rest, 6)]
    assert texts == plain["outputs"][0]["data"]


# Depth and size


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize("depth", [1, 31, 32])
def test_json_may_be_as_deep_as_the_limit(depth: int) -> None:
    assert read_json(nested(depth), LIMITS) is not None
    text = b'{"a":' * depth + b"1" + b"}" * depth
    assert read_json(text, LIMITS) is not None


@pytest.mark.parametrize("depth", [33, 200, 1023, 1025, 200_000])
@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"[":', b'[{"\\"":'])
def test_deeper_json_is_refused(depth: int, opening: bytes) -> None:
    with pytest.raises(ProtocolError, match="nested deeper than 32"):
        read_json(opening * depth, LIMITS)


@pytest.mark.parametrize("depth", [1, 5])
def test_the_depth_limit_can_be_changed(depth: int) -> None:
    limits = Limits(max_json_depth=depth)
    read_json(nested(depth), limits)
    with pytest.raises(ProtocolError, match=f"nested deeper than {depth}"):
        read_json(nested(depth + 1), limits)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100,
        "{[" * 100,
        '"' + "[" * 100,
        "\\" + "[" * 100,
        '\\"' + "[" * 100,
        "\\\\" + "{" * 100,
        '\\\\"\\' + "{" * 100,
        "]" * 100 + "[" * 100,
        "ä[" * 100,
        "\n\t\x00[" * 100,
    ],
)
def test_brackets_in_texts_are_not_counted(text: str) -> None:
    value = {text: [text, {"a": text}]}
    for ascii_only in (True, False):
        content = json.dumps(value, ensure_ascii=ascii_only).encode()
        assert read_json(content, LIMITS) == value


def test_depth_is_counted_as_a_parser_counts_it() -> None:
    """Random values and texts full of quotes, backslashes and brackets, around the limit."""
    chance = random.Random(4)

    def value(depth: int) -> Any:
        if depth <= 0 or chance.random() < 0.2:
            return "".join(chance.choice('\\"[]{}a') for _ in range(chance.randrange(8)))
        parts = [value(depth - 1) for _ in range(chance.randrange(3))]
        if chance.random() < 0.5:
            return parts
        return {f'"\\[{number}': part for number, part in enumerate(parts)}

    def depth(item: Any) -> int:
        if isinstance(item, str):
            return 0
        parts = item.values() if isinstance(item, dict) else item
        return 1 + max(map(depth, parts), default=0)

    limits = Limits(max_json_depth=4)
    seen: Counter[bool] = Counter()
    for _ in range(3000):
        # Brackets enough that they are looked at, whatever else there is.
        item = [*value(6), [], [], [], []] if chance.random() < 0.9 else value(6)
        content = json.dumps(item).encode()
        too_deep = depth(item) > 4
        seen[too_deep] += 1
        if too_deep:
            with pytest.raises(ProtocolError, match="nested deeper than 4"):
                read_json(content, limits)
        else:
            assert read_json(content, limits) == item
    assert min(seen[True], seen[False]) > 200


def fill(*parts: bytes) -> bytes:
    """The first of the parts once, then the last one over and over."""
    start, repeated = b"".join(parts[:-1]), parts[-1]
    return start + repeated * ((HOSTILE_BYTES - len(start)) // len(repeated))


@pytest.mark.parametrize(
    "parts",
    [
        (b"[" * 40, b'["', b'\\"'),
        (b"[" * 40, b'["', b"\\"),
        (b"[" * 40, b'["', b"\\\\"),
        (b"[" * 40, b'"', b"a"),
        (b"[" * 40, b'"', b'\\"a'),
        (b"[" * 40, b'"'),
        (b"[" * 40, b'" '),
        (b"[" * 40, b"\\"),
        (b'["',),
        (b'["\\',),
        (b'{"":',),
        (b"[",),
        (b"[]",),
        (b"]",),
        (b"[" * 40, b"]"),
    ],
    ids=lambda parts: repr(parts[-1])[:20],
)
def test_hostile_json_costs_little(parts: tuple[bytes, ...]) -> None:
    """In one pass, and with not much more room than the text itself."""
    content = fill(*parts)
    started = time.process_time()
    with peak_memory() as peak, pytest.raises(ProtocolError):
        read_json(content, LIMITS)
    assert time.process_time() - started < 4
    assert peak[0] < 16 * HOSTILE_BYTES


@pytest.mark.parametrize("field", ["id", "parameters", "inputs", "outputs"])
def test_what_is_deep_by_permission_is_refused_in_words(field: str) -> None:
    """Deeper than Python would print it."""
    deep = json.dumps({**document(), field: "DEEP"}).replace('"DEEP"', nested(1000).decode())
    assert len(refusal(deep.encode(), limits=Limits(max_json_depth=1024))) < 200


def test_large_json_is_refused_unread() -> None:
    with pytest.raises(ProtocolError, match="expected at most 10 bytes of JSON, got 11"):
        read_json(b"x" * 11, Limits(max_json=10))


def test_only_the_json_part_counts_as_json() -> None:
    images = pixels(1000)
    image = tensor(shape=list(images.shape), data=None,
                   parameters={"binary_data_size": images.nbytes})  # fmt: skip
    limits = Limits(max_json=500)
    found = read(document(image=image), images.tobytes(), limits=limits)
    np.testing.assert_array_equal(found.images, images)


# Fuzz


Sample = tuple[Json, bytes]


def samples() -> list[Sample]:
    """Good requests of every kind."""
    images = pixels()
    binary = {"binary_data_size": images.nbytes}
    chosen = [{"name": "probabilities", "parameters": {"binary_data": True, "classification": 2}}]
    encoded = write_bytes_tensor(ENCODED)
    return [
        (document(), b""),
        (document(image=tensor(data=images.tolist()), id="a", outputs=chosen), b""),
        (document(image=tensor(data=None, parameters=binary)), images.tobytes()),
        (document(image=tensor(data=TEXTS, datatype="BYTES", shape=[4])), b""),
        (
            document(
                image=tensor(
                    data=None,
                    datatype="BYTES",
                    shape=[4],
                    parameters={"binary_data_size": len(encoded)},
                ),
                parameters={"priority": 1, "timeout": 5, "binary_data_output": True},
            ),
            encoded,
        ),
    ]


STRANGE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 255, 256, 2**31, 2**60, 2**63, -(2**63), 0.0, 1e308, "", "image",
    "UINT8", "BYTES", "FP32", "probabilities", "QUJD", "\0", "😀", [], {}, [[]], [{}], {"": None},
    [0] * 100, ["a"] * 3, [1, [2]], [[1], ["a"]], [1, "a"], {"data": [1]},
)  # fmt: skip


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in a JSON value with each of its keys."""
    found: list[tuple[Any, Any]] = []
    if isinstance(value, dict | list):
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        found += [(value, key) for key in keys]
        for key in keys:
            found += places(value[key])
    return found


def change_values(content: Json, chance: random.Random) -> Json:
    """Replace, remove, double or move some of the values."""
    changed = copy.deepcopy(content)
    for _ in range(chance.randint(1, 3)):
        all_places = places(changed)
        if not all_places:
            break
        holder, key = chance.choice(all_places)
        match chance.randrange(5):
            case 0 | 1:
                holder[key] = copy.deepcopy(chance.choice(STRANGE))
            case 2:
                del holder[key]
            case 3 if isinstance(holder, list):
                holder.insert(key, copy.deepcopy(holder[key]))
            case _:
                other, name = chance.choice(all_places)
                holder[key] = copy.deepcopy(other[name])
    return changed


def change_bytes(content: bytes, chance: random.Random) -> bytes:
    """Flip, cut, insert or repeat some of the bytes."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(changed) + 1)
        size = chance.choice((1, 1, 2, 4, 20))
        match chance.randrange(5):
            case 0 if at < len(changed):
                changed[at] ^= 1 << chance.randrange(8)
            case 1:
                del changed[at : at + size]
            case 2:
                changed[at:at] = chance.randbytes(size)
            case 3:
                changed[at:at] = changed[at : at + size]
            case _:
                changed[at:at] = chance.choice(b'[]{}":,\\-9etf\0').to_bytes() * size
    return bytes(changed)


def mutate(sample: Sample, chance: random.Random) -> tuple[bytes, str | None]:
    """A body, and the header that goes with it."""
    content, binary = sample
    if chance.random() < 0.6:
        content = change_values(content, chance)
    text = json.dumps(content).encode()
    if chance.random() < 0.4:
        text = change_bytes(text, chance)
    if binary and chance.random() < 0.4:
        binary = change_bytes(binary, chance)
    header = str(len(text)) if binary or chance.random() < 0.3 else None
    if chance.random() < 0.1:
        lies = (None, "0", "-1", "1" * 40, "x", str(len(text) - 1), str(len(text) + 1))
        header = chance.choice(lies)
    return text + binary, header


def check(request: InferRequest) -> None:
    """What the rest of the server relies on."""
    assert isinstance(request.id, str)
    assert 1 <= len(request.images) <= LIMITS.max_images
    if isinstance(request.images, list):
        assert all(type(item) is bytes for item in request.images)
    else:
        assert request.images.dtype == np.uint8
        assert request.images.shape[1:] == SHAPE
    (output,) = request.outputs
    assert 0 <= output.classification <= len(CLASSES)
    assert 1 <= request.priority <= LOWEST_PRIORITY
    assert request.timeout is None or request.timeout > 0
    probabilities = np.full((len(request.images), len(CLASSES)), 0.5, np.float32)
    body, length = write_infer_response(request, "insects", "1", CLASSES, probabilities)
    assert json.loads(body[:length])["outputs"][0]["shape"][0] == len(request.images)


@pytest.mark.parametrize("number", range(len(samples())))
def test_damaged_requests_are_refused_or_whole(number: int) -> None:
    sample = samples()[number]
    check(read(*sample))
    chance = random.Random(number)
    outcomes: Counter[str] = Counter()
    for _ in range(MUTATIONS // len(samples())):
        body, header = mutate(sample, chance)
        try:
            found = read_infer_request(body, header, SHAPE, len(CLASSES), LIMITS)
        except ProtocolError as error:
            outcomes["refused"] += 1
            assert 0 < len(str(error)) < 500, body
        else:
            outcomes["read"] += 1
            check(found)
    assert min(outcomes["refused"], outcomes["read"]) > MUTATIONS // 200, outcomes


def test_random_bytes_are_refused() -> None:
    chance = random.Random(7)
    readers: list[Callable[[bytes], bytes]] = [lambda data: data, lambda data: b'{"inputs":' + data]
    for _ in range(2000):
        body = chance.choice(readers)(chance.randbytes(chance.randrange(200)))
        header = chance.choice((None, str(chance.randrange(300))))
        with pytest.raises(ProtocolError):
            read_infer_request(body, header, SHAPE, len(CLASSES), LIMITS)
