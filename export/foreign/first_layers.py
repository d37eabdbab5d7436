"""Whether a model's first layers say which numbers they take a pixel for.

A `Rescaling(1 / 255)`, a `Normalization`, or the preprocessing of keras.applications in the graph
can only be meant for pixels from 0 to 255. They are found by what they do, not by their names: the
first operations that map each number on its own are run on a black and on a white image.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from export.foreign.tail import SAME_VALUES
from export.traced_graph import Function, Operation, ancestors, descendants

NUMBER_BY_NUMBER = SAME_VALUES | {
    "Add", "AddV2", "Sub", "Mul", "RealDiv", "Div", "DivNoNan", "Maximum", "Minimum", "ClipByValue",
    "Pad", "PadV2", "MirrorPad", "ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic",
    "Mean", "AvgPool", "BiasAdd",
}  # fmt: skip
"""Operations that keep a flat image flat, and whose effect on its level is the same everywhere."""

WIDE_SCALE = 30.0
"""Numbers that are divided by so much, or more, were pixels up to 255."""

FAR_CENTRE = 20.0
"""So is the number that becomes 0, if it is as large as this."""


@dataclass(frozen=True)
class FirstLayers:
    """What the first layers do to a pixel: `(pixel - centre) / scale`.

    Attributes:
        centre: the number that becomes 0.
        scale: the difference that becomes 1.
    """

    centre: float
    scale: float

    @property
    def takes_pixels(self) -> bool:
        """They are made for pixels from 0 to 255."""
        return abs(self.scale) >= WIDE_SCALE or FAR_CENTRE <= self.centre <= 255


def first_layers(function: Function) -> FirstLayers | None:
    """What the beginning of a traced function does to the numbers of its only input.

    Returns:
        The first of several branches that scales or shifts; None if none does.
    """
    ends = _ends(function)
    if not ends:
        return None
    black, white = _levels(function, ends, 0), _levels(function, ends, 255)
    found = (_measured(*pair) for pair in zip(black, white, strict=True))
    return next((item for item in found if item is not None), None)


def _ends(function: Function) -> list[tf.Tensor]:
    """The last tensors, from the image on, that were made number by number."""
    image = function.inputs[0].op
    varying = descendants(image)
    made = {image}
    grown = True
    while grown:
        users = {user for operation in made for user in _users(operation)} & varying
        new = {user for user in users - made if _keeps_flat(user, varying, made)}
        made |= new
        grown = bool(new)
    ends = [operation for operation in made if set(_users(operation)) & varying - made]
    return [operation.outputs[0] for operation in sorted(ends, key=lambda item: item.name)]


def _users(operation: Operation) -> list[Operation]:
    return [user for value in operation.outputs for user in value.consumers()]


def _keeps_flat(operation: Operation, varying: set[Operation], made: set[Operation]) -> bool:
    return operation.type in NUMBER_BY_NUMBER and all(
        value.op in made or value.op not in varying for value in operation.inputs
    )


def _levels(function: Function, ends: list[tf.Tensor], level: int) -> list[NDArray[np.float64]]:
    """What a flat image of this level becomes at each of some tensors."""
    image = function.inputs[0]
    shape = [1 if side is None else side for side in image.shape]
    feeds = {
        image.name: np.full(shape, level, image.dtype.as_numpy_dtype),
        **_weights(function, ends),
    }
    with tf.compat.v1.Session(graph=function.graph) as session:
        return [np.asarray(value, np.float64) for value in session.run(ends, feeds)]


def _weights(function: Function, ends: list[tf.Tensor]) -> dict[str, Any]:
    """Values of the variables and captured tensors that some tensors depend on, by name."""
    captured = {inner.name: outer for outer, inner in function.graph.captures}
    found = {}
    for operation in ancestors(value.op for value in ends):
        if operation.type == "ReadVariableOp" and operation.inputs[0].name in captured:
            (value,) = operation.outputs
            variable = captured[operation.inputs[0].name]
            found[value.name] = tf.raw_ops.ReadVariableOp(
                resource=variable, dtype=value.dtype
            ).numpy()
        for value in operation.outputs:
            if value.name in captured and value.dtype != tf.resource:
                found[value.name] = captured[value.name].numpy()
    return found


def _measured(black: NDArray[np.float64], white: NDArray[np.float64]) -> FirstLayers | None:
    """The line through the levels of black and white, in the middle of an image."""
    difference = np.median(white - black)
    if not np.isfinite(difference) or difference == 0:
        return None
    scale, offset = 255 / difference, np.median(black)
    centre = float(-offset * scale) + 0.0  # no -0
    return (
        None if abs(scale - 1) < 1e-6 and abs(centre) < 1e-6 else FirstLayers(centre, float(scale))
    )
