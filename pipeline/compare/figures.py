"""The figures of runs, which of them is the best, and in what the configs differ."""

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from export.intervals import wilson_interval
from pipeline.compare.runs import ComparedRun
from pipeline.options.training import MONITORS, TIES
from pipeline.recipe import fingerprint, flat
from serve.bundle import Finding
from serve.rounding import percent, significant
from serve.verdict import overall

Figure = str | int | float | None


def same_images(run: ComparedRun) -> Hashable:
    """Equal for runs on the same images, split in the same way."""
    return run.fingerprint


def same_loss(run: ComparedRun) -> Hashable:
    """Equal for runs on the same images whose losses mean the same."""
    model = run.config.model.model_dump()
    loss = [run.config.train.loss.model_dump(), model.get("l1"), model.get("l2")]
    return run.fingerprint, fingerprint(loss)


@dataclass(frozen=True)
class Column:
    """A figure that every run may have.

    Attributes:
        key: its name in comparison.csv.
        title: its name on the page.
        form: how the page shows it, as in `format`.
        best: whether more of it is better, or less; None for a figure that is not judged.
        among: runs with the same value of this are comparable in it.
        of: key of the number of images that it is a share of; None for what is no share.
    """

    key: str
    title: str
    form: str
    best: Literal["max", "min"] | None = None
    among: Callable[[ComparedRun], Hashable] = same_images
    of: str | None = None

    def show(self, value: Figure, examples: int | None = None) -> str:
        """For the page; a share with the digits that so many images know."""
        if value is None:
            return ""
        if examples and isinstance(value, float) and self.of:
            return percent(value, examples)
        if self.form == "significant" and isinstance(value, int | float):
            return significant(value)
        return format(value, self.form).replace("%", " %")


COLUMNS = (
    Column("test_accuracy", "test accuracy", ".2%", "max", of="test_images"),
    Column("test_accuracy_low", "95 % from", ".2%", of="test_images"),
    Column("test_accuracy_high", "to", ".2%", of="test_images"),
    Column("test_images", "test images", ",d"),
    Column("precision_macro", "precision", ".2%", "max", of="test_images"),
    Column("recall_macro", "recall", ".2%", "max", of="test_images"),
    Column("f1_macro", "F1", ".2%", "max", of="test_images"),
    Column("classes_tested", "over classes", "d"),
    Column("test_loss", "test cross-entropy", "significant", "min"),
    Column("verdict", "verdict on the model", ""),
    Column("monitor", "epoch chosen by", ""),
    Column("best_value", "its best", "significant"),
    Column("best_epoch", "in epoch", "d"),
    Column("val_accuracy", "validation accuracy", ".2%", "max", of="validation_images"),
    Column("val_loss", "validation loss", "significant", "min", same_loss),
    Column("epochs", "epochs", "d"),
    Column("steps", "steps", ",d"),
    Column("training_seconds", "training, s", ",.1f", "min"),
    Column("images_per_second", "images/s", ",.0f", "max"),
    Column("parameters", "parameters", ",d", "min"),
    Column("bundle_bytes", "bundle, bytes", ",d", "min"),
    Column("int8_bytes", "int8, bytes", ",d", "min"),
    Column("latency_ms", "latency, ms", "significant", "min"),
    Column("int8_latency_ms", "int8 latency, ms", "significant", "min"),
)


def figures(run: ComparedRun) -> dict[str, Figure]:
    """The figures of a run by the keys of `COLUMNS`, and on how many `validation_images` some of
    them rest; None for what it does not have.

    The validation figures are those of the best epoch, of those done so far; `images_per_second` is
    the median over the epochs, latencies are those at batch 1.
    """
    metrics, training, history = run.metrics, run.training, run.history
    low, high = metrics.get("accuracy_interval", (None, None))
    monitor = training.get("monitor", run.config.train.monitor)
    best_epoch = training.get("best_epoch") or _best_epoch(run)
    best = history[best_epoch - 1] if best_epoch else {}
    latency = run.quantization.get("latency_ms", {})
    return {
        "test_accuracy": metrics.get("accuracy"),
        "test_accuracy_low": low,
        "test_accuracy_high": high,
        "test_images": metrics.get("examples"),
        "precision_macro": metrics.get("precision_macro"),
        "recall_macro": metrics.get("recall_macro"),
        "f1_macro": metrics.get("f1_macro"),
        "classes_tested": metrics.get("classes_tested"),
        "test_loss": metrics.get("loss"),
        "verdict": _verdict(metrics),
        "monitor": monitor,
        "best_value": training.get("best_value", best.get(monitor)),
        "best_epoch": best_epoch,
        "val_accuracy": best.get("val_accuracy"),
        "val_loss": best.get("val_loss"),
        "validation_images": metrics.get("calibration", {}).get("examples"),
        "epochs": len(history),
        "steps": int(history[-1]["step"]) if history else 0,
        "training_seconds": round(sum(row["seconds"] for row in history), 1),
        "images_per_second": (
            statistics.median(row["images_per_second"] for row in history) if history else None
        ),
        "parameters": training.get("parameters"),
        "bundle_bytes": run.bundle_bytes,
        "int8_bytes": run.int8_bytes,
        "latency_ms": latency.get("float32", {}).get("1"),
        "int8_latency_ms": latency.get("int8", {}).get("1"),
    }


