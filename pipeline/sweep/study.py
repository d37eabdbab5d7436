"""The trials of a sweep: drawn, taken up, and ended, in one storage that all workers share.

The storage is SQLite: a change is there whole or not at all, and its locks go with the process that
holds them. A trial enters it with all its parameters in one transaction, and they are a function of
the trials before it and of the seed. So nothing is lost when a process is killed: what was under
way is in state RUNNING, and whoever can lock its directory goes on with it.
"""

import math
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import sqlalchemy
from filelock import FileLock
from optuna.trial import FrozenTrial, TrialState

from export.run_lock import InUseError, claimed
from pipeline.options.training import MONITORS
from pipeline.recipe import ConfigError
from pipeline.stopping import stop_signals
from pipeline.sweep.directory import SweepDirectory
from pipeline.sweep.search import HyperbandOptions, MedianOptions, NoPrunerOptions, Search
from pipeline.sweep.space import draw, grid
from serve.atomic import atomic_path, remove

NAME = "sweep"
IMAGES = "images"
"""User attribute of the study: a fingerprint."""
REASON = "reason"
"""User attribute of a trial that failed."""
TIE_BREAKER = "tie_breaker"
"""User attribute of a trial whose figure is an accuracy: its loss on the same images."""
POLL_SECONDS = 0.5


