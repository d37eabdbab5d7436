"""Trials in words."""

from collections.abc import Iterable
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from pipeline.sweep.search import Search
from pipeline.sweep.study import REASON, Study

ENDINGS = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "under way",
}


def describe_end(study: Study, search: Search, number: int) -> str:
    """How a trial ended, the best one so far, and how many are left."""
    trials, best = study.trials, study.best()
    trial = trials[number]
    ended = sum(other.state.is_finished() for other in trials)
    words = [f"trial {number:>4}  {_outcome(trial, search.objective)}"]
    if best:
        words.append(f"best {best.value:.4f} (trial {best.number})")
    words.append(f"{search.trials - ended} left")
    values = search.values(trial)
    names = short_names(values)
    words.append(", ".join(f"{names[key]} {show(value)}" for key, value in values.items()))
    return "  ".join(words)


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """For each dotted key the shortest end of it that is no end of another one."""
    names, keys = {}, list(keys)
    for key in keys:
        parts = key.split(".")
        ends = [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]
        others = [other for other in keys if other != key]
        names[key] = next(
            end for end in ends if not any(f".{other}".endswith(f".{end}") for other in others)
        )
    return names


def show(value: Any) -> str:
    """A config value in few letters."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _outcome(trial: FrozenTrial, objective: str) -> str:
    match trial.state:
        case TrialState.COMPLETE:
            return f"{objective} {trial.value:.4f}"
        case TrialState.PRUNED:
            return f"pruned after epoch {trial.last_step} at {objective} {trial.value:.4f}"
        case _:
            return f"failed: {trial.user_attrs.get(REASON, 'for no known reason')}"
