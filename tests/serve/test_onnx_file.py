"""The outline of an ONNX file: what the onnx package reads too, and what is refused and why."""

import math
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from serve.command import LockstepError
from serve.onnx_file import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_DIMENSIONS,
    OPSETS,
    NodeInfo,
    OnnxFile,
    OnnxFileError,
    TensorInfo,
    outline,
    read_file,
    with_entry,
    without_entry,
)

KINDS = {name: number for name, number in TensorProto.DataType.items() if 1 <= number <= 26}
TYPED_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")


# Models


def value(name: str, shape: list[Any] | None, element: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, element, shape)


def tensor(name: str = "w", kind: int = TensorProto.FLOAT, **fields: Any) -> TensorProto:
    return TensorProto(name=name, data_type=kind, **fields)


def graph(
    nodes: list[NodeProto] | None = None, tensors: list[TensorProto] | None = None, **parts: Any
) -> GraphProto:
    """By default `y = Relu(x)`."""
    return helper.make_graph(
        nodes or [helper.make_node("Relu", ["x"], ["y"])],
        "graph",
        parts.pop("inputs", [value("x", ["batch", 2])]),
        parts.pop("outputs", [value("y", ["batch", 2])]),
        initializer=tensors or [],
        **parts,
    )


def model(
    nodes: list[NodeProto] | None = None,
    tensors: list[TensorProto] | None = None,
    *,
    opsets: dict[str, int] | None = None,
    functions: list[Any] | None = None,
    metadata: dict[str, str] | None = None,
    **parts: Any,
) -> ModelProto:
    made = helper.make_model(
        graph(nodes, tensors, **parts),
        opset_imports=[helper.make_opsetid(*item) for item in (opsets or {"": 17}).items()],
        functions=functions or [],
        producer_name="a test",
        ir_version=8,
    )
    helper.set_model_props(made, metadata or {})
    return made


def branch(name: str, nodes: list[NodeProto], tensors: list[TensorProto] | None = None) -> Any:
    return helper.make_graph(nodes, name, [], [value("z", [2])], initializer=tensors or [])


def if_node(then_branch: GraphProto) -> NodeProto:
    other = branch("else", [helper.make_node("Identity", ["y"], ["z"])])
    return helper.make_node("If", ["flag"], ["z"], then_branch=then_branch, else_branch=other)


def nested(depth: int) -> ModelProto:
    """A model whose innermost graph lies `depth` graphs deep."""
    node = helper.make_node("Neg", ["y"], ["z"])
    for level in range(depth):
        node = if_node(branch(f"then{level}", [node]))
    return model([helper.make_node("Relu", ["x"], ["y"]), node])


def constant(**attributes: Any) -> NodeProto:
    return helper.make_node("Constant", [], ["c"], **attributes)


def function(nodes: list[NodeProto], domain: str = "", **parts: Any) -> Any:
    return helper.make_function(
        domain, "Twice", ["a"], ["b"], nodes, [helper.make_opsetid("", 17)], **parts
    )


# Bytes that no library would write


def varint(number: int) -> bytes:
    number &= 2**64 - 1
    groups = []
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])


