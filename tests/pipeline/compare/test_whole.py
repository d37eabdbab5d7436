"""Comparison recipes, made: real trainings, stopped and failing ones, too."""

import csv
import json
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from export.serving_function import load_model
from tests.pipeline.followed_command import FollowedCommand

pytestmark = pytest.mark.slow

RECIPE = """
common:
  model: {name: cnn, filters: [8, 8], convolutions: 1}
  train: {epochs: 4, batch_size: 32}
  quantize: {enabled: false}
  verify: {max_examples: 40}
runs:
  sgd: {train.optimizer: {name: sgd}}
  infinite: {train.optimizer: {name: sgd, learning_rate: 1.0e+30}}
  adam: {train.optimizer: {name: adam}}
"""
INFINITE = "  infinite: {train.optimizer: {name: sgd, learning_rate: 1.0e+30}}\n"

RunModule = Callable[..., subprocess.CompletedProcess[str]]


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def untimed(path: Path) -> list[dict[str, str]]:
    rows = read_csv(path / "history.csv")
    for row in rows:
        del row["seconds"], row["images_per_second"]
    return rows


def assert_same_run(one: Path, other: Path) -> None:
    assert untimed(one) == untimed(other)
    weights, others = (load_model(run / "model.keras").get_weights() for run in (one, other))
    for weight, expected in zip(weights, others, strict=True):
        np.testing.assert_array_equal(weight, expected)
    for name in ("metrics.json", "test_probabilities.npy"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def test_a_run_that_fails_leaves_the_others_alone(run_module: RunModule, tmp_path: Path) -> None:
    """And they are what `pipeline.run` makes of their config, to the last bit."""
    (tmp_path / "mine.yaml").write_text(RECIPE)
    command = ("pipeline.compare", "--recipe", "mine.yaml", "--run-dir", "out")
    done = run_module(*command, folder=tmp_path)
    assert done.returncode == 1, done.stderr
    (error,) = done.stderr.splitlines()
    assert re.match(r"error: training stopped at step \d+ of 41 in epoch 1 of 4: the loss", error)
    rows = {row["run"]: row for row in read_csv(tmp_path / "out" / "comparison.csv")}
    assert list(rows) == ["sgd", "infinite", "adam"]
    assert rows["infinite"]["state"] == f"failed: {error.removeprefix('error: ')}"
    assert rows["infinite"]["test_accuracy"] == ""
    for name in ("sgd", "adam"):
        assert rows[name]["state"] == "finished"
        metrics = json.loads((tmp_path / "out" / name / "metrics.json").read_bytes())
        assert float(rows[name]["test_accuracy"]) == metrics["accuracy"]
        assert (tmp_path / "out" / name / "model.onnx").is_file()
        assert int(rows[name]["bundle_bytes"]) > 1000
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert "failed: training stopped at step" in page

    adam = tmp_path / "out" / "adam"
    alone = run_module("pipeline.run", "--recipe", adam / "config.yaml", "--run-dir", "alone",
                       folder=tmp_path)  # fmt: skip
    assert alone.returncode == 0, alone.stderr
    assert_same_run(adam, tmp_path / "alone")

    times = {path: path.stat().st_mtime_ns for path in adam.rglob("*")}
    (tmp_path / "mine.yaml").write_text(RECIPE.replace("1.0e+30", "0.5"))
    mended = run_module(*command, folder=tmp_path)
    assert mended.returncode == 0, mended.stderr
    assert mended.stdout.count("skipped: unchanged") == 1 + 2 * 7  # the images, and two runs whole
    assert {path: path.stat().st_mtime_ns for path in adam.rglob("*")} == times


def test_a_signal_saves_and_the_same_command_continues(
    run_module: RunModule, tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text(RECIPE.replace(INFINITE, ""))
    arguments = ["--recipe", "mine.yaml", "--run-dir", "out", "--train.epochs", "3"]
    command = FollowedCommand("pipeline.compare", *arguments, folder=tmp_path)
    assert command.wait_for(r"^adam \(2 of 2\)") and command.wait_for(r"^Epoch 2/3")
    command.process.send_signal(signal.SIGTERM)
    assert command.end() == 143, command.output
    output = command.output
    assert any("saved after" in line for line in output), output
    assert output[-1] == (
        "stopped by SIGTERM: what is finished is kept; to continue: "
        "python -m pipeline.compare --recipe mine.yaml --run-dir out --train.epochs 3"
    )
    assert [row["run"] for row in read_csv(tmp_path / "out" / "comparison.csv")] == ["sgd"]

    runs = ["pipeline.compare", "out/sgd", "out/adam"]
    between = run_module(*runs, folder=tmp_path)
    assert between.returncode == 0, between.stderr
    assert "unfinished: epoch 1 of 3" in between.stdout

    again = run_module("pipeline.compare", *arguments, folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "continues after" in again.stdout
    whole = run_module("pipeline.compare", *arguments[:2], "--run-dir", "whole", *arguments[4:],
                       folder=tmp_path)  # fmt: skip
    assert whole.returncode == 0, whole.stderr
    for name in ("sgd", "adam"):
        assert_same_run(tmp_path / "out" / name, tmp_path / "whole" / name)
