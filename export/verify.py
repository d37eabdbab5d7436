"""Prove that SavedModel, ONNX bundle and batch command answer as Keras does.

    python -m export.verify runs/digits

The reference is Keras's `predict` on the test split. Every path is run for real: the SavedModel in
TensorFlow, the bundle in onnxruntime, and the batch command as a process of its own that reads the
encoded test files. The result is parity.json; a failed proof takes the bundle out of service.
"""

import csv
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import serve
from export.parity import BATCH_SIZES, TOLERANCE, Comparison, compare
from export.prepared_data import (
    MAX_PROOF_EXAMPLES,
    Manifest,
    PreparedData,
    ProofFile,
    evenly_spaced,
)
from export.quiet_tensorflow import import_tensorflow
from export.run_directory import RunDirectory
from serve.atomic import write_text
from serve.bundle import BundleError
from serve.classifier import Classifier
from serve.command import CommandParser, LockstepError, run_command

Answer = Callable[[int], NDArray[np.float32]]
"""From a batch size to the probabilities `[examples, classes]` of one path."""

Predict = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class PathError(LockstepError):
    """A path that gives no complete answer."""


class ParityError(LockstepError):
    """The proof failed."""

    exit_code = 1


@dataclass(frozen=True)
class Proof:
    """The result of all checks; the content of parity.json."""

    examples: int
    checks: dict[str, dict[str, Any]]

    @property
    def passed(self) -> bool:
        return all(check["passed"] for check in self.checks.values())

    def to_json(self) -> str:
        document = {
            "passed": self.passed,
            "reference": "keras predict",
            "tolerance": TOLERANCE,
            "batch_sizes": list(BATCH_SIZES),
            "examples": self.examples,
            "checks": self.checks,
        }
        return json.dumps(document, indent=2) + "\n"

    def failures(self) -> str:
        """One line that names every failed check and its reason."""
        return "; ".join(
            f"{name}: {check['reason']}"
            for name, check in self.checks.items()
            if not check["passed"]
        )


def prove(run: RunDirectory, bundle: Path, *, max_examples: int = MAX_PROOF_EXAMPLES) -> Proof:
    """Check every artifact of a run against Keras and write `run.parity`.

    Args:
        bundle: the ONNX file to prove.
        max_examples: test examples at most, evenly spaced over the split.

    Raises:
        LockstepError: the run is not complete, so that nothing can be proven or refuted.
    """
    # TensorFlow takes seconds to import: not needed for --help or for a missing file.
    import_tensorflow()
    from export.saved_model import SavedModel
    from export.serving_function import ExportError, load_model, reference_probabilities

    data = PreparedData.open(run.data)
    manifest = data.manifest
    files = {file.index: file for file in manifest.proof_files}
    indices = evenly_spaced(np.asarray(sorted(files), np.int64), max_examples)
    paths = _unchanged_files(data, [files[int(index)] for index in indices])
    reference = reference_probabilities(load_model(run.model), data.images, indices)

    def in_batches(predict: Predict) -> Answer:
        return lambda size: np.concatenate(
            [
                predict(data.images[indices[start : start + size]])
                for start in range(0, len(indices), size)
            ]
        )

    def batch_command(size: int) -> NDArray[np.float32]:
        return _run_batch(bundle, paths, manifest.class_names, size)

    opened: dict[str, Callable[[], Answer]] = {
        "saved_model": lambda: in_batches(SavedModel(run.saved_model).predict),
        "onnx": lambda: in_batches(Classifier(bundle).predict),
        "batch": lambda: batch_command,
    }
    checks: dict[str, dict[str, Any]] = {}
    with tqdm(total=len(opened), desc="verify", unit=" paths", disable=None) as progress:
        for name, open_path in opened.items():
            try:
                answer = open_path()
                answers = {size: answer(size) for size in BATCH_SIZES}
            except (PathError, BundleError, ExportError) as error:
                checks[name] = {"passed": False, "reason": str(error)}
            else:
                comparison = compare(reference, answers, data.labels[indices], manifest.class_names)
                checks[name] = _entry(comparison, indices)
            progress.update()
    checks["document"] = _check_document(bundle, manifest)
    proof = Proof(len(indices), checks)
    write_text(run.parity, proof.to_json())
    return proof


def _unchanged_files(data: PreparedData, files: list[ProofFile]) -> list[Path]:
    """The encoded test files, if they are still those that were prepared.

    Others would give other answers, which says nothing about the bundle.
    """
    changed = [data.proof_path(file) for file in files if not _is_unchanged(data, file)]
    if changed:
        raise LockstepError(
            f"{len(changed)} of {len(files)} test files are gone or were changed after they were "
            f"prepared, first {changed[0]}; the proof needs them: put them back, or run python -m "
            "pipeline.run again"
        )
    return [data.proof_path(file) for file in files]


def _is_unchanged(data: PreparedData, file: ProofFile) -> bool:
    path = data.proof_path(file)
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256