def field(number: int, content: int | bytes) -> bytes:
    """A field of the protobuf wire format."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


OPSET = field(8, field(2, 17))


def model_with(initializer: bytes) -> bytes:
    """The bytes of a model with the bytes of one initializer."""
    return field(7, field(5, initializer)) + OPSET


def refusal(content: bytes | ModelProto) -> str:
    """Why there is no outline: one line of a readable length."""
    with pytest.raises(OnnxFileError) as caught:
        outline(content if isinstance(content, bytes) else content.SerializeToString())
    reason = str(caught.value)
    assert reason and "\n" not in reason and len(reason) < 500
    return reason


def test_the_error_is_one_for_people() -> None:
    assert issubclass(OnnxFileError, LockstepError)
    assert OnnxFileError.exit_code == 2


# What the outline says


def graphs_in(outer: GraphProto) -> Iterator[GraphProto]:
    yield outer
    for node in outer.node:
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                if inner.node:
                    yield from graphs_in(inner)


def tensor_info(described: Any) -> TensorInfo:
    kind = described.type.tensor_type
    shape = tuple(
        getattr(size, size.WhichOneof("value")) if size.WhichOneof("value") else "?"
        for size in kind.shape.dim
    )
    return TensorInfo(described.name, helper.tensor_dtype_to_np_dtype(kind.elem_type).name, shape)


def outline_by_onnx(content: bytes) -> OnnxFile:
    """The same from the onnx package."""
    read = onnx.load_model_from_string(content)
    stored = {item.name for item in read.graph.initializer}
    nodes = [node for inner in graphs_in(read.graph) for node in inner.node]
    makers = {
        name: NodeInfo(node.op_type, tuple(node.input))
        for node in read.graph.node
        for name in node.output
    }
    return OnnxFile(
        ir_version=read.ir_version,
        opset={item.domain: item.version for item in read.opset_import}[""],
        producer=read.producer_name,
        inputs=tuple(tensor_info(item) for item in read.graph.input if item.name not in stored),
        outputs=tuple(map(tensor_info, read.graph.output)),
        operators=Counter(node.op_type for node in nodes),
        makers=makers,
        parameters=sum(
            math.prod(item.dims) for inner in graphs_in(read.graph) for item in inner.initializer
        ),
        metadata={item.key: item.value for item in read.metadata_props},
    )


WEIGHTS = numpy_helper.from_array(np.zeros((2, 3), np.float32), "w")
MODELS = {
    "plain": model(),
    "weights": model([helper.make_node("MatMul", ["x", "w"], ["y"])], [WEIGHTS]),
    "weights that are inputs too": model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [WEIGHTS],
        inputs=[value("x", [None, 2]), value("w", [2, 3])],
    ),
    "several inputs and outputs": model(
        [
            helper.make_node("Neg", ["b"], ["z"]),
            helper.make_node("Softmax", ["x"], ["hidden"]),
            helper.make_node("Split", ["hidden"], ["y", "rest"]),
            helper.make_node("Exp", ["rest"], ["unused"]),
        ],
        inputs=[value("x", [1, 2]), value("b", ["rows", "größe"], TensorProto.INT64)],
        outputs=[value("y", [1, 1]), value("z", ["rows", "größe"], TensorProto.INT64)],
    ),
    "graphs in graphs": model(
        [
            helper.make_node("Relu", ["x"], ["y"]),
            if_node(branch("then", [if_node(branch("inner", [constant(value_int=1)], [WEIGHTS]))])),
        ]
    ),
    "metadata": model(metadata={"a": "1", "größe": "ä" * 300, "": "", "empty": ""}),
    "operators for trees": model(
        [helper.make_node("Scaler", ["x"], ["y"], domain="ai.onnx.ml")],
        opsets={"": 15, "ai.onnx.ml": 3},
    ),
    "unused domain": model(opsets={"com.microsoft": 1, "": 12}),
    "constant": model([constant(value=WEIGHTS), helper.make_node("Relu", ["x"], ["y"])]),
    "function": model(functions=[function([helper.make_node("Add", ["a", "a"], ["b"])])]),
}


@pytest.mark.parametrize("made", MODELS.values(), ids=MODELS)
def test_the_outline_is_what_the_onnx_package_reads(made: ModelProto) -> None:
    content = made.SerializeToString()
    assert outline(content) == outline_by_onnx(content)


@pytest.mark.parametrize("name", ["model.onnx", "model.int8.onnx"])
def test_the_outline_of_a_bundle_is_what_the_onnx_package_reads(
    trained_run: Path, name: str
) -> None:
    path = trained_run / name
    if not path.exists():
        pytest.skip("this run has no such file")
    got = outline(read_file(path))
    assert got == outline_by_onnx(path.read_bytes())
    assert got.inputs == (TensorInfo("image", "uint8", ("batch", 8, 8, 1)),)
    assert got.last_operator == "Softmax"
    assert got.parameters > 10_000


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("FLOAT", "float32"), ("UINT8", "uint8"), ("INT8", "int8"), ("INT32", "int32"),
        ("INT64", "int64"), ("FLOAT16", "float16"), ("DOUBLE", "float64"), ("STRING", "type 8"),
        ("BOOL", "type 9"), ("UNDEFINED", "type 0"),
    ],
)  # fmt: skip
def test_the_element_type_of_an_input_is_named(kind: str, name: str) -> None:
    made = model(inputs=[value("x", [3], TensorProto.DataType.Value(kind))])
    assert outline(made.SerializeToString()).inputs == (TensorInfo("x", name, (3,)),)


@pytest.mark.parametrize("shape", [None, []])
def test_an_input_without_dimensions_has_none(shape: list[int] | None) -> None:
    made = model(inputs=[value("x", shape)])
    assert outline(made.SerializeToString()).inputs == (TensorInfo("x", "float32", ()),)


def test_an_input_that_is_no_tensor_is_called_so() -> None:
    sequence = helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, [2])
    got = outline(model(inputs=[sequence]).SerializeToString())
    assert got.inputs == (TensorInfo("x", "no tensor", ()),)


def test_the_standard_domain_has_two_names() -> None:
    assert outline(model(opsets={"ai.onnx": 13}).SerializeToString()).opset == 13


@pytest.mark.parametrize("outputs", [[], [value("x", [2])]])
def test_an_output_that_no_operator_makes_has_no_last_operator(outputs: list[Any]) -> None:
    got = outline(model(outputs=outputs).SerializeToString())
    assert got.last_operator == ""
    assert len(got.outputs) == len(outputs)


def test_fields_in_another_order_and_unknown_ones_change_nothing() -> None:
    content = MODELS["metadata"].SerializeToString()
    known = outline(content)
    unknown = field(99, b"future") + field(98, 7) + varint(97 << 3 | 5) + b"1234"
    assert outline(unknown + content + varint(96 << 3 | 1) + b"12345678") == known
    assert outline(field(14, field(2, b"1") + field(1, b"z")) + content).metadata == {
        "z": "1",
        **known.metadata,
    }


# Tensors


def contents(kind: str, shape: tuple[int, ...]) -> list[Any]:
    return [b"text" if kind == "STRING" else 1] * math.prod(shape)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2,), (3, 5), (64,), (2, 0, 3)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_tensors_of_every_kind_are_read(kind: str, shape: tuple[int, ...]) -> None:
    typed = helper.make_tensor("w", KINDS[kind], shape, contents(kind, shape))
    assert outline(model(tensors=[typed]).SerializeToString()).parameters == math.prod(shape)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 5)], ids=str)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "STRING"])
def test_raw_tensors_of_every_kind_are_read(kind: str, shape: tuple[int, ...]) -> None:
    typed = helper.make_tensor("w", KINDS[kind], shape, contents(kind, shape))
    raw = numpy_helper.from_array(numpy_helper.to_array(typed), "w")
    assert raw.data_type == KINDS[kind]
    assert outline(model(tensors=[raw]).SerializeToString()).parameters == math.prod(shape)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "STRING"])
def test_raw_tensors_of_every_kind_are_refused_without_their_end(kind: str) -> None:
    raw = numpy_helper.from_array(
        numpy_helper.to_array(helper.make_tensor("w", KINDS[kind], [64], [1] * 64)), "w"
    )
    raw.raw_data = raw.raw_data[:-1]
    assert refusal(model(tensors=[raw])).startswith("tensor 'w' claims the shape [64]")


@pytest.mark.parametrize(
    ("number", "packed", "elements"),
    [
        (4, b"\0" * 12, [varint(4 << 3 | 5) + b"\0" * 4] * 3),
        (7, varint(-1) + varint(0) + varint(300), [field(7, -1), field(7, 0), field(7, 300)]),
        (10, b"\0" * 24, [varint(10 << 3 | 1) + b"\0" * 8] * 3),
    ],
    ids=["float", "int64", "double"],
)
def test_numbers_may_be_packed_or_not(number: int, packed: bytes, elements: list[bytes]) -> None:
    kind = field(2, {4: 1, 7: 7, 10: 11}[number])
    dims = [field(1, field_dims) for field_dims in (varint(3), 3)]
    for shape in dims:
        for data in (field(number, packed), b"".join(elements)):
            assert outline(model_with(shape + kind + data)).parameters == 3
        for data in (b"", field(number, b""), elements[0]):
            reason = refusal(model_with(shape + kind + data))
            assert reason.startswith("tensor '' claims the shape [3] and holds ")


HUGE = [[2**31], [2**62, 2**62], [65536, 65536, 65536], [1000, 1000], [2**63 - 1]]


@pytest.mark.parametrize("dims", HUGE, ids=str)
@pytest.mark.parametrize("name", [None, "raw_data", *TYPED_FIELDS, "string_data"])
def test_a_tensor_that_claims_more_than_it_holds_is_refused(
    name: str | None, dims: list[int]
) -> None:
    kinds = {None: 1, "raw_data": 1, "float_data": 1, "int32_data": 6, "int64_data": 7,
             "double_data": 11, "uint64_data": 13, "string_data": 8}  # fmt: skip
    few = {"raw_data": b"12345678", "string_data": [b"a", b"b"]}.get(str(name), [1, 2])
    liar = tensor(kind=kinds[name], dims=dims, **({name: few} if name else {}))
    reason = refusal(model(tensors=[liar]))
    assert reason.startswith(f"tensor 'w' claims the shape {dims!r} and holds ")


def test_a_long_string_is_one_element() -> None:
    words = tensor(kind=TensorProto.STRING, dims=[3], string_data=[b"long text", b"", b"x"])
    assert outline(model(tensors=[words]).SerializeToString()).parameters == 3
    words.dims[:] = [4]
    assert refusal(model(tensors=[words])).startswith("tensor 'w' claims the shape [4]")


@pytest.mark.parametrize("rank", [300, 5000])
def test_a_shape_without_end_is_refused(rank: int) -> None:
    reason = refusal(model(tensors=[tensor(dims=[2**62] * rank)]))
    assert reason == f"holds a tensor of more than {MAX_DIMENSIONS} dimensions"


def test_the_largest_shape_is_refused() -> None:
    reason = refusal(model(tensors=[tensor(dims=[2**62] * MAX_DIMENSIONS)]))
    assert reason.startswith("tensor 'w' claims the shape [4611686018427387904, ")


LIAR = tensor(dims=[10_000], raw_data=b"1234")
LOCATION = onnx.StringStringEntryProto(key="location", value="/etc/passwd")
EXTERNAL = tensor(dims=[2], data_location=TensorProto.EXTERNAL, external_data=[LOCATION])
HOMES: dict[str, Callable[[TensorProto], ModelProto]] = {
    "initializer": lambda bad: model(tensors=[WEIGHTS, bad]),
    "constant": lambda bad: model([constant(value=bad)]),
    "list of tensors": lambda bad: model([constant(values=[WEIGHTS, bad])]),
    "inner graph": lambda bad: model(
        [if_node(branch("then", [helper.make_node("Identity", ["w"], ["z"])], [bad]))]
    ),
    "constant in an inner graph": lambda bad: model(
        [if_node(branch("then", [constant(value=bad)]))]
    ),
    "list of graphs": lambda bad: model(
        [helper.make_node("Odd", [], ["y"], graphs=[graph(), graph(tensors=[bad])])]
    ),
    "function": lambda bad: model(functions=[function([constant(value=bad)])]),
    "default of a function": lambda bad: model(
        functions=[function([], attribute_protos=[helper.make_attribute("value", bad)])]
    ),
}


@pytest.mark.parametrize("put", HOMES.values(), ids=HOMES)
def test_no_tensor_is_overlooked(put: Callable[[TensorProto], ModelProto]) -> None:
    outline(put(WEIGHTS).SerializeToString())
    assert refusal(put(LIAR)).startswith("tensor 'w' claims the shape [10000]")
    assert refusal(put(EXTERNAL)) == (
        "keeps tensor 'w' in another file; expected one file that holds everything"
    )


def test_an_attribute_of_two_tensors_that_become_one_is_refused() -> None:
    """Protobuf appends the sizes of the second to those of the first."""
    part = tensor(dims=[1000], raw_data=b"1234" * 1000).SerializeToString()
    attribute = field(1, b"value") + field(20, 4) + field(5, part) + field(5, part)
    node = field(2, b"c") + field(4, b"Constant") + field(5, attribute)
    content = field(7, field(1, node)) + OPSET
    merged = onnx.load_model_from_string(content).graph.node[0].attribute[0].t
    assert (merged.dims, len(merged.raw_data)) == ([1000, 1000], 4000)
    refusal(content)


@pytest.mark.parametrize(
    "fields",
    [
        {"data_location": TensorProto.EXTERNAL},
        {"data_location": TensorProto.EXTERNAL, "raw_data": b"12345678"},
        {"external_data": [LOCATION]},
        {"external_data": [onnx.StringStringEntryProto()], "raw_data": b"12345678"},
    ],
)
def test_a_tensor_in_another_file_is_refused(fields: dict[str, Any]) -> None:
    reason = refusal(model(tensors=[tensor(dims=[2], **fields)]))
    assert reason.startswith("keeps tensor 'w' in another file; ")


def test_a_tensor_that_says_it_is_here_is_read() -> None:
    here = tensor(dims=[2], raw_data=b"12345678", data_location=TensorProto.DEFAULT)
    assert outline(model(tensors=[here]).SerializeToString()).parameters == 2


def test_a_model_that_onnx_saves_in_two_files_is_refused(tmp_path: Path) -> None:
    big = numpy_helper.from_array(np.zeros(5000, np.float32), "w")
    path = tmp_path / "model.onnx"
    onnx.save(model(tensors=[big]), path, save_as_external_data=True, location="weights")
    assert (tmp_path / "weights").exists()
    assert refusal(read_file(path)).startswith("keeps tensor 'w' in another file; ")


@pytest.mark.parametrize("dims", [[-1], [2, -3], [-1, -1], [-(2**63)]], ids=str)
def test_negative_sizes_are_refused(dims: list[int]) -> None:
    reason = refusal(model(tensors=[tensor(dims=dims, raw_data=b"1234")]))
    assert reason == f"damaged: tensor 'w' has the shape {dims!r}"
    packed = field(1, b"".join(map(varint, dims))) + field(2, 1) + field(8, b"w")
    assert refusal(model_with(packed)) == reason


@pytest.mark.parametrize("kind", [0, 99, -1, 2**31 - 1])
def test_unknown_kinds_of_numbers_are_refused(kind: int) -> None:
    reason = refusal(model_with(field(8, b"w") + field(2, kind) + field(9, b"1234")))
    assert reason == f"damaged: tensor 'w' is of unknown type {kind}"


# Parts that are not for serving


def sparse() -> Any:
    return helper.make_sparse_tensor(
        helper.make_tensor("w", TensorProto.FLOAT, [1], [1]),
        helper.make_tensor("i", TensorProto.INT64, [1], [0]),
        [9],
    )


@pytest.mark.parametrize(
    "made",
    [
        model(sparse_initializer=[sparse()]),
        model([constant(sparse_value=sparse())]),
        model([constant(sparse_values=[sparse(), sparse()])]),
        model([if_node(branch("then", [constant(sparse_value=sparse())]))]),
        model(functions=[function([constant(sparse_value=sparse())])]),
    ],
    ids=["initializer", "constant", "list", "inner graph", "function"],
)
def test_sparse_tensors_are_refused(made: ModelProto) -> None:
    assert refusal(made) == "holds sparse tensors, expected dense ones"


@pytest.mark.parametrize("name", ["kernel_shape", "strides", "dilations", "pads"])
@pytest.mark.parametrize("number", [2**15 + 1, -(2**24), 2**62])
def test_a_window_beyond_any_image_is_refused(name: str, number: int) -> None:
    node = helper.make_node("MaxPool", ["x"], ["y"], **{name: [1, number]})
    assert refusal(model([node])) == f"asks for {name} of {abs(number):,}, expected 32,768 at most"


def test_large_windows_and_the_end_of_a_slice_are_read() -> None:
    pool = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2**15, 2**15])
    end = helper.make_node("Slice", ["y"], ["z"], starts=[0], ends=[2**63 - 1])
    assert outline(model([pool, end]).SerializeToString()).operators == {"MaxPool": 1, "Slice": 1}


def test_training_information_is_refused() -> None:
    made = model()
    made.training_info.add().algorithm.CopyFrom(graph())
    assert refusal(made) == "holds training information, expected a model for inference"


FOREIGN = helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")


@pytest.mark.parametrize(
    "made",
    [
        model([FOREIGN], opsets={"": 17, "com.microsoft": 1}),
        model([FOREIGN]),
        model([if_node(branch("then", [FOREIGN]))]),
        model(functions=[function([FOREIGN])]),
    ],
    ids=["graph", "undeclared", "inner graph", "function"],
)
def test_operators_outside_the_standard_are_refused(made: ModelProto) -> None:
    assert refusal(made) == "needs operators outside the ONNX standard: com.microsoft.Gelu"


def test_operators_that_the_file_defines_itself_are_refused() -> None:
    own = function([helper.make_node("Add", ["a", "a"], ["b"])], "local")
    call = helper.make_node("Twice", ["x"], ["y"], domain="local")
    assert refusal(model([call], functions=[own])) == (
        "needs operators outside the ONNX standard: local.Twice"
    )


@pytest.mark.parametrize("opset", [OPSETS[0], OPSETS[-1]])
def test_the_first_and_last_known_opset_are_read(opset: int) -> None:
    assert outline(model(opsets={"": opset}).SerializeToString()).opset == opset


@pytest.mark.parametrize("opset", [-1, 0, 1, OPSETS[0] - 1, OPSETS[-1] + 1, 2**40])
def test_other_opsets_are_refused(opset: int) -> None:
    expected = f"expected operators of opset {OPSETS[0]} to {OPSETS[-1]}, got opset {opset}"
    assert refusal(model(opsets={"": opset})) == expected


@pytest.mark.parametrize("opsets", [[], [helper.make_opsetid("ai.onnx.ml", 17)]])
def test_no_opset_is_refused(opsets: list[Any]) -> None:
    made = model()
    del made.opset_import[:]
    made.opset_import.extend(opsets)
    assert refusal(made).endswith(", got opset 0")


def test_a_second_graph_is_refused() -> None:
    content = model().SerializeToString()
    assert refusal(content + field(7, graph().SerializeToString())) == (
        "damaged: it holds two graphs"
    )


@pytest.mark.parametrize("second", ["1", "2"])
def test_a_metadata_entry_that_occurs_twice_is_refused(second: str) -> None:
    made = model(metadata={"b": "0", "a": "1"})
    made.metadata_props.add(key="a", value=second)
    assert refusal(made) == "damaged: metadata entry 'a' occurs twice"


def test_graphs_are_followed_so_deep() -> None:
    content = nested(MAX_DEPTH).SerializeToString()
    assert outline(content) == outline_by_onnx(content)


def deep(depth: int) -> bytes:
    """Like `nested`, without the limit that libraries have."""
    inner = b""
    for _ in range(depth):
        inner = field(1, field(5, field(6, inner)))
    return field(7, inner) + OPSET


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 50, 3000])
def test_deeper_graphs_are_refused(depth: int) -> None:
    expected = f"graphs within graphs, more than {MAX_DEPTH} deep"
    assert refusal(deep(depth)) == expected
    if depth < 20:
        assert refusal(nested(depth)) == expected


def test_deep_graphs_in_a_function_are_refused() -> None:
    node = helper.make_node("Neg", ["a"], ["z"])
    for level in range(MAX_DEPTH + 1):
        node = if_node(branch(f"then{level}", [node]))
    assert refusal(model(functions=[function([node])])).startswith("graphs within graphs")


LONG = "x" * 100_000


@pytest.mark.parametrize(
    "made",
    [
        model([helper.make_node("Gelu", ["x"], ["y"], domain=LONG)]),
        model([helper.make_node(LONG, ["x"], ["y"], domain="com.microsoft")]),
        model(tensors=[tensor(LONG, dims=[9])]),
        model(tensors=[tensor(LONG, dims=[-1])]),
        model(tensors=[tensor(LONG, 0)]),
        model(tensors=[tensor(LONG, data_location=TensorProto.EXTERNAL)]),
        model(tensors=[tensor(dims=[1] * 60 + [7])]),
        model(tensors=[tensor(dims=[1] * 60 + [-1])]),
        model(metadata={LONG: "1"}).SerializeToString() + field(14, field(1, LONG.encode())),
    ],
    ids=["domain", "operator", "claim", "negative", "type", "external", "shape", "negative shape",
         "metadata"],
)  # fmt: skip
def test_a_long_name_is_shown_in_part(made: ModelProto | bytes) -> None:
    reason = refusal(made)
    assert "xxxxxxxxxx" in reason or "[1, 1, 1" in reason


def test_a_name_with_a_line_break_does_not_break_the_message() -> None:
    for domain, operator in (("a\nb", "Gelu"), ("com.microsoft", "Ge\nlu")):
        refusal(model([helper.make_node(operator, ["x"], ["y"], domain=domain)]))


# Damaged bytes


def test_every_truncation_of_a_small_model_is_refused() -> None:
    content = MODELS["weights"].SerializeToString()
    outline(content)
    for length in range(len(content)):
        refusal(content[:length])


def test_a_truncated_bundle_is_refused_or_lacks_its_end(trained_run: Path) -> None:
    content = (trained_run / "model.onnx").read_bytes()
    whole = outline(content)
    refused = 0
    for length in random.Random(1).sample(range(len(content)), 300):
        try:
            assert set(outline(content[:length]).metadata) < set(whole.metadata)
        except OnnxFileError as error:
            assert "cut off" in str(error)
            refused += 1
    assert refused > 290


@pytest.mark.parametrize("seed", range(5))
def test_random_bytes_are_refused(seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(300):
        refusal(dice.randbytes(dice.randrange(1, 400)))


@pytest.mark.parametrize("seed", range(5))
def test_flipped_bits_give_an_outline_or_a_reason(seed: int) -> None:
    dice = random.Random(seed)
    sound = [made.SerializeToString() for made in MODELS.values()]
    read = refused = 0
    for turn in range(600):
        broken = bytearray(sound[turn % len(sound)])
        for _ in range(dice.randint(1, 3)):
            broken[dice.randrange(len(broken))] ^= 1 << dice.randrange(8)
        try:
            outline(bytes(broken))
            read += 1
        except OnnxFileError:
            refused += 1
    assert read > 50
    assert refused > 50


UNPARSABLE = "not an ONNX model: its bytes do not parse"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not an ONNX model: it holds no graph"),
        (OPSET, "not an ONNX model: it holds no graph"),
        (b"just text\n", "cut off: 117 bytes announced, 8 there"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", UNPARSABLE),
        (b"\0" * 5000, UNPARSABLE),
        (b"\x03\x01", UNPARSABLE),
        *((varint(7 << 3 | wire) + b"\0" * 20, UNPARSABLE) for wire in (3, 4, 6, 7)),
        (b"\xff" * 30, UNPARSABLE),
        (varint(1 << 3) + b"\xff" * 10 + b"\0", UNPARSABLE),
        (varint(1 << 3) + b"\xff" * 9, "cut off in the middle of a number"),
        (varint(7 << 3 | 5) + b"123", "cut off in the middle of a number"),
        (varint(7 << 3 | 1) + b"1234567", "cut off in the middle of a number"),
        (varint(7 << 3 | 2) + b"\x05abcd", "cut off: 5 bytes announced, 4 there"),
        (varint(7 << 3 | 2) + varint(2**64 - 1),
         "cut off: 18,446,744,073,709,551,615 bytes announced, 0 there"),
        (field(7, 1), "damaged: expected graph to be a message"),
        (field(8, 1), "damaged: expected opset_import to be a message"),
        (field(14, 1), "damaged: expected metadata to be a message"),
        (field(25, 1), "damaged: expected functions to be a message"),
        (field(1, b"8"), "damaged: expected ir_version to be a number"),
        (field(7, field(1, 1)), "damaged: expected node to be a message"),
        (field(7, field(5, 1)), "damaged: expected initializer to be a message"),
        (model_with(field(1, b"\x80")), "cut off in the middle of a number"),
        (model_with(varint(1 << 3 | 5) + b"1234"), "damaged: expected dims to be a number"),
        (model_with(field(9, 1)), "damaged: expected raw_data to be a message"),
    ],
)  # fmt: skip
def test_bytes_that_are_no_model_are_refused(content: bytes, reason: str) -> None:
    assert refusal(content) == reason


@pytest.mark.parametrize("name", [b"a test", b"graphics", b"Softmax", b"batch", b"some key"])
def test_names_that_are_no_text_are_refused(name: bytes) -> None:
    made = model(
        [helper.make_node("Softmax", ["x"], ["y"])],
        inputs=[value("graphics", ["batch"])],
        outputs=[value("y", [2])],
        metadata={"some key": ""},
    )
    content = made.SerializeToString()
    assert content.count(name) == 1
    broken = content.replace(name, b"\xff" * len(name))
    assert re.fullmatch(r"damaged: expected \w+ to be text", refusal(broken))


# Metadata entries


def entries(content: bytes) -> list[tuple[str, str]]:
    """The metadata as the onnx package reads it."""
    read = onnx.load_model_from_string(content).metadata_props
    return [(entry.key, entry.value) for entry in read]


@pytest.mark.parametrize(
    ("key", "text"),
    [("k", "v"), ("", ""), ("größe", "犬\n\0"), ("k", "x" * 127), ("k", "x" * 128),
     ("k" * 200, "y" * 20_000), ("k", "z" * 3_000_000)],
    ids=lambda text: f"{text[:3]!r}*{len(text)}",
)  # fmt: skip
def test_an_entry_is_added_and_taken_out_again(key: str, text: str) -> None:
    for made in (model(), model(metadata={"a": "1", "b": "2"})):
        content = made.SerializeToString()
        longer = with_entry(content, key, text)
        assert longer.startswith(content)
        assert entries(longer) == [*entries(content), (key, text)]
        assert outline(longer).metadata[key] == text
        assert without_entry(longer, key) == content
        made.metadata_props.add(key=key, value=text)
        assert onnx.load_model_from_string(longer) == made


@pytest.mark.parametrize("key", ["a", "b", "c"])
def test_only_the_named_entry_is_taken_out(key: str) -> None:
    made = model(metadata={"a": "1", "b": "a", "c": "a"})
    rest = without_entry(made.SerializeToString(), key)
    kept = [entry for entry in made.metadata_props if entry.key != key]
    del made.metadata_props[:]
    made.metadata_props.extend(kept)
    assert rest == made.SerializeToString()


def test_every_other_byte_stays() -> None:
    start = field(99, b"unknown") + model().SerializeToString()
    entry, end = field(14, field(2, b"v") + field(1, b"k")), field(98, 5) + field(2, b"again")
    assert without_entry(start + entry + end, "k") == start + end
    assert without_entry(start + entry + entry + end, "k") == start + end
    assert without_entry(start + entry + end, "v") == start + entry + end


def test_a_bundle_without_its_document_is_the_same_model(trained_run: Path) -> None:
    content = (trained_run / "model.onnx").read_bytes()
    rest = without_entry(content, "lockstep.bundle")
    read = onnx.load_model_from_string(content)
    assert len(read.metadata_props) == 1
    del read.metadata_props[:]
    assert onnx.load_model_from_string(rest) == read
    assert len(rest) < len(content)


# Files


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"anything")
    assert read_file(path) == b"anything"


def file_refusal(path: Path) -> str:
    with pytest.raises(OnnxFileError) as caught:
        read_file(path)
    return str(caught.value)


@pytest.mark.parametrize("size", [MAX_BYTES + 1, 2**33])
def test_a_file_that_is_too_large_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    path = tmp_path / "model.onnx"
    path.touch()
    os.truncate(path, size)
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("it was read"))
    assert file_refusal(path) == (
        f"expected an ONNX file of 1 to 2,147,483,647 bytes, got {size:,} bytes"
    )


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    assert file_refusal(tmp_path / "model.onnx").endswith(" bytes, got 0 bytes")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "pipe", tmp_path / "dangling"):
        assert file_refusal(path) == "no such bundle; expected a path to a model.onnx"


@pytest.mark.parametrize("beyond", [2**29, 2**32 + 7, 2**60])
def test_a_field_number_that_others_would_cut_off_is_refused(beyond: int) -> None:
    """onnxruntime reads 32 bits of a tag: a second graph could be hidden behind the others."""
    sound = model([helper.make_node("Neg", ["x"], ["y"])]).SerializeToString()
    assert outline(sound).operators == {"Neg": 1}
    tag, encoded = beyond << 3 | 2, bytearray()
    while tag > 0x7F:
        encoded.append(tag & 0x7F | 0x80)
        tag >>= 7
    assert refusal(sound + bytes([*encoded, tag, 0])) == (
        "not an ONNX model: its bytes do not parse"
    )


def test_opsets_that_contradict_each_other_are_refused() -> None:
    made = model([helper.make_node("Neg", ["x"], ["y"])])
    made.opset_import.add(domain="ai.onnx", version=7)
    assert "asks for opsets [7, " in refusal(made)
