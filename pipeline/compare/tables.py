"""comparison.csv, one row for each run, and curves.csv, one for each epoch of each run."""

import csv
import io
from collections.abc import Iterable, Sequence

from pipeline.compare.figures import COLUMNS, Figure, differing, figures
from pipeline.compare.runs import ComparedRun
from pipeline.history import HISTORY_COLUMNS

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A text that begins so is a formula to a spreadsheet (OWASP, CSV injection)."""


def runs_table(runs: Sequence[ComparedRun]) -> str:
    """comparison.csv: name, state, data, `COLUMNS`, then every config key that differs."""
    differences = differing(runs)
    header = ["run", "state", "data", "fingerprint", *(column.key for column in COLUMNS)]
    rows: list[list[Figure]] = [[*header, *differences]]
    for position, run in enumerate(runs):
        values = figures(run)
        rows.append(
            [
                *(run.name, run.state, run.source, run.fingerprint),
                *(values[column.key] for column in COLUMNS),
                *(texts[position] for texts in differences.values()),
            ]
        )
    return _csv(rows)


def curves_table(runs: Sequence[ComparedRun]) -> str:
    """curves.csv: the history of every run, with its name before each row."""
    rows: list[list[Figure]] = [["run", *HISTORY_COLUMNS]]
    for run in runs:
        rows += [[run.name, *(row[key] for key in HISTORY_COLUMNS)] for row in run.history]
    return _csv(rows)


def _csv(rows: Iterable[Sequence[Figure]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _cell(value: Figure) -> Figure:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
