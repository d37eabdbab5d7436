"""Prove that SavedModel, ONNX bundle, batch command and server answer as Keras does.

    python -m export.verify runs/digits

The reference is Keras's `predict` on the test split. Every path is run for real: the SavedModel in
TensorFlow, the bundle in onnxruntime, and the batch command and the server as processes of their
own that read the encoded test files. The int8 bundle, where there is one, is held to the accuracy.
The result is parity.json; a failed proof takes the bundle out of service.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from export.parity import BATCH_SIZES, MAX_DROP, MAX_LOSS_RISE, TOLERANCE, Check
from export.prepared_data import (
    MAX_PROOF_EXAMPLES,
    PreparedData,
    ProofFile,
    evenly_spaced,
)
from export.quiet_tensorflow import import_tensorflow
from export.run_directory import RunDirectory
from export.run_document import run_document
from export.run_lock import claimed
from serve.atomic import write_text
from serve.command import CommandParser, LockstepError, run_command


class ParityError(LockstepError):
    """The proof failed."""

    exit_code = 1


@dataclass(frozen=True)
class Proof:
    """The result of all checks; the content of parity.json.

    Attributes:
        examples: how many test images.
        checks: by path; one that failed fails the proof.
        int8: the checks of the int8 bundle, or None if there is none. They decide about that file
            alone.
    """

    examples: int
    checks: dict[str, Check]
    int8: dict[str, Check] | None = None

    @property
    def passed(self) -> bool:
        return _all_passed(self.checks)

    @property
    def int8_passed(self) -> bool:
        return self.int8 is not None and _all_passed(self.int8)

    def to_json(self) -> str:
        int8 = {"passed": self.int8_passed, "checks": self.int8} if self.int8 else None
        document = {
            "passed": self.passed,
            "reference": "keras predict",
            "tolerance": TOLERANCE,
            "max_drop": MAX_DROP,
            "max_loss_rise": MAX_LOSS_RISE,
            "batch_sizes": list(BATCH_SIZES),
            "examples": self.examples,
            "checks": self.checks,
            "int8": int8,
        }
        return json.dumps(document, indent=2) + "\n"


def _all_passed(checks: dict[str, Check]) -> bool:
    return all(check["passed"] for check in checks.values())


def failures(checks: dict[str, Check]) -> str:
    """One line that names every failed check and its reason."""
    return "; ".join(
        f"{name}: {check['reason']}" for name, check in checks.items() if not check["passed"]
    )


def prove(
    run: RunDirectory, bundle: Path, int8: Path, *, max_examples: int = MAX_PROOF_EXAMPLES
) -> Proof:
    """Check every artifact of a run against Keras and write `run.parity`.

    Args:
        bundle: the ONNX file to prove.
        int8: the int8 file to prove, if it is there.
        max_examples: test examples at most, evenly spaced over the split.

    Raises:
        LockstepError: the run is not complete, so that nothing can be proven or refuted.
    """
    # TensorFlow takes seconds to import: not needed for --help or for a missing file.
    import_tensorflow()
    from export.examples import Examples
    from export.proof import BUNDLE_PATHS, check_bundle, check_runs, predict_runs
    from export.saved_model import SavedModel
    from export.serving_function import load_model, predict_logits, probabilities_of

    data = PreparedData.open(run.data)
    manifest = data.manifest
    files = {file.index: file for file in manifest.proof_files}
    rows = evenly_spaced(np.asarray(sorted(files), np.int64), max_examples)
    paths = _unchanged_files(data, [files[int(row)] for row in rows])
    expected = run_document(run)
    logits = predict_logits(load_model(run.model), data.images, rows)
    examples = Examples(
        images=data.images,
        rows=rows,
        labels=data.labels[rows],
        files=paths,
        reference=probabilities_of(logits, expected["temperature"]),
        class_names=manifest.class_names,
        threshold=expected["rejection"].threshold if expected["rejection"] else None,
    )
    expected["precision"] = "float32"
    bundles: list[tuple[str, Path, dict[str, Any], float | None]] = [("", bundle, expected, None)]
    if int8.is_file():
        # Its own test figures and its verdict are what this proof finds.
        own = ("metrics", "rejection", "verdict")
        fields = {name: value for name, value in expected.items() if name not in own}
        bundles.append(("int8 ", int8, {**fields, "precision": "int8"}, MAX_DROP))
    with tqdm(
        total=1 + len(BUNDLE_PATHS) * len(bundles), desc="verify", unit=" paths", disable=None
    ) as bar:

        def progress(path: str) -> None:
            bar.set_postfix_str(path)
            bar.update()

        progress("saved_model")
        saved_model = check_runs(
            lambda: predict_runs(SavedModel(run.saved_model).predict, examples), examples
        )
        results = [
            check_bundle(
                path,
                examples,
                fields,
                allowed_drop=allowed_drop,
                progress=lambda name, prefix=prefix: progress(prefix + name),  # type: ignore[misc]
            )
            for prefix, path, fields, allowed_drop in bundles
        ]
    proof = Proof(
        len(rows), {"saved_model": saved_model, **results[0]}, results[1] if results[1:] else None
    )
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
    with claimed(run):
        _prove_again(run, options.max_examples)
    return 0


def _prove_again(run: RunDirectory, max_examples: int) -> None:
    proof = prove(run, run.bundle, run.int8_bundle, max_examples=max_examples)
    from export.proof import withdraw

    print(format_checks(proof.checks))
    if proof.int8:
        print(format_checks({f"int8 {name}": check for name, check in proof.int8.items()}))
    withdrawn = []
    if not proof.passed:
        withdraw(run.bundle, run.unverified_bundle)
        withdrawn.append((run.unverified_bundle, proof.checks))
    if proof.int8 and not proof.int8_passed:
        withdraw(run.int8_bundle, run.unverified_int8_bundle)
        withdrawn.append((run.unverified_int8_bundle, proof.int8))
    if withdrawn:
        run.report.unlink(missing_ok=True)  # it says that the proof passed
        what = "; ".join(f"{path.name}: {failures(checks)}" for path, checks in withdrawn)
        raise ParityError(
            f"the proof failed ({what}); the file has lost its final name, see {run.parity}"
        )


def format_checks(checks: dict[str, Check]) -> str:
    """A small table for the terminal."""
    lines = [
        f"{'path':<14} {'result':<7} {'max difference':>14} {'labels agree':>13}  worst example"
    ]
    for name, check in checks.items():
        result = "passed" if check["passed"] else "FAILED"
        line = f"{name:<14} {result:<7}"
        if "max_difference" in check:
            line += f" {check['max_difference']:>14.1e} {check['label_agreement']:>13.2%}"
            line += f"  {check['worst_example']}: " + " / Keras ".join(
                f"{label} {probability:.4f}"
                for label, probability in (check["worst_answer"], check["worst_reference"])
            )
        lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    run_command(main)
