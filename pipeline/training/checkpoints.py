"""When the state of a training is written, and which training it belongs to."""

import sys
import time
from pathlib import Path
from typing import Any, Protocol

from export.run_directory import RunDirectory
from models.options import PretrainedOptions
from pipeline.config import Config
from pipeline.recipe import ConfigError, differing_keys
from pipeline.training.model_file import digest, model_file
from pipeline.training.state_file import State, StateError, StateFiles

VERSION = 3
"""Raised when a release would go on otherwise from the same state."""


class Resumable(Protocol):
    """What a training offers."""

    def state(self) -> State: ...
    def restore(self, state: State) -> None: ...


class Checkpoints:
    """The states of one run's training.

    Args:
        images: fingerprint of the images that it learns from.
        machine: what may change the last bits of a result: device, versions of the tools.
    """

    def __init__(
        self, run: RunDirectory, config: Config, *, images: str, machine: dict[str, str]
    ) -> None:
        self._run = run
        self._files = StateFiles(run.checkpoints)
        self._identity = {"version": VERSION, "images": images, "config": _decisive(config)}
        self._machine = machine
        self._interval = 60 * config.train.checkpoint_minutes
        self._written = time.monotonic()

    def read(self) -> State | None:
        """The last state of this training, if there is one.

        Raises:
            ConfigError: there is that of another training which is unfinished, or no state is whole
                any more.
        """
        state, problems = _read(self._files)
        for problem in problems:
            _warn(f"{problem}; going on from the state before it")
        if state is None:
            return None
        if state.document["identity"] != self._identity:
            if not _is_finished(state):
                began = state.document["identity"]
                what = "images" if began["images"] != self._identity["images"] else "code"
                raise ConfigError(f"{_unfinished(self._run, state)} with other {what}; {WAYS_OUT}")
            self._files.forget()
            return None
        for key, value in self._machine.items():
            before = state.document["machine"].get(key)
            if before != value:
                _warn(f"{key} was {before}, is {value}: the last bits of the result may differ")
        return state

    def restore(self, training: Resumable, state: State) -> None:
        """Bring a training to where the state was taken.

        Raises:
            ConfigError: the state is that of another model.
        """
        try:
            training.restore(state)
        except StateError as error:
            raise ConfigError(f"{self._files.newest}: {error}; {WAYS_OUT}") from error

    def write(self, training: Resumable, phase: str, *, is_last: bool) -> None:
        """Take and write the state.

        Args:
            phase: the one under way.
            is_last: the training ends with it.

        Raises:
            OSError: it cannot be written; the one before stays.
        """
        state = training.state()
        state.document.update(
            phase=phase, is_last=is_last, identity=self._identity, machine=self._machine
        )
        self._files.write(state)
        self._written = time.monotonic()

    def is_due(self) -> bool:
        """Whether the last one is older than `train.checkpoint_minutes`."""
        return time.monotonic() - self._written >= self._interval


WAYS_OUT = "start it over with --fresh, or name another --run-dir"


def read_by_training(config: Config) -> dict[str, Any]:
    """The part of a config that a training reads, without what changes no weight.

    A file of weights is known by its content, wherever it lies.
    """
    tree = config.model_dump(include={"seed", "deterministic", "augment", "model", "train"})
    del tree["train"]["checkpoint_minutes"]
    model = config.model
    files = {"init_from": model_file(model.init_from)} if model.init_from else {}
    if isinstance(model, PretrainedOptions):
        files["weights"] = Path(model.weights)
    for name, file in files.items():
        if file.is_file():
            tree["model"][name] = digest(file)
    return tree


def _decisive(config: Config) -> dict[str, Any]:
    """The part on which the weights depend, that which decides the images included."""
    prepare = config.prepare.model_dump(exclude={"max_rejected_share"})
    return {"prepare": prepare, **read_by_training(config)}


def refuse_other_config(run: RunDirectory, config: Config) -> None:
    """Raises ConfigError: the run has an unfinished training that another config began."""
    state, _ = _read(StateFiles(run.checkpoints))
    if state is None or _is_finished(state):
        return
    changed = differing_keys(state.document["identity"]["config"], _decisive(config))
    if changed:
        raise ConfigError(
            f"{_unfinished(run, state)} with other values: {', '.join(changed)}; give it its own "
            f"back, {WAYS_OUT}"
        )


def forget(run: RunDirectory) -> None:
    """Throw the states away: the next training begins anew."""
    StateFiles(run.checkpoints).forget()


def _read(files: StateFiles) -> tuple[State | None, list[str]]:
    try:
        return files.read()
    except StateError as error:
        raise ConfigError(f"nothing whole is left of the training: {error}; {WAYS_OUT}") from error


def _is_finished(state: State) -> bool:
    return bool(state.document["position"]["finished"] and state.document["is_last"])


def _unfinished(run: RunDirectory, state: State) -> str:
    epoch = state.document["position"]["epoch"] + 1
    return f"{run.path}: its training is unfinished (in epoch {epoch}) and began"


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)
