"""The batch command as a path of the proof: what it answers for the encoded files."""

import csv
import dataclasses
import json
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.examples import Examples, PathError
from export.parity import BATCH_SIZES
from export.processes import command, environment


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
