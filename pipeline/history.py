"""history.csv and pretraining.csv: a training by epoch, and how it is read."""

import csv
from collections.abc import Sequence
from pathlib import Path

HISTORY_COLUMNS = (
    "epoch",
    "step",
    "learning_rate",
    "loss",
    "accuracy",
    "val_loss",
    "val_accuracy",
    "seconds",
    "images_per_second",
)
PRETRAINING_COLUMNS = tuple(key for key in HISTORY_COLUMNS if "accuracy" not in key)
COUNTS = ("epoch", "step")

Row = dict[str, float]


def read_history(path: Path, columns: Sequence[str] = HISTORY_COLUMNS) -> list[Row]:
    """A row for every epoch; empty where there is no file, or none yet.

    Raises:
        ValueError: the file is damaged; says where.
    """
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8", errors="replace") as stream:
        reader = csv.DictReader(stream, strict=True)
        try:
            missing = [key for key in columns if key not in (reader.fieldnames or ())]
            if missing:
                raise ValueError(f"expected a column {missing[0]}")
            return [_numbers(reader.line_num, row, columns) for row in reader]
        except csv.Error as error:
            raise ValueError(f"after line {reader.line_num}: {error}") from None


def _numbers(line: int, row: dict[str, str | None], columns: Sequence[str]) -> Row:
    numbers: Row = {}
    for key in columns:
        try:
            numbers[key] = (int if key in COUNTS else float)(row[key] or "")
        except ValueError:
            raise ValueError(
                f"line {line}: expected a number as {key}, got {row[key] or 'nothing'!r}"
            ) from None
    return numbers
