"""Stages: functions from files to files, skipped when nothing that they depend on has changed.

A stage's fingerprint covers the config it reads and the fingerprints of the stages before it.
`stages.json` remembers it together with a digest of every output; a stage whose fingerprint is the
same and whose outputs are all there, unaltered, is not run again.
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.run_directory import RunDirectory
from pipeline.config import Config
from pipeline.recipe import fingerprint
from serve.atomic import write_text


@dataclass(frozen=True)
class Stage:
    """One step of a run.

    Attributes:
        reads: plain values of everything outside the run directory that the result depends on.
        after: the stages whose outputs this one reads.
        outputs: what it leaves in the run directory.
        run: does the work; returns a summary of one line.
        version: raised when a release makes other outputs from the same inputs.
    """

    name: str
    reads: Callable[[Config], Any]
    after: tuple[str, ...]
    outputs: Callable[[RunDirectory], tuple[Path, ...]]
    run: Callable[[Config, RunDirectory], str]
    version: int = 1


class StageRunner:
    """Runs the stages of one run directory in order, skipping what is already done."""

    def __init__(self, config: Config, run: RunDirectory) -> None:
        self._config = config
        self._run = run
        self._fingerprints: dict[str, str] = {}

    def run(self, stage: Stage) -> None:
        """Run `stage` unless its outputs are there and still what its inputs ask for."""
        current = fingerprint(
            {
                "version": stage.version,
                "reads": stage.reads(self._config),
                "after": {name: self._fingerprints[name] for name in stage.after},
            }
        )
        self._fingerprints[stage.name] = current
        outputs = stage.outputs(self._run)
        record = self._records().get(stage.name)
        if record and record["fingerprint"] == current and record["outputs"] == _digests(outputs):
            print(f"{stage.name:<9}  skipped: unchanged ({record['summary']})", flush=True)
            return
        print(f"{stage.name:<9}  ...", flush=True)
        started = time.perf_counter()
        summary = stage.run(self._config, self._run)
        seconds = time.perf_counter() - started
        records = self._records()
        records[stage.name] = {
            "fingerprint": current,
            "outputs": _digests(outputs),
            "seconds": round(seconds, 1),
            "summary": summary,
        }
        write_text(self._run.stages, json.dumps(records, indent=2) + "\n")
        print(f"{stage.name:<9}  {summary} ({seconds:.1f} s)", flush=True)

    def _records(self) -> dict[str, Any]:
        try:
            records = json.loads(self._run.stages.read_bytes())
        except (FileNotFoundError, ValueError):  # none yet, or damaged: nothing counts as done
            return {}
        return records if isinstance(records, dict) else {}


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
