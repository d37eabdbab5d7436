"""onnxruntime's static quantizer, told what to do: QDQ, signed 8 bits, per channel."""

import contextlib
import io
import logging
import math
import platform
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from serve.bundle import INPUT

CALIBRATION_BYTES = 2_000_000
"""Pixels whose activations are held in memory at a time; those take some 100 times as much."""

WITH_WEIGHTS = ("Conv", "Gemm", "MatMul")

OPERATORS = {
    "convolutions": ("Conv",),
    "convolutions and matrix products": WITH_WEIGHTS,
    "all but normalization and softmax": (
        "Add",
        "AveragePool",
        "Clip",
        "Concat",
        "Conv",
        "Gemm",
        "GlobalAveragePool",
        "MatMul",
        "MaxPool",
        "Mul",
        "Pad",
        "ReduceMean",
        "Relu",
        "Reshape",
        "Sigmoid",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    ),
}
"""What is tried. The input's normalization and the softmax, with the temperature, stay in float:
8 bits for pixels that are 8 bits already gain nothing, and a probability needs more than 256 steps.
"""

METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}


@dataclass(frozen=True)
class Images:
    """Some images of an array: uint8 `[all, height, width, channels]`, rows int64 `[examples]`."""

    images: NDArray[np.uint8]
    rows: NDArray[np.int64]

    def row_batches(self, size: int) -> Iterator[NDArray[np.int64]]:
        """The rows, `size` at a time."""
        for start in range(0, len(self.rows), size):
            yield self.rows[start : start + size]

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The images of some rows."""
        return np.ascontiguousarray(self.images[rows])


def prepare(bundle: Path, output: Path) -> None:
    """Write `bundle` with its shapes inferred and its simple fusions done."""
    with _quiet():
        quant_pre_process(str(bundle), str(output), skip_symbolic_shape=True)


def write_quantized(
    prepared: Path,
    output: Path,
    *,
    operators: str,
    method: str,
    images: Images,
    layers: Sequence[str],
    kept_in_float: Sequence[str] = (),
    reduced_range: bool,
) -> None:
    """Quantize some layers of a prepared model.

    Args:
        operators: key of `OPERATORS`.
        method: key of `METHODS`, by which the ranges are found on `images`.
        layers: names of the nodes that may be quantized, if their operator is among the chosen.
        kept_in_float: names of nodes that are not.
        reduced_range: 7 bits for weights.
    """
    with _quiet():
        quantize_static(
            str(prepared),
            str(output),
            Reader(images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(OPERATORS[operators]),
            nodes_to_quantize=list(layers),
            nodes_to_exclude=list(kept_in_float),
            per_channel=True,
            reduce_range=reduced_range,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=METHODS[method],
            extra_options={"CalibStridedMinMax": 1},  # works for every method
        )


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hands the calibration images to onnxruntime, one batch for each range that it sets.

    Left to itself, the quantizer keeps every activation of all images in memory at once.
    """

    def __init__(self, images: Images) -> None:
        size = math.prod(images.images.shape[1:])
        self._batches = list(images.row_batches(max(1, min(64, CALIBRATION_BYTES // size))))
        self._images = images
        self._next = iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._next = iter(self._batches[start_index:end_index])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        rows = next(self._next, None)
        return None if rows is None else {INPUT: self._images.read(rows)}


def quantizable_layers(model: onnx.ModelProto) -> list[tuple[str, str]]:
    """Name and operator of the nodes between the first layer with weights and the softmax."""
    nodes = list(model.graph.node)
    heavy = [number for number, node in enumerate(nodes) if node.op_type in WITH_WEIGHTS]
    if not heavy:
        return []
    # Behind the last layer there is only the temperature.
    return [(node.name, node.op_type) for node in nodes[heavy[0] : heavy[-1] + 1]]


def needs_reduced_range() -> bool:
    """Whether 8-bit products can overflow on this processor: x86 without VNNI.

    There pairs of products are summed in 16 bits; 7-bit weights leave room. See "Data type
    selection" in https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        features = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return True  # unknown: what is right on every processor
    return "avx512_vnni" not in features and "avx_vnni" not in features


def without_notes(path: Path) -> onnx.ModelProto:
    """The quantized model without the notes and the unused operator sets that the tools leave."""
    model = onnx.load(path)
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    kept = [item for item in model.opset_import if item.domain == ""]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    model.producer_name, model.producer_version = "lockstep", ""
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """onnxruntime's quantizer prints its progress and hints for its own developers."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
