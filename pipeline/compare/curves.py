"""The curves of several runs over each other, each run with the same line in every picture."""

from collections.abc import Sequence
from itertools import accumulate

from pipeline.compare.runs import ComparedRun
from pipeline.history import Row
from pipeline.report.plots import INK, Line, overlaid

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", INK, "#a67c00", "#3f94d1")
"""Apart for the colour-blind (after Okabe and Ito 2008), and visible on white as on black."""
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 1.6), (1.2, 1.2), (7, 1.6, 1.2, 1.6), (2.5, 1.2))
LINES = len(COLORS) * len(DASHES)
"""So many runs have a line of their own; the numbers of colours and dashes share no factor."""

CURVES = {
    "loss": "training loss",
    "val_loss": "validation loss",
    "accuracy": "training accuracy",
    "val_accuracy": "validation accuracy",
    "learning_rate": "learning rate",
}
SECONDS = "seconds of training"


def color(position: int) -> str:
    """The colour of the run at this position, for the page's legend."""
    return COLORS[position % len(COLORS)].replace(INK, "currentColor")


def dashes(position: int) -> tuple[float, ...]:
    """Strokes and gaps of the run at this position, in widths of its line."""
    return DASHES[position % len(DASHES)]


def pictures(runs: Sequence[ComparedRun]) -> list[str]:
    """Overlaid curves as SVG; none while no run has an epoch."""
    if not any(run.history for run in runs):
        return []
    over_time = _picture(runs, "val_accuracy", SECONDS)
    return [*(_picture(runs, key, "epoch") for key in CURVES), over_time]


def _picture(runs: Sequence[ComparedRun], key: str, x_label: str) -> str:
    lines = [
        Line(
            _x(run.history, x_label),
            [row[key] for row in run.history],
            COLORS[position % len(COLORS)],
            dashes(position),
            f"run-{position}",
        )
        for position, run in enumerate(runs)
        if run.history
    ]
    return overlaid(
        lines,
        f"{CURVES[key].capitalize()} by {x_label}",
        x_label=x_label,
        y_label=CURVES[key],
        is_share=key.endswith("accuracy"),
    )


def _x(history: Sequence[Row], label: str) -> list[float]:
    if label == SECONDS:
        return list(accumulate(row["seconds"] for row in history))
    return [row["epoch"] for row in history]
