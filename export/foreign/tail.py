"""What makes a model's answers: the end of its traced graph, read from the output backwards.

Not its last layer: a sigmoid may hide behind a cast, a reshape or an average, and the numbers are
then those of a sigmoid all the same.
"""

import tensorflow as tf

from export.traced_graph import Function, Operation, descendants

SOFTMAX, SIGMOID, LOGARITHM, RAW, MIXED = "softmax", "sigmoid", "log-softmax", "raw", "mixed"
"""
A softmax's values, a sigmoid's, the logarithm of a softmax, numbers of any size (of a convolution
or a dense layer, say), or something computed from the first two that may be any of them.
"""

SAME_VALUES = frozenset({
    "Identity", "IdentityN", "Cast", "EnsureShape", "Reshape", "Squeeze", "ExpandDims", "Snapshot",
    "StopGradient", "PreventGradient", "CheckNumerics", "Transpose", "PlaceholderWithDefault",
    "StridedSlice", "Slice", "GatherV2", "ConcatV2", "Pack", "Unpack", "Split", "SplitV",
    "Tile", "BroadcastTo", "ReverseV2",
})  # fmt: skip
ARITHMETIC = frozenset({
    "Add", "AddV2", "AddN", "Sub", "Mul", "RealDiv", "Div", "DivNoNan", "Neg", "Reciprocal", "Inv",
    "Mean", "Sum", "Prod", "Max", "Min", "Maximum", "Minimum", "ClipByValue", "Pow", "Square",
    "Sqrt", "Rsqrt", "Abs", "SelectV2", "Select", "Round", "Floor", "Log", "Log1p",
    "AvgPool", "MaxPool", "Xlogy",
})  # fmt: skip
UNKNOWN = frozenset({
    "Exp", "Expm1", "While", "StatelessWhile", "If", "StatelessIf", "Case", "PartitionedCall",
    "StatefulPartitionedCall", "PyFunc", "EagerPyFunc", "Erf", "Erfc", "Sign", "Greater", "Less",
    "GreaterEqual", "LessEqual", "Equal", "TopKV2", "HardSigmoid", "ArgMax", "OneHot",
})  # fmt: skip
"""What may give any numbers: by hand a softmax is made of exponentials, for one."""


def kind_of_answers(function: Function) -> str:
    """What makes the only output of a traced function with one input of its own.

    Returns:
        `SOFTMAX` or `SIGMOID` only where the output has these very values, moved or cast at most;
        `MIXED` where something was computed from them.
    """
    image = function.inputs[0].op
    return _Reader(descendants(image)).kind(function.outputs[0].op)


class _Reader:
    """Reads backwards, each operation once.

    Args:
        varying: the operations that depend on the image; all others are constants and weights.
    """

    def __init__(self, varying: set[Operation]) -> None:
        self._varying = varying
        self._known: dict[Operation, str] = {}

    def kind(self, operation: Operation) -> str:
        if operation not in self._known:
            self._known[operation] = RAW  # a graph of inference has no cycles outside of loops
            self._known[operation] = self._find(operation)
        return self._known[operation]

    def _find(self, operation: Operation) -> str:
        if operation.type in ("Softmax", "Sigmoid"):
            return SOFTMAX if operation.type == "Softmax" else SIGMOID
        if operation.type == "LogSoftmax":
            return LOGARITHM
        if operation.type in UNKNOWN:
            return MIXED
        if operation.type not in SAME_VALUES | ARITHMETIC:
            return RAW
        return _combined(operation, [self.kind(value.op) for value in self._sources(operation)])

    def _sources(self, operation: Operation) -> list[tf.Tensor]:
        return [value for value in operation.inputs if value.op in self._varying]


def _combined(operation: Operation, kinds: list[str]) -> str:
    """The kind of what is computed from several."""
    found = set(kinds)
    if not found or RAW in found:  # a gate times a feature map is a feature map
        return RAW
    if operation.type == "Log" and found == {SOFTMAX}:
        return LOGARITHM
    unchanged = operation.type in SAME_VALUES and len(found) == 1
    if unchanged and not (operation.type in ("ConcatV2", "Pack") and found == {SOFTMAX}):
        return next(iter(found))
    return MIXED
