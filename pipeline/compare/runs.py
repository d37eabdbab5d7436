"""What a run directory tells, whether the run is finished or not. Nothing is written there."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from export.run_directory import RunDirectory
from pipeline.config import Config
from pipeline.history import Row, read_history
from pipeline.recipe import load_recipe, resolve
from pipeline.run import EVALUATE, TRAIN
from pipeline.stages import standing
from serve.command import LockstepError


class CompareError(LockstepError):
    """Runs that cannot be compared."""


@dataclass(frozen=True)
class ComparedRun:
    """A run as far as it is.

    Attributes:
        name: of its own among those that it is compared with.
        state: in words, "finished" where all is well.
        is_finished: it is trained and measured on the test split.
        history: a row for every epoch; keys are `HISTORY_COLUMNS`.
        training, metrics, quantization: the run's files of these names, where they are its own.
        fingerprint: of the prepared images and their splits, "" before that.
        source: what the images came from.
    """

    name: str
    path: Path
    config: Config
    state: str
    is_finished: bool = False
    history: list[Row] = field(default_factory=list)
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    quantization: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    source: str = ""
    bundle_bytes: int | None = None
    int8_bytes: int | None = None


def read_runs(paths: Sequence[Path]) -> list[ComparedRun]:
    """The runs in these directories, in this order.

    Raises:
        CompareError: one is no run, is given twice, or holds a damaged file.
        ConfigError: a config.yaml is damaged or of another release.
    """
    places = [path.resolve() for path in paths]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise CompareError(f"{paths[number]}: given twice; expected each run once")
    names = _names(places)
    return [read_run(path, name) for path, name in zip(paths, names, strict=True)]


def read_run(path: Path, name: str) -> ComparedRun:
    """One run; see `read_runs`."""
    run = RunDirectory(path)
    if not run.config.is_file():
        raise CompareError(
            f"{path}: expected the directory of a run, found no config.yaml there; name those "
            "that python -m pipeline.run made"
        )
    config = resolve(load_recipe(str(run.config)), {}, origin=str(run.config))
    history = _read_history(run.history)
    manifest = _read_json(run.data / "manifest.json")
    trained, measured = standing(TRAIN, config, run), standing(EVALUATE, config, run)
    is_finished = "missing" not in (trained, measured)
    return ComparedRun(
        name=name,
        path=path,
        config=config,
        state=_state(run, config, history, trained, measured),
        is_finished=is_finished,
        history=history,
        training={} if trained == "missing" else _read_json(run.training),
        metrics=_read_json(run.metrics) if is_finished else {},
        quantization=_read_json(run.quantization) if is_finished else {},
        fingerprint=manifest.get("fingerprint", ""),
        source=manifest.get("source", config.data),
        bundle_bytes=_size(run.bundle) if is_finished else None,
        int8_bytes=_size(run.int8_bundle) if is_finished else None,
    )


def _state(
    run: RunDirectory, config: Config, history: list[Row], trained: str, measured: str
) -> str:
    if trained == "missing":
        done = f"epoch {len(history)} of {config.train.epochs}" if history else "no epoch yet"
        return f"unfinished: {done}"
    if measured == "missing":
        return "unfinished: trained, not yet measured on the test split"
    if "outdated" in (trained, measured):
        return "finished, but not with this config.yaml or release: the same command trains again"
    if _read_json(run.parity).get("passed") is False:
        return "finished, but its proof failed"
    if run.requirements.is_file() and not run.bundle.is_file():
        return "finished, but not released: it does not meet evaluate.require"
    return "finished"


def _names(places: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that differ."""
    length = 1
    while True:
        names = ["/".join(place.parts[-length:]).lstrip("/") for place in places]
        if len(set(names)) == len(names):
            return names
        length += 1


def _read_history(path: Path) -> list[Row]:
    try:
        return read_history(path)
    except ValueError as error:
        raise CompareError(f"{path}: {error}; {REPAIR}") from None


REPAIR = "the file is damaged: run its command again, or leave the run out"


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a file; an empty one where there is no file, or nothing (null) in it."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CompareError(f"{path}: not valid JSON: {error}; {REPAIR}") from None
    if value is not None and not isinstance(value, dict):
        raise CompareError(f"{path}: expected a JSON object, got {value!r:.60}; {REPAIR}")
    return value or {}


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
