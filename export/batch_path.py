"""The batch command as a path of the proof: what it answers for the encoded files."""

import csv
import dataclasses
import json
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.examples import Examples, PathError
from export.label_sets import Labels, check_label_set
from export.parity import BATCH_SIZES
from export.processes import command, environment
from serve.label_list import split_labels


def command_runs(bundle: Path, examples: Examples) -> dict[str, NDArray[np.float32]]:
    """The answers of the batch command, as CSV and as JSON lines."""
    runs = {
        f"batches of {size}": _run_batch(bundle, examples, "csv", "--batch-size", str(size))
        for size in BATCH_SIZES
    }
    single = ("--threads", "1", "--workers", "1")
    runs["one thread"] = _run_batch(bundle, examples, "jsonl", *single)
    return runs


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
        arguments = [
            *(str(bundle.resolve()), "--inputs-from", str(listing), "--output", str(output)),
            *("--probabilities", "--quiet", *options),
        ]
        done = subprocess.run(
            command("serve.batch", *arguments),
            cwd=folder,
            env=environment(),
            capture_output=True,
            text=True,
        )
        # 1 says that no file could be read; the rows say why.
        if done.returncode not in (0, 1) or not output.is_file():
            raise PathError(f"the batch command failed: {done.stderr.strip()}")
        rows = _csv_rows(output) if form == "csv" else _json_rows(output)
        try:
            return _answers(rows, files, examples)
        except (ValueError, LookupError, TypeError) as error:
            raise PathError(
                f"the batch command's rows are not as they should be: {error}"
            ) from error


@dataclasses.dataclass(frozen=True)
class _Row:
    """One row of the batch command's output, whichever the format.

    Attributes:
        labels: the labels that it gives the image, with their probabilities: the best one, or of a
            multi-label model all that reach their threshold.
        probabilities: of every label.
    """

    path: str
    labels: Labels
    probabilities: Mapping[str, float]
    error: str


def _csv_rows(output: Path) -> Iterator[_Row]:
    with open(output, encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            columns = {name[2:-1]: value for name, value in row.items() if name.startswith("p(")}
            numbers = {} if row["error"] else {name: float(columns[name]) for name in columns}
            yield _Row(row["path"], _csv_labels(row), numbers, row["error"])


def _csv_labels(row: Mapping[str, str]) -> Labels:
    if "labels" not in row:
        return [(row["label"], float(row["probability"] or 0))]
    values = map(float, filter(None, row["probabilities"].split("|")))
    return list(zip(split_labels(row["labels"]), values, strict=True))


def _json_rows(output: Path) -> Iterator[_Row]:
    with open(output, encoding="utf-8") as stream:
        for line in stream:
            row = json.loads(line)
            given = row["labels"] if "labels" in row else row["predictions"][:1]
            labels = [(item["label"], item["probability"]) for item in given]
            yield _Row(row["path"], labels, row.get("probabilities", {}), row["error"] or "")


def _answers(rows: Iterable[_Row], files: Sequence[str], examples: Examples) -> NDArray[np.float32]:
    """The probabilities of all files but the last, which must be an error.

    Raises:
        PathError: a row is missing, is about another file, contradicts itself, or is an error.
    """
    class_names = examples.class_names
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
        answers[number] = [row.probabilities[name] for name in class_names]
        if examples.thresholds:
            check_label_set(row.path, row.labels, answers[number], examples)
        else:
            _check_best(row)
    if number + 1 != len(files):
        raise PathError(f"the batch command gave {number + 1} rows for {len(files)} images")
    return answers


def _check_best(row: _Row) -> None:
    """The one label that a row gives is the best of its probabilities."""
    ((label, probability),) = row.labels or [("", 0.0)]
    if probability != row.probabilities.get(label):
        raise PathError(f"{row.path}: {label} {probability} contradicts its row")
    if probability != max(row.probabilities.values()):
        raise PathError(f"{row.path}: {label} {probability} is not the best of its row")


def _written(path: str) -> str:
    """A path as it is in CSV: bytes that are no text as escapes, which JSON reads back."""
    return path.encode("utf-8", "backslashreplace").decode()
