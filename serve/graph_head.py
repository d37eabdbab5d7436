"""What a graph does behind its last layer with weights: a sigmoid, a softmax, or nothing but sums.

The last operator alone does not tell. Exporters put casts, reshapes and identities behind a
sigmoid, and averages of several models end in a division.
"""

from serve.onnx_file import OnnxFile

SIGMOID, SOFTMAX, LINEAR, OTHER = "sigmoid", "softmax", "linear", "other"

_LAYERS = ("Conv", "Gemm", "MatMul", "Einsum", "QLinearConv", "QLinearMatMul", "QGemm")
"""How operators begin whose output is a weighted sum: the head lies behind them."""

_SHAPES = ("Shape", "Size", "Constant", "Range")
"""Operators whose output tells nothing of the values of their input."""

_LINEAR = {
    "Add", "AveragePool", "BatchNormalization", "Cast", "Concat", "DequantizeLinear", "Div",
    "Dropout", "Expand", "Flatten", "Gather", "GlobalAveragePool", "Identity", "Mean", "Mul", "Neg",
    "Pad", "QuantizeLinear", "ReduceMean", "ReduceSum", "Reshape", "Slice", "Split", "Squeeze",
    "Sub", "Sum", "Transpose", "Unsqueeze",
}  # fmt: skip
"""Operators that move, scale and add numbers: behind a layer with weights they give logits."""

_SIGMOIDS = {"Sigmoid", "HardSigmoid"}


def head(file: OnnxFile) -> str:
    """What the first output of a graph is made by.

    Returns:
        SOFTMAX: it is the last operator. SIGMOID: there is one behind the last layer; others may
        follow it, as in an average of several sigmoids. LINEAR: a layer with weights, and nothing
        behind it that bends numbers. OTHER: anything else.
    """
    if file.last_operator == "Softmax":
        return SOFTMAX
    operators, starts_at_layers = _head_operators(file)
    if operators & _SIGMOIDS:
        return SIGMOID
    return LINEAR if starts_at_layers and operators <= _LINEAR else OTHER


def _head_operators(file: OnnxFile) -> tuple[set[str], bool]:
    """The operators between the layers with weights and the first output.

    Returns:
        Their names, and whether everything that reaches the output went through such a layer.
    """
    images = {value.name for value in file.inputs}
    found: set[str] = set()
    seen: set[str] = set()
    layers = 0
    waiting = [output.name for output in file.outputs[:1]]
    while waiting:
        name = waiting.pop()
        node = file.makers.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if node.operator.startswith(_LAYERS):
            layers += 1
        elif node.operator not in _SHAPES:
            found.add(node.operator)
            waiting += node.inputs
            if images & set(node.inputs):
                return found, False
    return found, layers > 0
