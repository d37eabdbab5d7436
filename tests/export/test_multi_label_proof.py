"""Mutation test of the gate for multi-label bundles: one fault, and the proof must fail.

Faults of what reads and writes are put into a copy of the package `serve`, which the batch command
and the server of the proof then run.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from scipy.special import expit

import serve
from export.examples import Examples
from export.proof import check_bundle
from serve.bundle import BundleDocument, seal
from serve.image_spec import ImageSpec

EditDocument = Callable[[Path, Callable[[dict[str, Any]], None]], None]
EditGraph = Callable[[Path, Callable[[onnx.ModelProto], None]], None]

SERVE = Path(serve.__file__).parent
NAMES = ("cat", "dog|wolf", "owl", "newt")
THRESHOLDS = (0.5, 0.3, 0.7, 0.6)
IMAGES, SIDE = 24, 6


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Examples]:
    """A bundle of four sigmoids and what it is proven on, computed here; read-only."""
    folder = tmp_path_factory.mktemp("multi-label")
    random = np.random.default_rng(7)
    pixels = random.integers(0, 256, (IMAGES, SIDE, SIDE, 1), dtype=np.uint8)
    weights = random.normal(0, 0.004, (SIDE * SIDE, len(NAMES))).astype(np.float32)
    biases = np.array([0, -0.8, 0.8, 0.4], np.float32) - 127 * weights.sum(axis=0)
    nodes = [
        helper.make_node("Cast", ["image"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["numbers"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights", "biases"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["probabilities"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", SIDE, SIDE, 1])
    answer = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 4])
    constants = [
        numpy_helper.from_array(weights, "weights"),
        numpy_helper.from_array(biases, "biases"),
    ]
    graph = helper.make_graph(nodes, "graph", [image], [answer], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    document = BundleDocument(
        class_names=NAMES, image=ImageSpec(SIDE, SIDE, 1), mean=(0.0,), std=(1.0,),
        dataset_fingerprint="", config_hash="", metrics={}, versions={}, created="",
        task="multi-label", thresholds=THRESHOLDS,
    )  # fmt: skip
    bundle = folder / "model.onnx"
    bundle.write_bytes(seal(model.SerializeToString(), document.to_json()))
    files = [folder / f"{number:02}.png" for number in range(IMAGES)]
    for file, one in zip(files, pixels, strict=True):
        Image.fromarray(one[..., 0]).save(file)
    flat = pixels.reshape(IMAGES, -1).astype(np.float64)
    reference = expit(flat @ weights + biases).astype(np.float32)
    given = reference >= np.asarray(THRESHOLDS, np.float32)
    assert len(np.unique(given, axis=0)) > 4, "all images have the same labels"
    examples = Examples(
        images=pixels, rows=np.arange(IMAGES), labels=given ^ (random.random(given.shape) < 0.1),
        files=files, reference=reference, class_names=NAMES, thresholds=THRESHOLDS,
    )  # fmt: skip
    return bundle, examples


def failed(bundle: Path, examples: Examples) -> dict[str, str]:
    """The reasons of the checks that failed."""
    expected = {"class_names": NAMES, "task": "multi-label", "thresholds": THRESHOLDS}
    checks = check_bundle(bundle, examples, expected)
    return {path: check["reason"] for path, check in checks.items() if not check["passed"]}


def test_a_sound_bundle_passes(made: tuple[Path, Examples]) -> None:
    bundle, examples = made
    expected = {"class_names": NAMES, "task": "multi-label", "thresholds": THRESHOLDS}
    checks = check_bundle(bundle, examples, expected)
    assert [path for path, check in checks.items() if not check["passed"]] == []
    given = examples.reference >= np.asarray(THRESHOLDS, np.float32)
    for path in ("onnx", "batch", "server"):
        assert checks[path]["label_agreement"] == 1
        assert checks[path]["accuracy"] == (given == examples.labels).all(axis=1).mean()


@dataclass(frozen=True)
class Change:
    """What a fault changes in a bundle's document or graph, and which checks must fail."""

    paths: set[str]
    document: Callable[[dict[str, Any]], None] | None = None
    graph: Callable[[onnx.ModelProto], None] | None = None


