"""Damaged and hostile files: a clear refusal or a right answer, no crash, and little memory."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

import models
from export.serving_function import serving_function
from export.to_onnx import export_onnx, tool_versions
from models.options import CnnOptions
from serve.bundle import BundleDocument, seal
from serve.image_spec import ImageSpec

ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).with_name("fuzz_bundles.py")
SHAPE = (8, 8, 1)
DOCUMENT = BundleDocument(
    class_names=("cat", "dog", "owl"),
    image=ImageSpec(*SHAPE),
    mean=(0.5,),
    std=(0.25,),
    dataset_fingerprint="0" * 64,
    config_hash="1" * 64,
    metrics={"accuracy": 0.5},
    versions=tool_versions(),
    created="2026-01-01T00:00:00+00:00",
)


# The sound files


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of some kilobytes, and another model of some kilobytes that says nothing."""
    folder = tmp_path_factory.mktemp("fuzz")
    keras.utils.set_random_seed(3)
    options = CnnOptions(filters=[2, 3], convolutions=1)
    network = models.build(options, SHAPE, len(DOCUMENT.class_names), mean=[0.5], std=[0.25])
    export_onnx(serving_function(network), DOCUMENT, folder / "bundle.onnx")
    onnx.save(foreign_model(), folder / "foreign.onnx")
    return folder


def tensor(name: str, values: Any, kind: type[np.generic] = np.float32) -> TensorProto:
    return numpy_helper.from_array(np.asarray(values, kind), name)


def integers(name: str, *values: int) -> TensorProto:
    return tensor(name, values, np.int64)


