"""The page of a sweep: every trial, and what mattered."""

from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial, TrialState

from pipeline.options.training import MONITORS
from pipeline.recipe import dump_yaml
from pipeline.report.rendering import render
from pipeline.sweep import plots
from pipeline.sweep.describe import ENDINGS, short_names, show
from pipeline.sweep.directory import SweepDirectory
from pipeline.sweep.search import Search
from pipeline.sweep.study import REASON, Study, by_value, ranked
from serve.atomic import write_text

LEAST_FOR_IMPORTANCES = 10
"""Trials: the best tenth of fewer is none."""


@dataclass(frozen=True)
class Row:
    """A trial as the table has it."""

    number: int
    state: str
    value: float | None
    epochs: int
    reason: str
    cells: list[str]


def write_page(study: Study, sweep: SweepDirectory, search: Search) -> None:
    """Write `sweep.page` from the storage."""
    trials = study.trials
    names = short_names(search.space)
    best = ranked(trials, search.objective)[:1]
    page = render(
        "sweep.html",
        name=sweep.path.resolve().name,
        sweep=sweep,
        data=search.base.data,
        objective=search.objective,
        direction="highest" if MONITORS[search.objective] == "max" else "lowest",
        best=best[0] if best else None,
        found={key: show(value) for key, value in search.values(best[0]).items()} if best else {},
        counts={state.name: sum(t.state is state for t in trials) for state in TrialState},
        wanted=search.trials,
        epochs=sum(len(trial.intermediate_values) for trial in trials),
        history=plots.history(trials, search),
        by_epoch=plots.epochs(trials, search),
        importances=_importances(study, trials, names),
        least=LEAST_FOR_IMPORTANCES,
        slices=plots.slices(trials, search),
        columns=[names[key] for key in search.space],
        rows=[_row(trial, search) for trial in by_value(trials, search.objective)],
        document=dump_yaml(search.document()),
    )
    write_text(sweep.page, page)


def _importances(study: Study, trials: list[FrozenTrial], names: dict[str, str]) -> str | None:
    """None where nothing can be said: too few trials, or all with the same figure."""
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    if len(complete) < LEAST_FOR_IMPORTANCES or len({trial.value for trial in complete}) < 2:
        return None
    # One trial with a parameter, or one without it, is nothing to compare with.
    having = {key: sum(key in trial.params for trial in complete) for key in names}
    keys = [key for key, count in having.items() if count > 1 and len(complete) - count != 1]
    shares = optuna.importance.get_param_importances(study.optuna, params=keys)
    return plots.importances({names[key]: share for key, share in shares.items()})


def _row(trial: FrozenTrial, search: Search) -> Row:
    values = search.values(trial)
    return Row(
        number=trial.number,
        state=ENDINGS[trial.state],
        value=trial.value,
        epochs=len(trial.intermediate_values),
        reason=trial.user_attrs.get(REASON, ""),
        cells=[show(values[key]) if key in values else "" for key in search.space],
    )
