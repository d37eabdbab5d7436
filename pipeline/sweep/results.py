"""What a sweep leaves for people: the table of its trials, the best recipe, and the page."""

import csv
import io
import json
import shlex
from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

from pipeline.recipe import to_yaml
from pipeline.sweep.describe import ENDINGS
from pipeline.sweep.directory import SweepDirectory
from pipeline.sweep.page import write_page
from pipeline.sweep.search import Search
from pipeline.sweep.study import REASON, Study, by_value, ranked
from serve.atomic import remove, write_text


def write_results(study: Study, sweep: SweepDirectory, search: Search) -> None:
    """Write trials.csv, best.yaml and sweep.html from what is in the storage."""
    trials = study.trials
    write_text(sweep.table, _table(trials, search))
    best = ranked(trials, search.objective)[:1]
    if best:
        write_text(sweep.best, _recipe(best[0], trials, sweep, search))
    else:
        remove(sweep.best)
    write_page(study, sweep, search)


def _table(trials: Sequence[FrozenTrial], search: Search) -> str:
    """A row for each trial: `trial,state,FIGURE,epochs,reason` and one column per key."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["trial", "state", search.objective, "epochs", "reason", *search.space])
    for trial in by_value(trials, search.objective):
        values = search.values(trial)
        rows.writerow(
            [
                trial.number,
                ENDINGS[trial.state],
                "" if trial.value is None else repr(trial.value),
                trial.last_step or 0,
                trial.user_attrs.get(REASON, ""),
                *(_cell(values[key]) if key in values else "" for key in search.space),
            ]
        )
    return text.getvalue()


def _cell(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _recipe(
    best: FrozenTrial, trials: Sequence[FrozenTrial], sweep: SweepDirectory, search: Search
) -> str:
    found = [f"#   {key}: {_cell(value)}" for key, value in search.values(best).items()]
    complete = sum(trial.state is TrialState.COMPLETE for trial in trials)
    return "\n".join(
        [
            f"# Trial {best.number} of the sweep in {sweep.path},",
            f"# {search.objective} {best.value:.4f}: the best of {len(trials)} trials, of which "
            f"{complete} trained to their end.",
            "#",
            f"#   python -m pipeline.run --recipe {shlex.quote(str(sweep.best))}",
            "#",
            "# It was chosen on the validation split; the test split was not looked at. Found:",
            *found,
            to_yaml(search.config(best)),
        ]
    )
