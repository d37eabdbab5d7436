"""Stages: functions from files to files, skipped when nothing that they depend on has changed.

A stage's fingerprint covers the config it reads and what the stages before it read and left.
`stages.json` remembers it together with a digest of every output; a stage whose fingerprint is the
same and whose outputs are all there, unaltered, is not run again.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from export.run_directory import RunDirectory
from pipeline.config import Config
from pipeline.recipe import fingerprint
from serve.atomic import remove, write_text

StageFunction = Callable[[Config, RunDirectory], str]
"""Does the work of a stage; returns a summary of one line."""


@dataclass(frozen=True)
class Stage:
    """One step of a run.

    Attributes:
        reads: plain values of everything outside the run directory that the result depends on.
        after: the stages whose outputs this one reads.
        outputs: what it leaves in the run directory.
        run: the work.
        version: raised when a release makes other outputs from the same inputs.
    """

    name: str
    reads: Callable[[Config], Any]
    after: tuple[str, ...]
    outputs: Callable[[RunDirectory], tuple[Path, ...]]
    run: StageFunction
    version: int = 1


class StageRunner:
    """Runs the stages of one run directory in order, skipping what is already done."""

    def __init__(self, config: Config, run: RunDirectory, stages: Sequence[Stage]) -> None:
        self._config = config
        self._run = run
        self._stages = stages
        self._done: dict[str, dict[str, Any]] = {}

    def run(self, stage: Stage) -> None:
        """Run `stage` unless its outputs are there and still what its inputs ask for.

        When it leaves other outputs than before, those of the later stages are withdrawn: they
        belong to what is gone. Until then everything old stays.
        """
        after = {name: self._done[name] for name in stage.after}
        current = _fingerprint(stage, self._config, after)
        outputs = stage.outputs(self._run)
        record = _records(self._run).get(stage.name, {})
        before = _digests(outputs)
        self._done[stage.name] = {"fingerprint": current, "outputs": before}
        if record.get("fingerprint") == current and record.get("outputs") == before:
            print(f"{stage.name:<9}  skipped: unchanged ({record.get('summary')})", flush=True)
            return
        print(f"{stage.name:<9}  ...", flush=True)
        started = time.perf_counter()
        summary = stage.run(self._config, self._run)
        seconds = time.perf_counter() - started
        left = _digests(outputs)
        if left != before:
            self._withdraw_what_follows(stage)
        self._done[stage.name]["outputs"] = left
        records = _records(self._run)
        records[stage.name] = {
            **self._done[stage.name],
            "seconds": round(seconds, 1),
            "summary": summary,
        }
        write_text(self._run.stages, json.dumps(records, indent=2) + "\n")
        print(f"{stage.name:<9}  {summary} ({seconds:.1f} s)", flush=True)

    def _withdraw_what_follows(self, stage: Stage) -> None:
        for later in self._stages[self._stages.index(stage) + 1 :]:
            for path in later.outputs(self._run):
                remove(path)


def standing(
    stage: Stage, config: Config, run: RunDirectory
) -> Literal["done", "outdated", "missing"]:
    """Whether what `stage` leaves is there unaltered, and whether it was made with `config`.

    Looks at nothing outside the run: the stages before it count as what they left.
    """
    records = _records(run)
    record = records.get(stage.name, {})
    if record.get("outputs") != _digests(stage.outputs(run)):
        return "missing"
    after = {
        name: {key: records.get(name, {}).get(key) for key in ("fingerprint", "outputs")}
        for name in stage.after
    }
    return "done" if record.get("fingerprint") == _fingerprint(stage, config, after) else "outdated"


def _fingerprint(stage: Stage, config: Config, after: dict[str, Any]) -> str:
    return fingerprint({"version": stage.version, "reads": stage.reads(config), "after": after})


def _records(run: RunDirectory) -> dict[str, dict[str, Any]]:
    """What stages.json says; what is missing or damaged does not count as done."""
    try:
        records = json.loads(run.stages.read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    if not isinstance(records, dict):
        return {}
    return {name: record for name, record in records.items() if isinstance(record, dict)}


def _digests(outputs: tuple[Path, ...]) -> dict[str, str | None]:
    """SHA-256 of each output, a directory by its files; None for one that is missing."""
    return {path.name: _digest(path) for path in outputs}


def _digest(path: Path) -> str | None:
    if path.is_file():
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return fingerprint([[str(file.relative_to(path)), _digest(file)] for file in files])
    return None
