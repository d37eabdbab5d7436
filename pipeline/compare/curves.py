"""The curves of several runs over each other, each run with the same line in every picture."""

from collections.abc import Callable, Sequence
from itertools import accumulate

from pipeline.compare.runs import ComparedRun, Row
from pipeline.report.plots import Line, overlaid

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#a67c00", "#7a7a7a", "#3f94d1")
"""Apart for the colour-blind (after Okabe and Ito 2008), and visible on white as on black."""
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 1.6), (1.2, 1.2), (7, 1.6, 1.2, 1.6), (2.5, 1.2))
LINES = len(COLORS) * len(DASHES)
"""So many runs have a line of their own; the numbers of colours and dashes share no factor."""


def color(position: int) -> str:
    """The colour of the run at this position."""
    return COLORS[position % len(COLORS)]


def dashes(position: int) -> tuple[float, ...]:
    """Strokes and gaps of the run at this position, in widths of its line."""
    return DASHES[position % len(DASHES)]


def pictures(runs: Sequence[ComparedRun]) -> list[str]:
    """Overlaid curves as SVG; none while no run has an epoch."""
    if not any(run.history for run in runs):
        return []
    of_epochs = [
        _picture(runs, title, "epoch", label, _epochs, key)
        for title, label, key in (
            ("Training loss by epoch", "training loss", "loss"),
            ("Validation loss by epoch", "validation loss", "val_loss"),
            ("Training accuracy by epoch", "training accuracy", "accuracy"),
            ("Validation accuracy by epoch", "validation accuracy", "val_accuracy"),
            ("Learning rate by epoch", "learning rate", "learning_rate"),
        )
    ]
    over_time = _picture(
        runs,
        "Validation accuracy over seconds of training",
        "seconds of training",
        "validation accuracy",
        _seconds,
        "val_accuracy",
    )
    return [*of_epochs, over_time]


def _picture(
    runs: Sequence[ComparedRun],
    title: str,
    x_label: str,
    y_label: str,
    x: Callable[[Sequence[Row]], list[float]],
    key: str,
) -> str:
    lines = [
        Line(
            x(run.history),
            [row[key] for row in run.history],
            color(position),
            dashes(position),
            f"run-{position}",
        )
        for position, run in enumerate(runs)
        if run.history
    ]
    return overlaid(lines, title, x_label=x_label, y_label=y_label)


def _epochs(history: Sequence[Row]) -> list[float]:
    return [row["epoch"] for row in history]


def _seconds(history: Sequence[Row]) -> list[float]:
    return list(accumulate(row["seconds"] for row in history))