def best_of(column: Column, runs: Sequence[ComparedRun], values: Sequence[Figure]) -> set[int]:
    """Positions of the runs that are best in a column, among those comparable with them.

    Only finished runs count, and where all are equal none is the best.
    """
    groups: dict[Hashable, dict[int, Any]] = defaultdict(dict)
    for position, (run, value) in enumerate(zip(runs, values, strict=True)):
        if run.is_finished and value is not None and not _is_nan(value):
            groups[column.among(run)][position] = value
    best: set[int] = set()
    for group in groups.values():
        if column.best and len(set(group.values())) > 1:
            wanted = max(group.values()) if column.best == "max" else min(group.values())
            best |= {position for position, value in group.items() if value == wanted}
    return best


def undecided(
    column: Column, runs: Sequence[ComparedRun], rows: Sequence[Mapping[str, Figure]]
) -> set[int]:
    """Positions of the runs among which the images do not decide who is best in a column.

    Two shares are too close where one lies in the 95 % interval of the other (Wilson 1927).
    """
    best = best_of(column, runs, [row[column.key] for row in rows])
    tied: set[int] = set()
    for leader in best:
        for position, (run, row) in enumerate(zip(runs, rows, strict=True)):
            comparable = run.is_finished and column.among(run) == column.among(runs[leader])
            if comparable and position != leader and _too_close(column, row, rows[leader]):
                tied |= {position, leader}
    return tied


def _too_close(column: Column, row: Mapping[str, Figure], leader: Mapping[str, Figure]) -> bool:
    (low, value, high), (other_low, other, other_high) = (
        _interval(column, figures) for figures in (row, leader)
    )
    return low <= other <= high or other_low <= value <= other_high


def _interval(column: Column, row: Mapping[str, Figure]) -> tuple[float, float, float]:
    """Lower end, value and upper end; nan where it is no share of a known number of images."""
    value, images = row[column.key], row.get(column.of or "")
    if not isinstance(value, int | float) or not isinstance(images, int) or not images:
        return math.nan, math.nan, math.nan
    low, high = wilson_interval(round(value * images), images)
    return low, value, high


def _verdict(metrics: Mapping[str, Any]) -> str | None:
    findings = [Finding(**finding) for finding in metrics.get("verdict", [])]
    return overall(findings) if findings else None


def differing(runs: Sequence[ComparedRun]) -> dict[str, list[str]]:
    """Every config key in which they differ, with its value in each; "" where there is none."""
    trees = [
        {key: _text(value) for key, value in flat(run.config.model_dump()).items()} for run in runs
    ]
    keys = dict.fromkeys(key for tree in trees for key in tree)
    rows = {key: [tree.get(key, "") for tree in trees] for key in keys}
    return {key: values for key, values in rows.items() if len(set(values)) > 1}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _best_epoch(run: ComparedRun) -> int | None:
    """The best epoch so far, of equals the one with the lower loss; None before the first."""
    monitor = run.config.train.monitor
    sign = 1 if MONITORS[monitor] == "max" else -1
    loss = TIES.get(monitor, monitor)
    judged = [row for row in run.history if not _is_nan(row[monitor])]
    best = max(judged, key=lambda row: (sign * row[monitor], -row[loss]), default=None)
    return int(best["epoch"]) if best else None


def _is_nan(value: Figure) -> bool:
    return isinstance(value, float) and math.isnan(value)