class Study:
    """The trials of one sweep, in its storage."""

    def __init__(self, sweep: SweepDirectory, search: Search) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._sweep, self._search = sweep, search
        if not sweep.storage.is_file():
            with atomic_path(sweep.storage) as temporary:
                _create_study(search, storage=_storage(temporary))
        self._storage = _storage(sweep.storage)
        self.optuna = _create_study(search, storage=self._storage)

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials so far, by number."""
        return self.optuna.get_trials(deepcopy=False)

    def belongs_to(self, images: str) -> None:
        """Remember which images the trials learn from.

        Args:
            images: a fingerprint.

        Raises:
            ConfigError: they have changed since the first command.
        """
        before = self.optuna.user_attrs.get(IMAGES)
        if before is None:
            self.optuna.set_user_attr(IMAGES, images)
        elif before != images:
            raise ConfigError(
                f"{self._search.base.data}: the images changed since the sweep began, so that its "
                "trials could not be compared; start it over with --fresh, or name another "
                "--run-dir"
            )

    @contextmanager
    def next_trial(self) -> Iterator[FrozenTrial | None]:
        """A trial that is this process's own until the block ends: one that nobody works at any
        more, or a new one. None when all that are wanted have ended.
        """
        with ExitStack() as claims:
            while not (trial := self._take(claims)) and not self.is_done():
                stop_signals.check()
                time.sleep(POLL_SECONDS)  # the last ones are at work elsewhere, or were
            yield trial

    def live(self, trial: FrozenTrial) -> optuna.Trial:
        """The trial as something that takes reports."""
        study_id = self._storage.get_study_id_from_name(NAME)
        return optuna.Trial(
            self.optuna,
            self._storage.get_trial_id_from_study_id_trial_number(study_id, trial.number),
        )

    def fail(self, trial: FrozenTrial, reason: str) -> None:
        """End a trial without a figure."""
        self.live(trial).set_user_attr(REASON, reason)
        self.optuna.tell(trial.number, state=TrialState.FAIL)

    def best(self) -> FrozenTrial | None:
        """The best one among those that were not cut, as `ranked` has it."""
        return next(iter(ranked(self.trials, self._search.objective)), None)

    def is_done(self) -> bool:
        """Whether all trials that are wanted have ended."""
        trials = self.trials
        ended = sum(trial.state.is_finished() for trial in trials)
        return ended == len(trials) >= self._search.trials

    def _take(self, claims: ExitStack) -> FrozenTrial | None:
        with FileLock(self._sweep.draw_lock):
            left = self._claim_running(claims)
            number = len(self.trials)
            if left or number >= self._search.trials:
                return left
            remove(self._sweep.trial(number).path)  # that of a sweep which --fresh did away with
            self.optuna.add_trial(_drawn(self._search, self.trials, number))
            return self._claim_running(claims)

    def _claim_running(self, claims: ExitStack) -> FrozenTrial | None:
        running = (trial for trial in self._running() if self._claim(trial.number, claims))
        return next(running, None)

    def _running(self) -> list[FrozenTrial]:
        return self.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def _claim(self, number: int, claims: ExitStack) -> bool:
        """Whether the trial is not at its end, and no other process has it; from then on we do."""
        with ExitStack() as claim:
            try:
                claim.enter_context(claimed(self._sweep.trial(number)))
            except InUseError:
                return False
            if self.trials[number].state.is_finished():  # meanwhile
                return False
            claims.enter_context(claim.pop_all())
        return True


def ranked(trials: Sequence[FrozenTrial], objective: str) -> list[FrozenTrial]:
    """Those that trained to their end, best first; of equal accuracies that with the lower loss,
    else the first.
    """
    sign = -1 if MONITORS[objective] == "max" else 1
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]

    def rank(trial: FrozenTrial) -> tuple[float, float, int]:
        loss = trial.user_attrs.get(TIE_BREAKER, math.inf)
        return sign * (trial.value or 0.0), loss, trial.number

    return sorted(complete, key=rank)


def by_value(trials: Sequence[FrozenTrial], objective: str) -> list[FrozenTrial]:
    """Those that trained to their end, best first; then the others, by number."""
    first = ranked(trials, objective)
    return first + [trial for trial in trials if trial not in first]


def _drawn(search: Search, trials: Sequence[FrozenTrial], number: int) -> FrozenTrial:
    """The trial that comes after `trials`: a function of them and of the seed.

    It is drawn on a copy in memory, so that it enters the storage whole. The sampler is made anew,
    so that no state of it is lost with a process.
    """
    seed = int(np.random.SeedSequence([search.options.seed, number]).generate_state(1)[0])
    tpe = search.options.sampler == "tpe"
    sampler = (optuna.samplers.TPESampler if tpe else optuna.samplers.RandomSampler)(seed=seed)
    copy = _create_study(search, sampler=sampler)
    copy.add_trials(trials)
    if search.options.sampler == "grid":
        point = grid(search.space, search.base)[number]
        copy.enqueue_trial({key: search.space[key].known_as(point[key]) for key in point})
    trial = copy.ask()
    draw(search.space, search.base, trial)
    return optuna.create_trial(
        state=TrialState.RUNNING, params=trial.params, distributions=trial.distributions
    )


def _create_study(search: Search, **more: Any) -> optuna.Study:
    return optuna.create_study(
        study_name=NAME,
        direction="maximize" if MONITORS[search.objective] == "max" else "minimize",
        pruner=_pruner(search),
        load_if_exists=True,
        **{"sampler": optuna.samplers.RandomSampler(), **more},
    )


def _storage(path: Path) -> optuna.storages.RDBStorage:
    """SQLite in a file of any name; a connection ends with what it was opened for."""
    return optuna.storages.RDBStorage(
        "sqlite://",
        engine_kwargs={
            "creator": lambda: sqlite3.connect(path, timeout=60, check_same_thread=False),
            "poolclass": sqlalchemy.pool.NullPool,
        },
    )


def _pruner(search: Search) -> optuna.pruners.BasePruner:
    match search.options.pruner:
        case NoPrunerOptions():
            return optuna.pruners.NopPruner()
        case MedianOptions() as options:
            return optuna.pruners.MedianPruner(
                n_startup_trials=options.startup_trials, n_warmup_steps=options.warmup_epochs
            )
        case HyperbandOptions() as options:
            return optuna.pruners.HyperbandPruner(
                min_resource=options.min_epochs,
                max_resource=max(search.most_epochs, options.min_epochs),
                reduction_factor=options.factor,
            )
