"""Run every path of a bundle on the same images and hold it to Keras.

In onnxruntime at several batch sizes, with one thread and many, and with several callers at once;
and through the batch command, as a process of its own that reads the encoded files.
"""

import contextlib
import csv
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

import serve
from export.calibration import selective_accuracy
from export.parity import BATCH_SIZES, Check, Comparison, compare
from export.serving_function import ExportError
from export.to_onnx import check_graph
from serve.atomic import atomic_path
from serve.bundle import BundleError, Rejection, bundle_document, seal
from serve.classifier import Classifier
from serve.command import LockstepError
from serve.onnx_file import outline

CALLERS = 4

Predict = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class PathError(LockstepError):
    """A path that gives no complete answer."""


@dataclasses.dataclass(frozen=True)
class Examples:
    """What a proof is made on.

    Attributes:
        images: uint8 `[all, height, width, channels]`, typically memory-mapped.
        rows: int64 `[examples]`, the images that are proven.
        labels: int64 `[examples]`, or None where they are not known.
        files: the encoded file of each example.
        reference: float32 `[examples, classes]`, Keras's probabilities.
        class_names: label of each column.
        threshold: probability below which an answer is uncertain, if there is one.
    """

    images: NDArray[np.uint8]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64] | None
    files: Sequence[Path]
    reference: NDArray[np.float32]
    class_names: Sequence[str]
    threshold: float | None = None

    def batches(self, size: int) -> Iterator[NDArray[np.uint8]]:
        """The images in order, `size` at a time."""
        for start in range(0, len(self.rows), size):
            yield self.images[self.rows[start : start + size]]


def check_bundle(
    bundle: Path,
    examples: Examples,
    expected: Mapping[str, Any],
    *,
    allowed_drop: float | None = None,
    progress: Callable[[str], None] = lambda path: None,
) -> dict[str, Check]:
    """All checks of one ONNX file, by path.

    Args:
        expected: fields of the document and their values.
        allowed_drop: as in `parity.compare`.
        progress: told the name of each path before it is run.
    """
    checks = {}
    for path, run in (("onnx", onnx_runs), ("batch", command_runs)):
        progress(path)
        checks[path] = check_runs(lambda run=run: run(bundle, examples), examples, allowed_drop)  # type: ignore[misc]
    checks["graph"] = _check_graph(bundle)
    checks["document"] = _check_document(bundle, expected)
    return checks


def check_runs(
    runs: Callable[[], Mapping[str, NDArray[np.float32]]],
    examples: Examples,
    allowed_drop: float | None = None,
) -> Check:
    """Compare one path with Keras; a path that cannot be run has failed."""
    try:
        answers = runs()
        for name, answer in answers.items():
            if answer.shape != examples.reference.shape:
                raise PathError(
                    f"expected answers of shape {list(examples.reference.shape)} at {name}, "
                    f"got {list(answer.shape)}"
                )
    except (PathError, BundleError, ExportError) as error:
        return {"passed": False, "reason": str(error)}
    comparison = compare(
        examples.reference,
        answers,
        examples.labels,
        examples.class_names,
        allowed_drop=allowed_drop,
    )
    check = _with_row(comparison, examples.rows)
    if examples.threshold is not None and examples.labels is not None:
        first = next(iter(answers.values()))
        check["coverage"], check["certain_accuracy"] = selective_accuracy(
            first, examples.labels, examples.threshold
        )
    return check


def predict_runs(predict: Predict, examples: Examples) -> dict[str, NDArray[np.float32]]:
    """The answers of a function, at every batch size of the proof."""
    return {
        f"batches of {size}": np.concatenate([predict(batch) for batch in examples.batches(size)])
        for size in BATCH_SIZES
    }


def onnx_runs(bundle: Path, examples: Examples) -> dict[str, NDArray[np.float32]]:
    """The answers of onnxruntime."""
    classifier, single = Classifier(bundle), Classifier(bundle, threads=1)
    expected = examples.images.shape[1:]
    if classifier.document.image.shape != expected:
        raise PathError(
            f"the bundle takes images of shape {list(classifier.document.image.shape)}, "
            f"expected {list(expected)}"
        )
    runs = predict_runs(classifier.predict, examples)
    largest, odd = examples.batches(max(BATCH_SIZES)), examples.batches(7)
    runs["one thread"] = np.concatenate([single.predict(batch) for batch in largest])
    with ThreadPoolExecutor(CALLERS) as pool:
        runs[f"{CALLERS} callers at once"] = np.concatenate(list(pool.map(classifier.predict, odd)))
    return runs


def command_runs(bundle: Path, examples: Examples) -> dict[str, NDArray[np.float32]]:
    """The answers of the batch command, as CSV and as JSON lines."""
    runs = {
        f"batches of {size}": _run_batch(bundle, examples, "csv", "--batch-size", str(size))
        for size in BATCH_SIZES
    }
    single = ("--threads", "1", "--workers", "1")
    runs["one thread"] = _run_batch(bundle, examples, "jsonl", *single)
    return runs


def release(source: Path, target: Path, checks: Mapping[str, Check]) -> None:
    """Give a proven file its final name, with the figures of its proof in its document.

    The graph's bytes stay those that were proven. An int8 file gets its own test figures, too.
    """
    content = source.read_bytes()
    document = bundle_document(content)
    parity = headline(checks)
    if document.precision == "int8":
        found = checks["onnx"]
        rejection = document.rejection
        if rejection is not None:
            rejection = Rejection(rejection.threshold, found["coverage"], found["certain_accuracy"])
        metrics = {name: found[name] for name in ("accuracy", "examples")}
        document = dataclasses.replace(document, metrics=metrics, rejection=rejection)
    document = dataclasses.replace(document, parity=parity)
    with atomic_path(target) as temporary:
        temporary.write_bytes(seal(content, document.to_json()))


