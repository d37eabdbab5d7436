"""The plots of a sweep as inline SVG. They cope with one trial, and with none that ended well."""

import math
import statistics
from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from optuna.trial import FrozenTrial, TrialState

from pipeline.options.training import MONITORS
from pipeline.report.plots import INK, STYLE, TRAIN, VALIDATION, svg
from pipeline.sweep.describe import ENDINGS
from pipeline.sweep.search import Search
from pipeline.sweep.space import Choices
from pipeline.sweep.study import ranked

BEST = "#18a058"


def history(trials: Sequence[FrozenTrial], search: Search) -> str:
    """The figure of every trial, and the best so far."""
    with matplotlib.rc_context(STYLE):
        axes = _axes("trial", search.objective)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        places = [float(trial.number) for trial in trials]
        _scatter(axes, trials, places, ranked(trials, search.objective)[:1])
        numbers, values, best = [], [], math.nan
        sign = 1 if MONITORS[search.objective] == "max" else -1
        for trial in trials:
            if trial.state is TrialState.COMPLETE and trial.value is not None:
                better = math.isnan(best) or sign * trial.value > sign * best
                best = trial.value if better else best
            if not math.isnan(best):
                numbers.append(trial.number)
                values.append(best)
        axes.step(numbers, values, where="post", color=BEST, label="best so far")
        _scale(axes, trials, search)
        _legend(axes)
        return svg(axes, "Figure of each trial, and the best so far")


def importances(shares: Mapping[str, float]) -> str:
    """How much each parameter mattered, as bars."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6, max(1.6, 0.6 + 0.34 * len(shares))), layout="constrained")
        axes = figure.subplots()
        names = list(shares)[::-1]
        axes.barh(names, [shares[name] for name in names], color=TRAIN)
        axes.set_xlabel("share of the importance")
        axes.grid(axis="y", visible=False)
        return svg(axes, "Importance of each parameter")


def epochs(trials: Sequence[FrozenTrial], search: Search) -> str:
    """The figure of every trial by epoch."""
    best = ranked(trials, search.objective)[:1]
    with matplotlib.rc_context(STYLE):
        axes = _axes("epoch", search.objective)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        named = set()
        for trial in sorted(trials, key=lambda trial: trial in best):
            steps = sorted(trial.intermediate_values)
            if not steps:
                continue
            is_best = trial in best
            name = "best" if is_best else ENDINGS[trial.state]
            axes.plot(
                steps,
                [trial.intermediate_values[step] for step in steps],
                color=BEST if is_best else _COLORS[trial.state],
                linewidth=2.2 if is_best else 0.9,
                alpha=1 if is_best else 0.6,
                marker="o" if len(steps) == 1 or trial.state is TrialState.PRUNED else "",
                markersize=3,
                markevery=[-1],
                label="" if name in named else name,
            )
            named.add(name)
        _scale(axes, trials, search, by_epoch=True)
        _legend(axes)
        return svg(axes, "Figure by epoch, one line for each trial")


def slices(trials: Sequence[FrozenTrial], search: Search) -> dict[str, str]:
    """For each key of the space, the figure of every trial by the value it had."""
    pictures = {}
    for key, values in search.space.items():
        having = [trial for trial in trials if key in trial.params]
        with matplotlib.rc_context(STYLE):
            axes = _axes(key, search.objective)
            if isinstance(values, Choices):
                texts = [values.known_as(value) for value in values.values]
                places = [float(texts.index(trial.params[key])) for trial in having]
                axes.set_xticks(range(len(texts)), [_label(text) for text in texts])
                axes.set_xlim(-0.5, len(texts) - 0.5)
            else:
                places = [trial.params[key] for trial in having]
                if values.log:
                    axes.set_xscale("log")
            _scatter(axes, having, places, ranked(trials, search.objective)[:1])
            _scale(axes, trials, search)
            pictures[key] = svg(axes, f"Figure by {key}")
    return pictures


_COLORS = {
    TrialState.COMPLETE: TRAIN,
    TrialState.PRUNED: VALIDATION,
    TrialState.RUNNING: INK,
    TrialState.FAIL: INK,
}


def _scatter(
    axes: Axes, trials: Sequence[FrozenTrial], places: Sequence[float], best: Sequence[FrozenTrial]
) -> None:
    for state, marker in ((TrialState.COMPLETE, "o"), (TrialState.PRUNED, "x")):
        points = [
            (place, trial.value)
            for trial, place in zip(trials, places, strict=True)
            if trial.state is state and trial.value is not None
        ]
        if points:
            x, y = zip(*points, strict=True)
            name = ENDINGS[state]
            axes.scatter(x, y, s=22, marker=marker, color=_COLORS[state], alpha=0.85, label=name)
    for trial, place in zip(trials, places, strict=True):
        if trial in best and trial.value is not None:
            axes.scatter(place, trial.value, s=46, color=BEST, label="best", zorder=3)


def _scale(
    axes: Axes, trials: Sequence[FrozenTrial], search: Search, *, by_epoch: bool = False
) -> None:
    """Keep hopeless trials from pressing all others together: a loss on a logarithmic scale, and
    an accuracy that is far below the others out of the picture.
    """
    lists: list[Sequence[float | None]] = [
        list(trial.intermediate_values.values()) if by_epoch else [trial.value] for trial in trials
    ]
    values = [value for items in lists for value in items if value is not None]
    if MONITORS[search.objective] == "min":
        if values and min(values) > 0:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
    elif len(values) >= 8:
        best, quartile = max(values), statistics.quantiles(values, n=4)[0]
        lowest = best - 2.5 * (best - quartile)
        if min(values) < lowest < best:
            axes.set_ylim(lowest, best + 0.05 * (best - lowest))


def _axes(x: str, y: str) -> Axes:
    axes = Figure(figsize=(4.6, 3.1), layout="constrained").subplots()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return axes


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[1]:
        axes.legend()


def _label(text: str) -> str:
    text = text.strip('"')
    return text if len(text) <= 14 else f"{text[:13]}…"
