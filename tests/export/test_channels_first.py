"""Graphs as tf2onnx writes them, before and after their beginning is put in another order."""

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from export.channels_first import put_channels_first

HEIGHT, WIDTH = 5, 7
Step = tuple[str, Sequence[float] | float | None]
CAST: Step = ("Cast", None)


def graph_of(channels: int, *steps: Step, layout: str = "Transpose") -> onnx.ModelProto:
    """`image`, the steps with their numbers, the change of layout, and a convolution."""
    constants = {"filters": np.linspace(-1, 1, channels * 18).reshape(2, channels, 3, 3)}
    nodes: list[onnx.NodeProto] = []

    def add(operator: str, *inputs: str, **attributes: object) -> None:
        before = [nodes[-1].output[0] if nodes else "image"]
        name = f"{operator}{len(nodes)}"
        nodes.append(helper.make_node(operator, before + list(inputs), [name], name, **attributes))

    for number, (operator, value) in enumerate(steps):
        if operator == "Cast":
            add("Cast", to=TensorProto.FLOAT)
        elif value is None:
            add(operator)
        else:
            constants[f"constant{number}"] = np.asarray(value)
            add(operator, f"constant{number}")
    if layout == "Transpose":
        add("Transpose", perm=[0, 3, 1, 2])
    else:
        constants["shape"] = np.array([-1, 1, HEIGHT, WIDTH])
        add("Reshape", "shape")
    add("Conv", "filters")
    nodes[-1].output[0] = "answer"
    initializers = [
        numpy_helper.from_array(value if name == "shape" else value.astype(np.float32), name)
        for name, value in constants.items()
    ]
    image = ["batch", HEIGHT, WIDTH, channels]
    convolved = ["batch", 2, HEIGHT - 2, WIDTH - 2]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, image)],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, convolved)],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def answers(model: onnx.ModelProto, channels: int) -> NDArray[np.float32]:
    images = np.random.default_rng(0).integers(0, 256, (3, HEIGHT, WIDTH, channels), np.uint8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found: NDArray[np.float32] = session.run(None, {"image": images})[0]
    return found


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def put_first(model: onnx.ModelProto, channels: int) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    put_channels_first(changed.graph, (HEIGHT, WIDTH, channels))
    onnx.checker.check_model(changed, full_check=True)
    return changed


@pytest.mark.parametrize(
    ("channels", "steps"),
    [
        (3, [CAST, ("Mul", [0.1, 0.3, 0.7]), ("Add", [-1.0, 0.5, 3])]),
        (3, [CAST, ("Sub", [104.0, 117, 123])]),
        (3, [CAST, ("Div", [255.0]), ("Mul", [[[[0.1, 0.3, 0.7]]]])]),
        (3, [CAST, ("Mul", 1 / 255)]),
        (1, [CAST, ("Mul", [0.1]), ("Add", [0.7])]),
        (1, [CAST, ("Mul", 0.3)]),
        (4, [CAST, ("Add", [0.1, 0.2, 0.3, 0.4])]),
        (3, [CAST]),
    ],
)
def test_the_layout_comes_first_and_not_a_bit_changes(channels: int, steps: list[Step]) -> None:
    layout = "Reshape" if channels == 1 else "Transpose"
    model = graph_of(channels, *steps, layout=layout)
    changed = put_first(model, channels)
    assert operators(changed) == [layout, *(name for name, _ in steps), "Conv"]
    np.testing.assert_array_equal(answers(changed, channels), answers(model, channels))
    assert len(changed.graph.initializer) == len(model.graph.initializer), "nothing is left over"


def test_the_constant_may_be_the_first_operand() -> None:
    model = graph_of(3, CAST, ("Sub", [104.0, 117, 123]))
    subtract = model.graph.node[1]
    subtract.input[0], subtract.input[1] = subtract.input[1], subtract.input[0]
    changed = put_first(model, 3)
    assert operators(changed)[0] == "Transpose"
    np.testing.assert_array_equal(answers(changed, 3), answers(model, 3))


def test_a_constant_that_others_use_too_stays_as_it_is() -> None:
    model = graph_of(3, CAST, ("Mul", [0.1, 0.3, 0.7]))
    model.graph.node.append(helper.make_node("Abs", ["constant1"], ["absolute"], "absolute"))
    changed = put_first(model, 3)
    assert operators(changed)[0] == "Transpose"
    kept = {tensor.name: list(tensor.dims) for tensor in changed.graph.initializer}
    assert kept["constant1"] == [3]
    np.testing.assert_array_equal(answers(changed, 3), answers(model, 3))


@pytest.mark.parametrize(
    "model",
    [
        put_first(graph_of(3, CAST, ("Mul", [0.1, 0.3, 0.7])), 3),
        graph_of(3, ("Abs", None), CAST),
        graph_of(3, CAST, ("Sqrt", None), ("Mul", [0.1, 0.3, 0.7])),
        graph_of(3, CAST, ("Mul", np.ones((WIDTH, 1)).tolist())),
        graph_of(3, CAST, ("Mul", np.ones((HEIGHT, WIDTH, 3)).tolist())),
        graph_of(3, CAST, ("Pow", [1.0, 2, 3])),
    ],
    ids=operators,
)
def test_other_beginnings_stay_as_they_are(model: onnx.ModelProto) -> None:
    assert put_first(model, 3) == model


def test_steps_that_are_used_twice_stay_as_they_are() -> None:
    model = graph_of(3, CAST, ("Mul", [0.1, 0.3, 0.7]))
    model.graph.node.append(helper.make_node("Abs", ["Cast0"], ["absolute"], "absolute"))
    assert put_first(model, 3) == model


def test_an_image_that_is_multiplied_by_itself_stays_as_it_is() -> None:
    model = graph_of(3, CAST, ("Mul", 1.0))
    model.graph.node[1].input[1] = "Cast0"
    assert put_first(model, 3) == model


def test_a_graph_with_branches_stays_as_it_is() -> None:
    """A branch sees every tensor outside it: here the scaled one."""
    model = graph_of(3, CAST, ("Mul", [0.1, 0.3, 0.7]))
    branch = helper.make_graph(
        [helper.make_node("Identity", ["Mul1"], ["inner"])],
        "branch",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )
    condition = numpy_helper.from_array(np.array(True), "condition")
    model.graph.initializer.append(condition)
    model.graph.node.append(
        helper.make_node("If", ["condition"], ["either"], then_branch=branch, else_branch=branch)
    )
    assert put_first(model, 3) == model
