"""The layout of the pixels is changed before they are scaled, not after.

Keras scales an image with its channels last, and tf2onnx changes the layout for ONNX's convolutions
behind that. onnxruntime multiplies by one number for each channel in steps of as many values as
there are channels, which makes the two operators of `Rescaling` an eighth of a whole MobileNet
(`python benchmarks/layout.py`). With channels first they cost nearly nothing, and the answers are
the same to the last bit.
"""

from collections.abc import Iterator

import onnx
from onnx import numpy_helper

from serve.bundle import INPUT

SCALING = ("Mul", "Add", "Sub", "Div")
CHANNELS_FIRST = f"{INPUT}_channels_first"


def put_channels_first(graph: onnx.GraphProto, image_shape: tuple[int, int, int]) -> None:
    """Change the layout in front of the casts and scalings that a graph begins with.

    A graph that begins with anything else, that uses one of them twice, or that has branches, stays
    as it is.

    Args:
        graph: takes `image` as `[batch, height, width, channels]`; it is changed in place.
        image_shape: height, width, channels.
    """
    branches = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
    if any(attribute.type in branches for node in graph.node for attribute in node.attribute):
        return  # what lies in a branch may use any tensor
    constants = {tensor.name: tensor for tensor in graph.initializer}
    scaling: list[onnx.NodeProto] = []
    for node in _chain(graph, INPUT):
        if _changes_layout(node, constants, image_shape):
            if scaling:
                _move(graph, node, scaling, constants)
            return
        if node.op_type != "Cast" and not _scales_channels(node, constants, image_shape[-1]):
            return
        scaling.append(node)


def _chain(graph: onnx.GraphProto, name: str) -> Iterator[onnx.NodeProto]:
    """What alone uses the tensor `name`, then what alone uses the output of that, and so on."""
    while True:
        users = [node for node in graph.node if name in node.input]
        if len(users) != 1:
            return
        yield users[0]
        name = users[0].output[0]


def _changes_layout(
    node: onnx.NodeProto,
    constants: dict[str, onnx.TensorProto],
    image_shape: tuple[int, int, int],
) -> bool:
    if node.op_type == "Transpose":
        return list(node.attribute[0].ints) == [0, 3, 1, 2]
    if node.op_type != "Reshape" or node.input[1] not in constants:
        return False
    height, width, channels = image_shape  # with one channel, it is no more than another shape
    target = numpy_helper.to_array(constants[node.input[1]]).tolist()
    return channels == 1 and target == [-1, 1, height, width]


def _scales_channels(
    node: onnx.NodeProto, constants: dict[str, onnx.TensorProto], channels: int
) -> bool:
    """Whether it takes one number for all of the image, or one for each channel."""
    if node.op_type not in SCALING:
        return False
    dims = [list(constants[name].dims) for name in node.input if name in constants]
    return len(dims) == 1 and dims[0] in ([], [1], [channels], [1, 1, 1, channels])


def _move(
    graph: onnx.GraphProto,
    layout: onnx.NodeProto,
    scaling: list[onnx.NodeProto],
    constants: dict[str, onnx.TensorProto],
) -> None:
    for node in scaling:
        for position, name in enumerate(node.input):
            if name in constants:
                numbers = numpy_helper.to_array(constants[name]).reshape(-1, 1, 1)
                node.input[position] = f"{node.output[0]}_by_channel"
                graph.initializer.append(numpy_helper.from_array(numbers, node.input[position]))
    scaling[0].input[list(scaling[0].input).index(INPUT)] = CHANNELS_FIRST
    scaling[-1].output[0] = layout.output[0]

    moved = onnx.NodeProto()
    moved.CopyFrom(layout)
    moved.input[0], moved.output[0] = INPUT, CHANNELS_FIRST
    graph.node.remove(layout)
    graph.node.insert(list(graph.node).index(scaling[0]), moved)

    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
