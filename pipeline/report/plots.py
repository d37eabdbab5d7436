"""The report's plots as inline SVG, drawn in the text colour of the page: light or dark."""

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import AutoLocator, MaxNLocator

from pipeline.training.range_test import Point, Suggestion

INK = "#123456"  # replaced by the page's text colour
TRAIN, VALIDATION = "#2f6fde", "#e0762f"

STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lockstep",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.15,
    "grid.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Line:
    """One of several lines in a picture.

    Attributes:
        color: INK for that of the page's text.
        dashes: lengths of strokes and gaps, in widths of the line; none for a solid one.
        css_class: by which the page that holds the picture finds the line.
    """

    x: Sequence[float]
    y: Sequence[float]
    color: str
    dashes: tuple[float, ...]
    css_class: str


WIDE = 20
"""Positive values whose largest is so many times the smallest get a logarithmic axis."""


def overlaid(
    lines: Sequence[Line], title: str, *, x_label: str, y_label: str, is_share: bool = False
) -> str:
    """Several lines in one picture, without a legend: that is the page's.

    Args:
        is_share: values are shares, whose axis is never logarithmic.
    """
    with matplotlib.rc_context(STYLE):
        axes = _axes(y_label)
        axes.set_xlabel(x_label)
        for line in lines:
            axes.plot(
                line.x,
                line.y,
                color=line.color,
                linestyle=(0, line.dashes) if line.dashes else "-",
                marker="o" if len(line.x) == 1 else "",
                gid=line.css_class,
            )
        values = [value for line in lines for value in line.y]
        if not is_share and min(values) > 0 and max(values) > WIDE * min(values):
            axes.set_yscale("log")
        text = svg(axes, title)
    for line in lines:  # a page has several pictures, and an id must be unique
        text = text.replace(f'id="{line.css_class}"', f'class="{line.css_class}"')
    return text


def loss_curve(history: Sequence[dict[str, float]]) -> str:
    """Training and validation loss by epoch."""
    return _curves(history, "loss")


def pretraining_curve(history: Sequence[dict[str, float]]) -> str:
    """Contrastive loss of training and validation by epoch."""
    return _curves(history, "loss", "contrastive loss")


def accuracy_curve(history: Sequence[dict[str, float]]) -> str:
    """Training and validation accuracy by epoch."""
    return _curves(history, "accuracy")


