"""Run directories with every file that a comparison reads, and no training."""

import csv
import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.run_directory import RunDirectory
from pipeline.config import Config
from pipeline.history import HISTORY_COLUMNS
from pipeline.recipe import resolve, to_yaml
from pipeline.run import EVALUATE, PREPARE, TRAIN
from pipeline.stages import StageRunner

MakeRun = Callable[..., Path]


def history(epochs: int, accuracy: float) -> list[dict[str, float]]:
    """Curves that get better until the last epoch but one."""
    rows = []
    for epoch in range(1, epochs + 1):
        share = 1 - 0.5**epoch if epoch < epochs else 1 - 0.5 ** (epochs - 2)
        values = (epoch, 21 * epoch, 0.1 / epoch, 2.3 * (1 - 0.9 * share), accuracy * share)
        rest = (
            2.4 * (1 - 0.9 * share),
            (accuracy - 0.01) * share,
            1.5 + epoch / 7,
            2000.0 + epoch,
        )
        rows.append(dict(zip(HISTORY_COLUMNS, (*values, *rest), strict=True)))
    return rows


def write_history(path: Path, rows: list[dict[str, float]]) -> None:
    with open(path, "w", newline="") as stream:
        writer = csv.DictWriter(stream, HISTORY_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Make `runs/NAME` as the stages would leave it, up to the stage `until`."""

    def make(
        name: str,
        overrides: Mapping[str, Any] | None = None,
        *,
        until: str = "evaluate",
        accuracy: float = 0.9,
        epochs: int = 6,
        images: int = 2000,
        fingerprint: str = "ab" * 32,
        source: str = "digits",
    ) -> Path:
        run = RunDirectory(tmp_path / "runs" / name)
        config = resolve({"train": {"epochs": epochs}}, overrides or {})
        rows = history(epochs, accuracy)

        def prepare(config: Config, run: RunDirectory) -> str:
            run.data.mkdir()
            text = json.dumps({"source": source, "fingerprint": fingerprint})
            (run.data / "manifest.json").write_text(text)
            return ""

        def train(config: Config, run: RunDirectory) -> str:
            run.model.write_bytes(b"weights")
            write_history(run.history, rows)
            best = max(rows, key=lambda row: row["val_accuracy"])
            training = {
                "parameters": 1234,
                "epochs": epochs,
                "best_epoch": best["epoch"],
                "monitor": "val_accuracy",
                "best_value": best["val_accuracy"],
                "seconds": 12.3,
            }
            run.training.write_text(json.dumps(training))
            return ""

        def evaluate(config: Config, run: RunDirectory) -> str:
            np.save(run.test_probabilities, np.zeros((3, 2), np.float32))
            metrics = {
                "examples": images,
                "classes_tested": 10,
                "accuracy": accuracy,
                "accuracy_interval": [accuracy - 0.02, accuracy + 0.015],
                "precision_macro": accuracy - 0.001,
                "recall_macro": accuracy - 0.002,
                "f1_macro": accuracy - 0.003,
                "loss": 1 / 3,
            }
            run.metrics.write_text(json.dumps(metrics))
            return ""

        run.path.mkdir(parents=True)
        run.config.write_text(to_yaml(config))
        stages = (
            dataclasses.replace(PREPARE, reads=lambda config: None, run=prepare),
            dataclasses.replace(TRAIN, run=train),
            dataclasses.replace(EVALUATE, run=evaluate),
        )
        runner = StageRunner(config, run, stages)
        for stage in stages:
            runner.run(stage)
            if stage.name == until:
                break
        return run.path

    return make


@pytest.fixture
def unfinished(make_run: MakeRun) -> Callable[..., Path]:
    """A run whose training is after its third epoch."""

    def make(name: str = "under-way", **options: Any) -> Path:
        path = make_run(name, until="prepare", **options)
        write_history(path / "history.csv", history(6, 0.8)[:3])
        return path

    return make
