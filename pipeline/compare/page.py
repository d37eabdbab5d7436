"""comparison.html: everything a person wants to see of several runs, in one file."""

from collections import defaultdict
from collections.abc import Sequence

from pipeline.compare import curves
from pipeline.compare.figures import COLUMNS, best_of, differing, figures, same_loss, undecided
from pipeline.compare.runs import ComparedRun
from pipeline.report.rendering import render


def page(runs: Sequence[ComparedRun]) -> str:
    """The page as self-contained HTML, free of scripts."""
    rows = [figures(run) for run in runs]
    columns = [
        column for column in COLUMNS if any(row[column.key] is not None for row in rows)
    ]  # nobody needs a column of nothing
    values = {column.key: [row[column.key] for row in rows] for column in columns}
    images: dict[str, list[ComparedRun]] = defaultdict(list)
    for run in runs:
        images[run.fingerprint].append(run)
    differences = differing(runs)
    best = {column.key: best_of(column, runs, values[column.key]) for column in columns}
    return render(
        "comparison.html",
        runs=runs,
        columns=columns,
        values=values,
        best=best,
        undecided={column.key: undecided(column, runs, rows) for column in columns},
        images_of=[
            [row.get(column.of) if column.of else None for column in columns] for row in rows
        ],
        images=images,
        differences=differences,
        other_losses=len({same_loss(run) for run in runs}) > len(images),
        pictures=curves.pictures(runs),
        color=curves.color,
        dashes=curves.dashes,
        lines=curves.LINES,
    )
