"""One trial: an ordinary run that ends with the training, watched after every epoch."""

import dataclasses
import json
import math
import os
from contextlib import redirect_stdout

import keras
import optuna
import tensorflow as tf
from optuna.trial import FrozenTrial, TrialState

from export.run_directory import RunDirectory
from pipeline.config import Config
from pipeline.history import Row, read_history
from pipeline.options.training import TIES
from pipeline.recipe import to_yaml
from pipeline.run import PREPARE, TRAIN
from pipeline.stages import StageRunner
from pipeline.stopping import stop_signals
from pipeline.sweep.directory import SweepDirectory
from pipeline.sweep.images import prepare_images
from pipeline.sweep.search import Search
from pipeline.sweep.study import TIE_BREAKER, Study, ranked
from pipeline.training import checkpoints
from pipeline.training.train import train
from serve.atomic import remove, write_text
from serve.command import LockstepError, one_line


class PrunedError(Exception):
    """A trial looks too poor to go on."""


class Watcher(keras.callbacks.Callback):
    """Reports the objective of every epoch once, and ends a trial that looks poor.

    Args:
        epochs: of the whole training; the last one is not pruned, since that would save nothing.
    """

    def __init__(self, trial: optuna.Trial, reported: set[int], objective: str, epochs: int):
        super().__init__()
        self._trial, self._reported = trial, reported
        self._objective, self._epochs = objective, epochs

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        value, done = (logs or {})[self._objective], epoch + 1
        if done not in self._reported:  # a training that goes on repeats the epoch it was in
            self._trial.report(value, done)
        if done < self._epochs and self._trial.should_prune():
            raise PrunedError


def run_trial(study: Study, sweep: SweepDirectory, search: Search, trial: FrozenTrial) -> None:
    """Train, or go on training, and tell the study how it ended.

    Raises:
        Stopped: a signal asked for it; the trial goes on with the next command.
    """
    run = sweep.trial(trial.number)
    try:
        config = search.config(trial)
        row = _train(config, run, sweep, search.objective, study.live(trial), trial)
    except PrunedError:
        study.optuna.tell(trial.number, state=TrialState.PRUNED)
    except (LockstepError, MemoryError, tf.errors.ResourceExhaustedError) as error:
        is_memory = isinstance(error, tf.errors.ResourceExhaustedError)
        study.fail(trial, "out of memory" if is_memory else one_line(error))
    else:
        loss = row.get(TIES.get(search.objective, ""))
        if loss is not None and math.isfinite(loss):
            study.live(trial).set_user_attr(TIE_BREAKER, loss)
        study.optuna.tell(trial.number, row[search.objective])


def _train(
    config: Config,
    run: RunDirectory,
    sweep: SweepDirectory,
    objective: str,
    live: optuna.Trial,
    trial: FrozenTrial,
) -> Row:
    """Returns the figures of the epoch that the run keeps."""

    def watched(config: Config, run: RunDirectory) -> str:
        keras.utils.clear_session()
        watcher = Watcher(live, set(trial.intermediate_values), objective, config.train.epochs)
        return train(config, run, watcher)

    write_text(run.config, to_yaml(config))
    with (
        open(run.path / "log.txt", "a", encoding="utf-8", buffering=1) as log,
        redirect_stdout(log),
    ):
        with stop_signals.at_once():  # it may take long, and is done again
            prepared = prepare_images(config, sweep)
        if not run.stages.is_file():
            write_text(run.stages, prepared.stages.read_text("utf-8"))
        if not run.data.exists():
            run.data.symlink_to(os.path.relpath(prepared.data, run.path))
        stages = (PREPARE, dataclasses.replace(TRAIN, run=watched))
        runner = StageRunner(config, run, stages)
        for stage in stages:
            runner.run(stage)
    best_epoch: int = json.loads(run.training.read_bytes())["best_epoch"]
    return read_history(run.history)[best_epoch - 1]


def tidy(study: Study, sweep: SweepDirectory, search: Search) -> None:
    """Remove what only a training that goes on needs, and the models of all but the best trial."""
    trials = study.trials
    best = ranked(trials, search.objective)[:1]
    for trial in trials:
        if trial.state.is_finished():
            run = sweep.trial(trial.number)
            checkpoints.forget(run)
            if trial not in best:
                remove(run.model)