def scalar(name: str, value: int) -> TensorProto:
    return tensor(name, value, np.int64)


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    """Names are separated by spaces; a "-" is an input that is left out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(operator, names, outputs.split(), **attributes)


def model(
    nodes: Iterable[NodeProto], tensors: Iterable[TensorProto], image: Any, answer: Any
) -> ModelProto:
    graph = helper.make_graph(list(nodes), "graph", [image], [answer], list(tensors))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=8)


def foreign_model() -> ModelProto:
    """Channels first, floating-point pixels, logits, and a graph within the graph."""

    def branch(operator: str) -> Any:
        chosen = helper.make_tensor_value_info("chosen", TensorProto.FLOAT, ["n", 4, 1, 1])
        return helper.make_graph([node(operator, "pooled", "chosen")], operator, [], [chosen])

    nodes = [
        node("Conv", "pixels kernel", "features", kernel_shape=[3, 3], pads=[1] * 4),
        node("GlobalAveragePool", "features", "pooled"),
        node("ReduceMax", "pooled", "largest", keepdims=0),
        node("Greater", "largest zero", "positive"),
        node("If", "positive", "x", then_branch=branch("Relu"), else_branch=branch("Tanh")),
        node("Flatten", "x", "flat"),
        node("Gemm", "flat weights bias", "logits"),
    ]
    draw = np.random.default_rng(0).normal
    tensors = [
        tensor("kernel", draw(0, 0.5, (4, 3, 3, 3))),
        tensor("weights", draw(0, 0.5, (4, 3))),
        tensor("bias", draw(0, 0.5, 3)),
        tensor("zero", 0),
    ]
    made = model(
        nodes,
        tensors,
        helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, 9, 10]),
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3]),
    )
    onnx.checker.check_model(made, full_check=True)
    return made


# Running the worker


def outcomes(folder: Path, way: str, count: int) -> Counter[str]:
    """How often each outcome occurred; no file may have failed."""
    (folder / "outcomes.json").unlink(missing_ok=True)
    (folder / "under_way.txt").write_text("the start")
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", str(WORKER), str(folder), way, "0", str(count)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    under_way = (folder / "under_way.txt").read_text().strip()
    said = f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
    assert done.returncode == 0, f"ended with {done.returncode} at {under_way}: {said}"
    result = json.loads((folder / "outcomes.json").read_text())
    failures = result["failures"]
    assert not failures, f"{len(failures)} failures:\n" + "\n".join(failures[:3])
    assert result["memory"] < 2**30
    return Counter(result["outcomes"])


def total(found: Counter[str], outcome: str) -> int:
    return sum(count for name, count in found.items() if name.endswith(f": {outcome}"))


@pytest.mark.parametrize(
    ("way", "count"),
    [
        ("damaged", 150),
        ("sealed", 100),
        ("foreign", 50),
        pytest.param("damaged", 10_000, marks=pytest.mark.slow),
        pytest.param("sealed", 4_000, marks=pytest.mark.slow),
        pytest.param("foreign", 2_000, marks=pytest.mark.slow),
    ],
)
def test_a_damaged_file_is_refused_or_answers_right(folder: Path, way: str, count: int) -> None:
    """Which answer is right can be told of a bundle; of the others, that they end in peace."""
    found = outcomes(folder, way, count)
    assert found.total() == count
    assert total(found, "refused") > count / 2
    assert total(found, "answered") > 0  # some damage is none, and the test would tell it


# Hostile files, whose digest is right


def hostile(
    *nodes: NodeProto, tensors: Iterable[TensorProto] = (), functions: Iterable[Any] = ()
) -> ModelProto:
    """A graph with the signature of a bundle that has to compute `big` for its answer.

    The nodes find the pixels as `pixels` [batch, 8, 8, 1], as `plane` [1, 1, batch * 8, 8], their
    largest as `largest` [] and `one` [1].
    """
    graph = [
        node("Cast", "image", "pixels", to=TensorProto.FLOAT),
        node("Reshape", "pixels plane_shape", "plane"),
        node("ReduceMax", "pixels", "largest", keepdims=0),
        node("Reshape", "largest one_shape", "one"),
        *nodes,
        node("ReduceMax", "big", "reduced", keepdims=0),
        node("Cast", "reduced", "term", to=TensorProto.FLOAT),
        node("Reshape", "pixels row_shape", "rows"),
        node("MatMul", "rows weights", "products"),
        node("Add", "products term", "logits"),
        node("Softmax", "logits", "probabilities"),
    ]
    shapes = [
        integers("plane_shape", 1, 1, -1, 8),
        integers("one_shape", 1),
        integers("row_shape", -1, 64),
        tensor("weights", np.ones((64, 3))),
    ]
    made = model(
        graph,
        [*shapes, *tensors],
        helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", *SHAPE]),
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 3]),
    )
    made.opset_import.append(helper.make_opsetid("ai.onnx.ml", 5))
    made.functions.extend(functions)
    return made


def greedy(elements: int) -> dict[str, ModelProto]:
    """Graphs that ask for a tensor of so many elements; a power of two."""
    side = 2 ** (elements.bit_length() // 2)
    kernel = tensor("kernel", np.ones((1, 1, 1, 1)))
    count = integers("count", elements)
    return {
        "ConstantOfShape": hostile(node("ConstantOfShape", "count", "big"), tensors=[count]),
        "Expand": hostile(node("Expand", "largest count", "big"), tensors=[count]),
        "Tile": hostile(node("Tile", "one count", "big"), tensors=[count]),
        "Pad": hostile(node("Pad", "one ends", "big"), tensors=[integers("ends", 0, elements)]),
        "Resize": hostile(
            node("Resize", "plane - - sizes", "big"), tensors=[integers("sizes", 1, 1, side, side)]
        ),
        "Resize by scales": hostile(
            node("Resize", "plane - scales", "big"),
            tensors=[tensor("scales", [1, 1, side / 8, side / 8])],
        ),
        "Range": hostile(
            node("Range", "start end step", "big"),
            tensors=[scalar("start", 0), scalar("end", elements), scalar("step", 1)],
        ),
        "Conv": hostile(
            node("Conv", "plane kernel", "big", pads=[0, 0, side, side]), tensors=[kernel]
        ),
        "ConvTranspose": hostile(
            node("ConvTranspose", "plane kernel", "big", strides=[side // 8, side // 8]),
            tensors=[kernel],
        ),
        "OneHot": hostile(
            node("OneHot", "place depth values", "big"),
            tensors=[integers("place", 1), scalar("depth", elements), tensor("values", [0, 1])],
        ),
        "RandomNormal": hostile(node("RandomNormal", "", "big", shape=[elements])),
        "HannWindow": hostile(
            node("HannWindow", "size", "big"), tensors=[scalar("size", elements)]
        ),
        "outer product": hostile(
            node("Expand", "largest column", "left"),
            node("Expand", "largest row", "right"),
            node("MatMul", "left right", "big"),
            tensors=[integers("column", side, 1), integers("row", 1, side)],
        ),
    }


def external(location: str) -> ModelProto:
    """A graph whose tensor `secret` lies in another file."""
    made = hostile(node("Cast", "secret", "big", to=TensorProto.FLOAT))
    secret = made.graph.initializer.add()
    secret.CopyFrom(TensorProto(name="secret", data_type=TensorProto.UINT8, dims=[64]))
    secret.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "64")):
        secret.external_data.add(key=key, value=value)
    return made


def nested(depth: int) -> NodeProto:
    """An If within an If and so on."""

    def branch(depth: int, name: str) -> Any:
        inner = node("Neg", "largest", name)
        if depth:
            branches = {"then_branch": branch(depth - 1, f"{name}x")}
            inner = node("If", "positive", name, else_branch=branch(0, f"{name}y"), **branches)
        result = helper.make_tensor_value_info(name, TensorProto.FLOAT, [])
        return helper.make_graph([inner], name, [], [result])

    return node("If", "positive", "big", then_branch=branch(depth, "a"), else_branch=branch(0, "b"))


def claiming(elements: int) -> TensorProto:
    return TensorProto(
        name="big", data_type=TensorProto.FLOAT, dims=[elements // 2, 2], raw_data=bytes(64)
    )


def sparse(elements: int) -> Any:
    indices, values = integers("indices", 0), tensor("big", [1])
    return helper.make_sparse_tensor(values, indices, [elements])


def functions(count: int, calls: int) -> list[Any]:
    """Operators of the file's own, each of which calls the one before it several times."""
    domain, version = "ai.onnx.ml", [helper.make_opsetid(name, 5) for name in ("", "ai.onnx.ml")]

    def function(number: int) -> Any:
        names = ["a", *(f"t{call}" for call in range(calls - 1)), "b"]
        nodes = [
            node(f"F{number - 1}", source, target, domain=domain)
            for source, target in pairwise(names)
        ]
        return helper.make_function(domain, f"F{number}", ["a"], ["b"], nodes, version)

    first = helper.make_function(domain, "F0", ["a"], ["b"], [node("Neg", "a", "b")], version)
    return [first, *map(function, range(1, count))]


