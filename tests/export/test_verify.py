"""The proof passes on what was exported, and turns red on every fault that is put in."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from export.run_directory import RunDirectory
from export.verify import ParityError, main
from serve.bundle import METADATA_KEY
from serve.command import LockstepError


def checks_after(run: Path) -> dict[str, dict[str, Any]]:
    document = json.loads((run / "parity.json").read_bytes())
    assert document["passed"] == all(check["passed"] for check in document["checks"].values())
    return document["checks"]


def failed(run: Path) -> set[str]:
    return {name for name, check in checks_after(run).items() if not check["passed"]}


def edit_document(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    model = onnx.load(run / "model.onnx")
    (entry,) = (item for item in model.metadata_props if item.key == METADATA_KEY)
    document = json.loads(entry.value)
    change(document)
    entry.value = json.dumps(document)
    onnx.save(model, run / "model.onnx")


def edit_tensor(run: Path, smallest: int, change: Callable[[np.ndarray], None]) -> None:
    """Change the first float constant of the graph with at least `smallest` values."""
    model = onnx.load(run / "model.onnx")
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if values.dtype == np.float32 and values.size >= smallest:
            change(values)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
            onnx.save(model, run / "model.onnx")
            return
    raise AssertionError("no such tensor")


def test_a_finished_run_proves_again(run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run_copy / "model.onnx").read_bytes()
    assert main([str(run_copy)]) == 0
    checks = checks_after(run_copy)
    assert set(checks) == {"document", "saved_model", "onnx", "batch"}
    for name in ("saved_model", "onnx", "batch"):
        assert checks[name]["examples"] == 359
        assert checks[name]["max_difference"] <= 1e-4
        assert checks[name]["label_agreement"] == 1
    assert (run_copy / "model.onnx").read_bytes() == before
    assert "passed" in capsys.readouterr().out


def test_a_corrupt_weight_is_caught(run_copy: Path) -> None:
    def change(values: np.ndarray) -> None:
        values.flat[0] += 1.0

    edit_tensor(run_copy, 100, change)
    with pytest.raises(ParityError):
        main([str(run_copy)])
    assert failed(run_copy) == {"onnx", "batch"}


def test_swapped_labels_are_caught(run_copy: Path) -> None:
    def swap(document: dict[str, Any]) -> None:
        names = document["class_names"]
        names[3], names[5] = names[5], names[3]

    edit_document(run_copy, swap)
    with pytest.raises(ParityError):
        main([str(run_copy)])
    assert failed(run_copy) == {"document", "batch"}


def test_another_mean_is_caught(run_copy: Path) -> None:
    """The normalization is inside the graph: the addition right behind the input."""
    model = onnx.load(run_copy / "model.onnx")
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    additions = [node for node in model.graph.node if node.op_type in ("Add", "Sub")]
    offset = next(constants[name] for name in additions[0].input if name in constants)
    values = numpy_helper.to_array(offset) + np.float32(0.1)
    offset.CopyFrom(numpy_helper.from_array(values, offset.name))
    onnx.save(model, run_copy / "model.onnx")
    with pytest.raises(ParityError):
        main([str(run_copy)])
    assert failed(run_copy) == {"onnx", "batch"}


def test_another_resize_is_caught(resized_run: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        document["image"]["resample"] = "nearest"

    edit_document(resized_run, change)
    with pytest.raises(ParityError):
        main([str(resized_run)])
    assert failed(resized_run) == {"document", "batch"}


def test_a_damaged_bundle_is_caught(run_copy: Path) -> None:
    content = (run_copy / "model.onnx").read_bytes()
    (run_copy / "model.onnx").write_bytes(content[: len(content) // 2])
    with pytest.raises(ParityError):
        main([str(run_copy)])
    checks = checks_after(run_copy)
    assert failed(run_copy) == {"onnx", "batch", "document"}
    assert "cannot open it" in checks["onnx"]["reason"]


def test_a_graph_that_fails_while_it_runs_is_caught(run_copy: Path) -> None:
    """The matrix product of the logits gets a transposed kernel: valid to load, not to run."""
    model = onnx.load(run_copy / "model.onnx")
    product = next(node for node in model.graph.node if node.op_type == "MatMul")
    kernel = next(tensor for tensor in model.graph.initializer if tensor.name == product.input[1])
    values = numpy_helper.to_array(kernel)
    reshape = helper.make_node("Reshape", [product.input[0], "shape"], ["reshaped"])
    shape = numpy_helper.from_array(np.array([-1, values.shape[0] + 1]), "shape")
    product.input[0] = "reshaped"
    model.graph.initializer.append(shape)
    model.graph.node.insert(list(model.graph.node).index(product), reshape)
    onnx.save(model, run_copy / "model.onnx")
    with pytest.raises(ParityError):
        main([str(run_copy)])
    assert failed(run_copy) >= {"onnx", "batch"}
    assert "onnxruntime cannot" in checks_after(run_copy)["onnx"]["reason"]


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_damaged_saved_model_is_caught(damage: str, run_copy: Path) -> None:
    if damage == "missing":
        shutil.rmtree(run_copy / "saved_model")
    else:
        (variables,) = (run_copy / "saved_model").glob("variables/*.data-*")
        variables.write_bytes(variables.read_bytes()[:100])
    with pytest.raises(ParityError):
        main([str(run_copy)])
    assert failed(run_copy) == {"saved_model"}
    assert "not a loadable SavedModel" in checks_after(run_copy)["saved_model"]["reason"]


@pytest.mark.parametrize("change", ["missing", "emptied", "another"])
def test_test_files_that_changed_prove_nothing(change: str, run_copy: Path) -> None:
    """Somebody edited or moved the photos: no reason to take the bundle out of service."""
    first, second = sorted((run_copy / "data" / "proof").iterdir())[:2]
    if change == "missing":
        first.unlink()
    else:
        first.write_bytes(b"" if change == "emptied" else second.read_bytes())
    before = (run_copy / "parity.json").read_bytes()
    with pytest.raises(LockstepError, match="1 of 359 test files are gone") as caught:
        main([str(run_copy)])
    assert not isinstance(caught.value, ParityError)
    assert (run_copy / "model.onnx").is_file()
    assert (run_copy / "parity.json").read_bytes() == before


def test_a_reader_that_refuses_a_test_file_is_caught(run_copy: Path) -> None:
    edit_document(run_copy, lambda document: document["image"].update(max_pixels=63))
    with pytest.raises(ParityError):
        main([str(run_copy)])
    assert failed(run_copy) == {"document", "batch"}
    assert "cannot be read: image of 8x8 = 64 pixels" in checks_after(run_copy)["batch"]["reason"]


def test_a_failed_proof_takes_the_bundle_out_of_service(
    run_copy: Path, run_module: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    edit_tensor(run_copy, 100, lambda values: values.fill(0.0))
    done = run_module("export.verify", run_copy, folder=run_copy.parent)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the proof failed (onnx: ")
    assert len(done.stderr.splitlines()) == 1
    run = RunDirectory(run_copy)
    assert not run.bundle.exists()
    assert not run.report.exists()
    assert run.unverified_bundle.exists()


def test_a_sample_of_the_test_split_can_be_proven(run_copy: Path) -> None:
    assert main([str(run_copy), "--max-examples", "50"]) == 0
    assert checks_after(run_copy)["onnx"]["examples"] == 50


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "no such bundle; expected a finished run directory"),
        ([], "the following arguments are required: RUN"),
        (["run", "--max-examples", "x"], "invalid int value: 'x'"),
    ],
)
def test_wrong_calls_are_explained(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LockstepError, match=message):
        main(arguments)


def test_a_run_without_data_is_explained(run_copy: Path) -> None:
    (run_copy / "data" / "manifest.json").unlink()
    with pytest.raises(LockstepError, match="expected a finished run directory"):
        main([str(run_copy)])


@pytest.fixture(scope="module")
def resized_original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose images are larger than the encoded originals, so that the resize matters."""
    from pipeline.run import main as run_pipeline

    run_dir = tmp_path_factory.mktemp("resized") / "run"
    options = ["--prepare.image_size", "[12, 12]", "--train.epochs", "1", "--model.name", "lenet"]
    assert run_pipeline(["--run-dir", str(run_dir), *options]) == 0
    return run_dir


@pytest.fixture
def resized_run(resized_original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(resized_original, tmp_path / "run"))