def put(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document.update(values)


def last_operator(name: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node[-1].op_type = name

    return change


def swap_weights(model: onnx.ModelProto) -> None:
    for item in model.graph.initializer:
        reversed_columns = numpy_helper.to_array(item)[..., ::-1].copy()
        item.CopyFrom(numpy_helper.from_array(reversed_columns, item.name))


BUNDLE_FAULTS = {
    "labels swapped": Change(
        {"batch", "server", "document"}, put(class_names=["dog|wolf", "cat", "owl", "newt"])
    ),
    "softmax for sigmoid": Change({"onnx", "batch", "server"}, graph=last_operator("Softmax")),
    "no sigmoid": Change({"onnx", "batch", "server"}, graph=last_operator("Identity")),
    "outputs reversed": Change({"onnx", "batch", "server"}, graph=swap_weights),
    "one threshold": Change(
        {"batch", "server", "document"}, put(thresholds=[0.5, 0.3, 0.7, 0.4])
    ),
    "thresholds swapped": Change(
        {"batch", "server", "document"}, put(thresholds=[0.3, 0.5, 0.7, 0.6])
    ),
    "called single-label": Change(
        {"batch", "server", "document"}, put(task="single-label", thresholds=[])
    ),
}  # fmt: skip


QUICK = ("labels swapped", "softmax for sigmoid", "one threshold")


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, id=name, marks=() if name in QUICK else pytest.mark.slow)
        for name, fault in BUNDLE_FAULTS.items()
    ],
)
def test_a_fault_in_the_bundle_fails_the_proof(
    made: tuple[Path, Examples],
    tmp_path: Path,
    edit_document: EditDocument,
    edit_graph: EditGraph,
    fault: Change,
) -> None:
    bundle, examples = made
    copy = Path(shutil.copy(bundle, tmp_path / "model.onnx"))
    if fault.document:
        edit_document(copy, fault.document)
    if fault.graph:
        edit_graph(copy, fault.graph)
    assert set(failed(copy, examples)) == fault.paths


PROGRAM_FAULTS = {
    "a threshold is above, not at": (
        "multi_label.py", "probabilities >= np.asarray", "probabilities > 0.01 + np.asarray",
        {"batch", "server"}),
    "the wrong end": (
        "multi_label.py", "return probabilities >= np", "return probabilities < np",
        {"batch", "server"}),
    "least probable first": (
        "multi_label.py", "np.argsort(-probabilities", "np.argsort(probabilities", {"batch"}),
    "names run together": ("label_list.py", 'r"\\\\\\1", name)', 'r"\\1", name)', {"batch"}),
    "labels of the next image": (
        "multi_label_rows.py", "digits(value) for _, value in given", "'0.5' for _, value in given",
        {"batch"}),
    "all labels in JSON": (
        "multi_label_rows.py", 'row["labels"] = _listed(given)',
        'row["labels"] = _listed(top_labels(prediction.probabilities, self._class_names, 4))',
        {"batch"}),
    "labels cut like the top": (
        "http/predict.py", "for index in order if given[index]]",
        "for index in order[:1] if given[index]]", {"server"}),
    "another threshold is said": (
        "http/predict.py", "thresholds[index]\n", "thresholds[0]\n", {"server"}),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAM_FAULTS)
def test_a_fault_in_the_programs_fails_the_proof(
    made: tuple[Path, Examples], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    file, old, new, paths = PROGRAM_FAULTS[name]
    copy = tmp_path / "package" / "serve"
    shutil.copytree(SERVE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    text = (copy / file).read_text("utf-8")
    assert text.count(old) == 1, f"{file} has changed: this fault is put in nowhere"
    (copy / file).write_text(text.replace(old, new), "utf-8")
    monkeypatch.setattr(serve, "__file__", str(copy / "__init__.py"))
    assert set(failed(*made)) == paths