def withdraw(bundle: Path, target: Path) -> None:
    """Take a file that failed its proof out of service, and older proof figures out of it."""
    content = bundle.read_bytes()
    with contextlib.suppress(LockstepError):  # damaged: it says nothing that anyone would believe
        document = bundle_document(content)
        content = seal(content, dataclasses.replace(document, parity={}).to_json())
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)
    bundle.unlink()


def headline(checks: Mapping[str, Check]) -> dict[str, dict[str, float]]:
    """The figures of a proof that a bundle carries along."""
    names = ("examples", "max_difference", "label_agreement", "accuracy", "accuracy_difference")
    return {
        path: {name: check[name] for name in names if check[name] is not None}
        for path, check in checks.items()
        if "max_difference" in check
    }


def _with_row(comparison: Comparison, rows: NDArray[np.int64]) -> Check:
    check = comparison.to_json()
    check["worst_example"] = int(rows[comparison.worst_example])
    return check


def _check_graph(bundle: Path) -> Check:
    """Whether the file itself, read by another library than the one that runs it, is a bundle's."""
    try:
        content = bundle.read_bytes()
        outline(content)
        check_graph(onnx.load_model_from_string(content))
    except (DecodeError, LockstepError) as error:
        return {"passed": False, "reason": " ".join(str(error).split())}
    return {"passed": True, "reason": ""}


def _check_document(bundle: Path, expected: Mapping[str, Any]) -> Check:
    """Whether the bundle says of itself what is true."""
    try:
        document = bundle_document(bundle.read_bytes())
    except LockstepError as error:
        return {"passed": False, "reason": f"{bundle}: {error}"}
    differing = [name for name, value in expected.items() if getattr(document, name) != value]
    reason = f"the bundle's document differs from the run in {', '.join(differing)}"
    return {"passed": not differing, "reason": reason if differing else ""}


def _run_batch(bundle: Path, examples: Examples, form: str, *options: str) -> NDArray[np.float32]:
    """Answers of the batch command, run as a user runs it, in the examples' order of classes.

    Behind the examples it gets a file that is no image: that must not become an answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        listing, output = Path(folder, "inputs.txt"), Path(folder, f"predictions.{form}")
        damaged = Path(folder, "damaged.png")
        damaged.write_bytes(b"no image")
        files = [str(path.resolve()) for path in (*examples.files, damaged)]
        listing.write_text(
            "".join(f"{file}\n" for file in files), encoding="utf-8", errors="surrogateescape"
        )
        command = [
            *(sys.executable, "-m", "serve.batch", str(bundle.resolve())),
            *("--inputs-from", str(listing), "--output", str(output)),
            *("--probabilities", "--quiet", *options),
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
        rows = _csv_rows(output) if form == "csv" else _json_rows(output)
        return _answers(rows, files, examples.class_names)


@dataclasses.dataclass(frozen=True)
class _Row:
    """One row of the batch command's output, whichever the format."""

    path: str
    label: str
    probability: float
    probabilities: Mapping[str, float]
    error: str


def _csv_rows(output: Path) -> Iterator[_Row]:
    with open(output, encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            columns = {name[2:-1]: value for name, value in row.items() if name.startswith("p(")}
            numbers = {} if row["error"] else {name: float(columns[name]) for name in columns}
            yield _Row(
                row["path"], row["label"], float(row["probability"] or 0), numbers, row["error"]
            )


def _json_rows(output: Path) -> Iterator[_Row]:
    with open(output, encoding="utf-8") as stream:
        for line in stream:
            row = json.loads(line)
            best: dict[str, Any] = next(iter(row["predictions"]), {"label": "", "probability": 0})
            yield _Row(
                row["path"],
                best["label"],
                best["probability"],
                row.get("probabilities", {}),
                row["error"] or "",
            )


def _answers(
    rows: Iterable[_Row], files: Sequence[str], class_names: Sequence[str]
) -> NDArray[np.float32]:
    """The probabilities of all files but the last, which must be an error.

    Raises:
        PathError: a row is missing, is about another file, contradicts itself, or is an error.
    """
    answers = np.empty((len(files) - 1, len(class_names)), np.float32)
    number = -1
    for number, row in enumerate(rows):
        if number == len(answers):
            if not row.error:
                raise PathError("the batch command labelled a file that is no image")
            continue
        if number > len(answers):
            continue  # counted below
        file = files[number]
        if row.error:
            raise PathError(f"{row.path} cannot be read: {row.error}")
        missing = [name for name in class_names if name not in row.probabilities]
        if missing:
            raise PathError(f"the batch command knows no class {', '.join(missing)}")
        if row.path not in (file, _written(file)):
            raise PathError(f"the batch command answered for {row.path}, expected {file}")
        if row.label not in class_names or row.probability != row.probabilities[row.label]:
            raise PathError(f"{row.path}: {row.label} {row.probability} contradicts its row")
        answers[number] = [row.probabilities[name] for name in class_names]
        if row.probability != max(row.probabilities.values()):
            raise PathError(f"{row.path}: {row.label} {row.probability} is not the best of its row")
    if number + 1 != len(files):
        raise PathError(f"the batch command gave {number + 1} rows for {len(files)} images")
    return answers


def _written(path: str) -> str:
    """A path as it is in CSV: bytes that are no text as escapes, which JSON reads back."""
    return path.encode("utf-8", "backslashreplace").decode()