def recursive() -> list[Any]:
    """An operator of the file's own that calls itself."""
    domain, version = "ai.onnx.ml", [helper.make_opsetid("ai.onnx.ml", 5)]
    nodes = [node("F0", "a", "b", domain=domain)]
    return [helper.make_function(domain, "F0", ["a"], ["b"], nodes, version)]


def misleading() -> dict[str, ModelProto]:
    """Graphs whose numbers point outside of what is there, or contradict it."""
    far = integers("far", 2**40)
    grid = tensor("grid", np.ones((1, 1, 2, 2)))
    places = tensor("places", np.full((1, 1, 2, 2), 2**30), np.int64)
    sizes = integers("sizes", 1, 1, 4, 4)
    return {
        "gather behind the end": hostile(node("Gather", "one far", "big"), tensors=[far]),
        "gather before the start": hostile(
            node("Gather", "one far", "big"), tensors=[integers("far", -(2**40))]
        ),
        "gather elements": hostile(node("GatherElements", "one far", "big"), tensors=[far]),
        "gather tuples": hostile(node("GatherND", "one far", "big"), tensors=[far]),
        "scatter": hostile(node("ScatterElements", "one far one", "big"), tensors=[far]),
        "scatter tuples": hostile(
            node("ScatterND", "one far one", "big"), tensors=[tensor("far", [[2**40]], np.int64)]
        ),
        "unpool": hostile(
            node("MaxUnpool", "grid places sizes", "big", kernel_shape=[2, 2], strides=[2, 2]),
            tensors=[grid, places, sizes],
        ),
        "top k": hostile(node("TopK", "one far", "big places"), tensors=[far]),
        "depth to space": hostile(node("DepthToSpace", "plane", "big", blocksize=2**31)),
        "transpose": hostile(node("Transpose", "plane", "big", perm=[0, 1, 2, 2**40])),
        "reshape": hostile(
            node("Reshape", "one sizes", "big"), tensors=[integers("sizes", 2**32, 2**32, 64)]
        ),
        "sizes that overflow": hostile(
            node("ConstantOfShape", "sizes", "big"), tensors=[integers("sizes", 2**31, 2**33 + 1)]
        ),
        "negative size": hostile(
            node("ConstantOfShape", "sizes", "big"), tensors=[integers("sizes", -5)]
        ),
        "cycle": hostile(node("Add", "big one", "other"), node("Neg", "other", "big")),
    }


def reaching_out() -> dict[str, ModelProto]:
    """Graphs that take from outside of the file, or claim what is not in it."""
    sparse_initializer = hostile(node("Neg", "big", "small"))
    sparse_initializer.graph.sparse_initializer.append(sparse(2**40))
    calling = [node(f"F{last}", "largest", "big", domain="ai.onnx.ml") for last in range(9)]
    positive = node("Cast", "largest", "positive", to=TensorProto.BOOL)
    return {
        "passwords": external("/etc/passwd"),
        "passwords from here": external("/".join([".."] * 20) + "/etc/passwd"),
        "hard link": external("link.bin"),
        "symbolic link": external("symbolic.bin"),
        "memory": external("*/_ORT_MEM_ADDR_/*"),
        "claiming initializer": hostile(tensors=[claiming(2**40)]),
        "claiming constant": hostile(
            helper.make_node("Constant", [], ["big"], value=claiming(2**40))
        ),
        "sparse initializer": sparse_initializer,
        "sparse constant": hostile(
            helper.make_node("Constant", [], ["big"], sparse_value=sparse(2**40))
        ),
        "if in if": hostile(positive, nested(20)),
        "functions": hostile(calling[8], functions=functions(9, calls=10)),
        "function that calls itself": hostile(calling[0], functions=recursive()),
    }


HOSTILE = {
    **{f"{name} of 2 to the 40": made for name, made in greedy(2**40).items()},
    **misleading(),
    **reaching_out(),
}


def test_a_hostile_file_is_refused(folder: Path) -> None:
    """At the latest when it runs; with the memory that any file may take."""
    (folder / "made").mkdir()
    (folder / "secret.bin").write_bytes(bytes(64))
    os.link(folder / "secret.bin", folder / "link.bin")
    (folder / "symbolic.bin").symlink_to("/etc/passwd")
    for name, made in HOSTILE.items():
        content = seal(made.SerializeToString(), DOCUMENT.to_json())
        (folder / "made" / f"{name}.onnx").write_bytes(content)
    found = outcomes(folder, "made", len(HOSTILE))
    assert total(found, "refused") + total(found, "refused when it ran") == len(HOSTILE), found