def learning_rate_curve(
    planned: Sequence[float],
    steps_per_epoch: int,
    taken: Sequence[tuple[int, float]],
    decided: Sequence[tuple[int, str]] = (),
) -> str:
    """The learning rate of every step as planned, over epochs, and some as they really were.

    Args:
        taken: steps, counted from 1, with the optimizer's rate.
        decided: epochs after which an adaptive schedule decided, and whether it "kept" or
            "lowered" its bounds.
    """
    with matplotlib.rc_context(STYLE):
        axes = _axes("learning rate")
        # A long run has more steps than the plot has pixels.
        stride = max(1, len(planned) // 2000)
        steps = np.arange(0, len(planned), stride)
        axes.plot(steps / steps_per_epoch, planned[::stride], color=TRAIN, label="planned")
        axes.plot(
            [(step - 1) / steps_per_epoch for step, _ in taken],
            [rate for _, rate in taken],
            color=VALIDATION,
            linestyle="",
            marker="o",
            markersize=3,
            label="taken, at the end of an epoch",
        )
        for what, style in (("kept", ":"), ("lowered", "--")):
            for number, epoch in enumerate(epoch for epoch, found in decided if found == what):
                label = f"bounds {what}" if number == 0 else None
                axes.axvline(epoch, color=INK, linewidth=0.8, linestyle=style, label=label)
        if "lowered" in dict(decided).values():
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        # Within the axes it would cover lines: some schedules are everywhere.
        axes.figure.legend(loc="outside upper center", ncols=2)
        return svg(axes, "Learning rate by epoch, planned and taken")


def range_test_curve(points: Sequence[Point], suggestion: Suggestion | None) -> str:
    """The loss of a range test over the rate, as measured and smoothed."""
    rates = [point.learning_rate for point in points]
    smoothed = [point.smoothed for point in points]
    with matplotlib.rc_context(STYLE):
        axes = Figure(figsize=(8, 4), layout="constrained").subplots()
        axes.plot(
            rates, [point.loss for point in points], color=TRAIN, alpha=0.35, label="of each step"
        )
        axes.plot(rates, smoothed, color=TRAIN, linewidth=2, label="smoothed")
        if suggestion:
            for rate, style, label in (
                (suggestion.steepest, "-", "steepest descent"),
                (suggestion.tenth, "--", "a tenth of the lowest"),
                (suggestion.lowest, ":", "lowest"),
            ):
                axes.axvline(rate, color=VALIDATION, linestyle=style, label=label)
        axes.set_xscale("log")
        # Where it diverges, the loss is of another size than all before.
        axes.set_ylim(0, 1.4 * max(smoothed[: int(np.argmin(smoothed)) + 1]))
        axes.set_xlabel("learning rate")
        axes.set_ylabel("loss")
        axes.legend()
        return svg(axes, "Loss by learning rate, of each step and smoothed")


def reliability_diagram(bins: Sequence[dict[str, float]], title: str) -> str:
    """Accuracy by confidence (DeGroot and Fienberg 1983); a bar's strength is its share."""
    most = max(item["examples"] for item in bins)
    with matplotlib.rc_context(STYLE):
        axes = _axes("accuracy")
        axes.set_xlabel(f"confidence {title}")
        axes.xaxis.set_major_locator(AutoLocator())
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle="--", label="as it should be")
        for item in bins:
            axes.bar(
                (item["low"] + item["high"]) / 2,
                item["accuracy"],
                width=item["high"] - item["low"],
                color=TRAIN,
                alpha=0.2 + 0.8 * math.sqrt(item["examples"] / most),
                edgecolor=TRAIN,
            )
        axes.plot(
            [item["confidence"] for item in bins],
            [item["accuracy"] for item in bins],
            color=VALIDATION,
            marker="o",
            markersize=3,
            label="measured",
        )
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
        axes.legend(loc="upper left")
        return svg(axes, f"Reliability diagram, {title}")


def confusion_image(matrix: Sequence[Sequence[int]]) -> str:
    """A confusion matrix of many classes as a picture: share of each true class, by row."""
    counts = np.asarray(matrix, float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        axes = Figure(figsize=(6, 5.4)).subplots()
        picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        axes.figure.colorbar(picture, label="share of the true class")
        return svg(axes, "Confusion matrix")


def _curves(history: Sequence[dict[str, float]], name: str, label: str = "") -> str:
    label = label or name
    epochs = [row["epoch"] for row in history]
    with matplotlib.rc_context(STYLE):
        axes = _axes(label)
        marker = "o" if len(epochs) == 1 else ""
        for key, title, color in (
            (name, "training", TRAIN),
            (f"val_{name}", "validation", VALIDATION),
        ):
            axes.plot(
                epochs, [row[key] for row in history], color=color, label=title, marker=marker
            )
        axes.legend()
        return svg(axes, f"{label.capitalize()} by epoch, training and validation")


def _axes(label: str) -> Axes:
    axes = Figure(figsize=(4.6, 3.1), layout="constrained").subplots()
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return axes


def svg(axes: Axes, title: str) -> str:
    """The figure as an `<svg>` element with a title for screen readers."""
    stream = io.StringIO()
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = re.sub(r"^.*?(?=<svg )", "", text, flags=re.DOTALL)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text.replace(INK, "currentColor")
    return text.replace("<svg ", f'<svg role="img" aria-label="{title}" class="plot" ', 1)
