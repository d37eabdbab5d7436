"""The report's plots as inline SVG, drawn in the text colour of the page: light or dark."""

import io
import math
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import AutoLocator, MaxNLocator

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


def loss_curve(history: Sequence[dict[str, float]]) -> str:
    """Training and validation loss by epoch."""
    return _curves(history, "loss", "cross-entropy")


def accuracy_curve(history: Sequence[dict[str, float]]) -> str:
    """Training and validation accuracy by epoch."""
    return _curves(history, "accuracy", "accuracy")


def learning_rate_curve(
    rates: Sequence[float], steps_per_epoch: int, lowered: Sequence[int] = ()
) -> str:
    """The learning rate of every step, over epochs.

    Args:
        lowered: epochs after which an adaptive schedule lowered its bounds.
    """
    with matplotlib.rc_context(STYLE):
        axes = _axes("learning rate")
        # A long run has more steps than the plot has pixels.
        stride = max(1, len(rates) // 2000)
        axes.plot(np.arange(0, len(rates), stride) / steps_per_epoch, rates[::stride], color=TRAIN)
        for epoch in lowered:
            axes.axvline(epoch, color=INK, linewidth=0.8, linestyle="--")
        if lowered:
            axes.set_xlabel("epoch (dashed: the bounds were lowered)")
        axes.set_ylim(bottom=0)
        return svg(axes, "Learning rate by epoch")


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


def _curves(history: Sequence[dict[str, float]], name: str, label: str) -> str:
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
        return svg(axes, f"{name.capitalize()} by epoch, training and validation")


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
