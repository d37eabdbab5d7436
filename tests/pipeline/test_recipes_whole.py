"""The published recipes, run whole: they reach what they promise."""

import csv
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from export.prepared_data import PreparedData
from export.serving_function import load_model
from pipeline.data.sources import fashion_mnist

pytestmark = pytest.mark.slow


Run = Callable[..., None]


@pytest.fixture
def run(run_module: Callable[..., subprocess.CompletedProcess[str]]) -> Run:
    """Run a module, which must succeed."""

    def succeed(module: str, *arguments: str | Path, folder: Path) -> None:
        done = run_module(module, *arguments, folder=folder)
        assert done.returncode == 0, done.stderr

    return succeed


def batch_accuracy(
    run: Run, run_dir: Path, folder: Path, bundle: str = "model.onnx"
) -> tuple[float, int]:
    """Accuracy of the ONNX file on the encoded test images, read by the batch command."""
    data = PreparedData.open(run_dir / "data")
    files = data.manifest.proof_files
    listing = folder / "inputs.txt"
    listing.write_text("".join(f"{data.proof_path(file).resolve()}\n" for file in files))
    output = folder / "predictions.csv"
    run("serve.batch", run_dir / bundle, "--inputs-from", listing, "--output", output,
        folder=folder)  # fmt: skip
    with open(output, newline="") as stream:
        labels = [row["label"] for row in csv.DictReader(stream)]
    names = data.manifest.class_names
    right = [
        names[data.labels[file.index]] == label for file, label in zip(files, labels, strict=True)
    ]
    return float(np.mean(right)), len(right)


def assert_int8_is_kept_or_explained(run: Run, run_dir: Path, folder: Path) -> None:
    """Whether it is faster here is for the machine to say; what is kept must be as accurate."""
    tried = json.loads((run_dir / "quantization.json").read_bytes())
    assert len(tried["trials"]) >= 3
    proof = json.loads((run_dir / "parity.json").read_bytes())["int8"]
    kept = (run_dir / "model.int8.onnx").is_file()
    assert kept == (proof is not None and proof["passed"])
    if kept:
        assert min(tried["chosen"]["speedup"].values()) > 1
        accuracy, _ = batch_accuracy(run, run_dir, folder, "model.int8.onnx")
        float_accuracy = json.loads((run_dir / "metrics.json").read_bytes())["accuracy"]
        assert accuracy >= float_accuracy - 0.005 - 1e-9
        size = (run_dir / "model.int8.onnx").stat().st_size
        assert size < 0.5 * (run_dir / "model.onnx").stat().st_size
    elif proof is None:
        assert tried["reason"]


def test_digits_twice(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The promised accuracy, and the same command gives the same weights and the same bundle."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    for name in ("one", "two"):
        run("pipeline.run", "--run-dir", name, folder=tmp_path)
    one, two = tmp_path / "one", tmp_path / "two"
    accuracy, examples = batch_accuracy(run, one, tmp_path)
    assert examples == 359
    assert accuracy >= 0.985
    assert json.loads((one / "metrics.json").read_bytes())["accuracy"] == pytest.approx(accuracy)
    assert json.loads((one / "parity.json").read_bytes())["passed"]
    assert_int8_is_kept_or_explained(run, one, tmp_path)
    for weight, same in zip(
        load_model(one / "model.keras").get_weights(),
        load_model(two / "model.keras").get_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(weight, same)
    assert (one / "model.onnx").read_bytes() == (two / "model.onnx").read_bytes()
    assert (one / "metrics.json").read_bytes() == (two / "metrics.json").read_bytes()


def test_fashion_mnist(run: Run, tmp_path: Path) -> None:
    if not fashion_mnist.DIRECTORY.is_dir():
        if os.environ.get("CI"):
            pytest.fail("dataset-fashion-mnist is not installed")
        pytest.skip("dataset-fashion-mnist is not installed")
    run("pipeline.run", "--recipe", "fashion-mnist", folder=tmp_path)
    run_dir = tmp_path / "runs" / "fashion-mnist"
    splits = PreparedData.open(run_dir / "data").manifest.splits
    assert [len(splits[name]) for name in ("train", "validation", "test")] == [
        54_000,
        6_000,
        10_000,
    ]
    accuracy, examples = batch_accuracy(run, run_dir, tmp_path)
    assert examples == 10_000
    assert accuracy >= 0.925
    assert json.loads((run_dir / "parity.json").read_bytes())["passed"]
    assert_int8_is_kept_or_explained(run, run_dir, tmp_path)