def _entry(comparison: Comparison, indices: NDArray[np.int64]) -> dict[str, Any]:
    entry = comparison.to_json()
    entry["worst_example"] = int(indices[comparison.worst_example])
    return entry


def _check_document(bundle: Path, manifest: Manifest) -> dict[str, Any]:
    """Whether the bundle says the same of itself as the data that it was trained on."""
    try:
        document = Classifier(bundle).document
    except BundleError as error:
        return {"passed": False, "reason": str(error)}
    pairs = {
        "class_names": (list(document.class_names), manifest.class_names),
        "image": (document.image, manifest.image_spec()),
        "mean": (list(document.mean), manifest.mean),
        "std": (list(document.std), manifest.std),
        "dataset_fingerprint": (document.dataset_fingerprint, manifest.fingerprint),
    }
    differing = [name for name, (said, expected) in pairs.items() if said != expected]
    reason = f"the bundle's document differs from the data set in {', '.join(differing)}"
    return {"passed": not differing, "reason": reason if differing else ""}


def _run_batch(
    bundle: Path, paths: list[Path], class_names: list[str], batch_size: int
) -> NDArray[np.float32]:
    """Answers of the batch command, run as a user runs it, in the data set's order of classes."""
    with tempfile.TemporaryDirectory() as folder:
        listing, output = Path(folder, "inputs.txt"), Path(folder, "predictions.csv")
        listing.write_text("".join(f"{path.resolve()}\n" for path in paths), encoding="utf-8")
        command = [
            *(sys.executable, "-m", "serve.batch", str(bundle.resolve())),
            *("--inputs-from", str(listing), "--output", str(output)),
            *("--batch-size", str(batch_size), "--probabilities", "--quiet"),
        ]
        packages = str(Path(serve.__file__).resolve().parents[1])
        path = os.pathsep.join(filter(None, (packages, os.environ.get("PYTHONPATH"))))
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
        # 1 says that no file could be read; the rows say why.
        if done.returncode not in (0, 1) or not output.is_file():
            raise PathError(f"the batch command failed: {done.stderr.strip()}")
        return _read_answers(output, len(paths), class_names)


def _read_answers(output: Path, count: int, class_names: list[str]) -> NDArray[np.float32]:
    """The probabilities in the batch command's CSV, columns in the data set's order of classes."""
    answers = np.empty((count, len(class_names)), np.float32)
    with open(output, encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream)
        known = rows.fieldnames or []
        missing = [name for name in class_names if f"p({name})" not in known]
        if missing:
            raise PathError(f"the batch command knows no class {', '.join(missing)}")
        number = 0
        for number, row in enumerate(rows, 1):
            if row["error"]:
                raise PathError(f"{row['path']} cannot be read: {row['error']}")
            if number <= count:
                answers[number - 1] = [row[f"p({name})"] for name in class_names]
    if number != count:
        raise PathError(f"the batch command gave {number} rows for {count} images")
    return answers


def main(arguments: list[str] | None = None) -> int:
    """The command. Exit code 1 if the proof fails; the bundle then loses its final name."""
    parser = CommandParser(
        prog="python -m export.verify",
        description=(
            "Prove again, on the test split, that the artifacts of a run answer as Keras does."
        ),
        epilog="example:\n  python -m export.verify runs/digits",
    )
    parser.add_argument("run_dir", metavar="RUN", help="a finished run directory")
    parser.add_argument(
        "--max-examples",
        metavar="INT",
        type=int,
        default=MAX_PROOF_EXAMPLES,
        help=f"test images at most (default: {MAX_PROOF_EXAMPLES})",
    )
    options = parser.parse_args(arguments)
    run = RunDirectory(Path(options.run_dir))
    if options.max_examples < 1:
        raise LockstepError(f"--max-examples: expected at least 1, got {options.max_examples}")
    if not run.bundle.is_file():
        raise LockstepError(
            f"{run.bundle}: no such bundle; expected a finished run directory: "
            "run python -m pipeline.run first"
        )
    proof = prove(run, run.bundle, max_examples=options.max_examples)
    print(format_proof(proof))
    if not proof.passed:
        run.bundle.replace(run.unverified_bundle)
        run.report.unlink(missing_ok=True)  # it says that the proof passed
        raise ParityError(
            f"the proof failed ({proof.failures()}); the bundle is now {run.unverified_bundle}, "
            f"see {run.parity}"
        )
    return 0


def format_proof(proof: Proof) -> str:
    """A small table for the terminal."""
    lines = [f"{'path':<12} {'result':<7} {'max difference':>14} {'labels agree':>13}"]
    for name, check in proof.checks.items():
        result = "passed" if check["passed"] else "FAILED"
        line = f"{name:<12} {result:<7}"
        if "max_difference" in check:
            line += f" {check['max_difference']:>14.1e} {check['label_agreement']:>13.2%}"
        lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    run_command(main)
