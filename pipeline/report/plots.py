"""The report's plots as inline SVG, drawn in the text colour of the page: light or dark."""

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

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


def learning_rate_curve(rates: Sequence[float], steps_per_epoch: int) -> str:
    """The learning rate of every step, over epochs."""
    with matplotlib.rc_context(STYLE):
        axes = _axes("learning rate")
        # A long run has more steps than the plot has pixels.
        stride = max(1, len(rates) // 2000)
        axes.plot(np.arange(0, len(rates), stride) / steps_per_epoch, rates[::stride], color=TRAIN)
        axes.set_ylim(bottom=0)
        return _svg(axes, "Learning rate by epoch")


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
        return _svg(axes, "Confusion matrix")


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
        return _svg(axes, f"{name.capitalize()} by epoch, training and validation")


def _axes(label: str) -> Axes:
    axes = Figure(figsize=(4.6, 3.1), layout="constrained").subplots()
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return axes


def _svg(axes: Axes, title: str) -> str:
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
