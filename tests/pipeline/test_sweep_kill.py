"""`python -m pipeline.sweep` in processes of its own, killed and asked to stop."""

import csv
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from pipeline.sweep.directory import SweepDirectory
from pipeline.sweep.search import load_search
from pipeline.sweep.study import Study
from tests.pipeline.followed_command import FollowedCommand

TRIALS = 20
SPACE = """
recipe: digits
config:
  augment: {crop_padding: 0, rotation: 0.0}
  model: {filters: [4], convolutions: 1, batch_normalization: false}
  train: {epochs: 3, batch_size: 128, schedule: {name: constant}}
trials: 20
pruner: {name: median, startup_trials: 4, warmup_epochs: 1}
space:
  train.optimizer.name: [sgd, momentum, adam]
  train.optimizer.learning_rate: {low: 0.001, high: 0.5, log: true}
  train.optimizer.momentum: {low: 0.5, high: 0.95}
  model.dropout: {low: 0.0, high: 0.5}
"""


class Sweep(FollowedCommand):
    def __init__(self, folder: Path, *arguments: str) -> None:
        super().__init__("pipeline.sweep", "space.yaml", *arguments, folder=folder)

    def kill(self) -> None:
        """All of its processes at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        assert self.process.wait(30) == -signal.SIGKILL

    def workers(self) -> list[int]:
        """The processes that train."""
        parent = self.process.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return [
            int(child)
            for child in children
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
        ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "space.yaml").write_text(SPACE)
    return tmp_path


def sweep_in(folder: Path) -> SweepDirectory:
    return SweepDirectory(folder / "sweeps" / "space")


def study_in(folder: Path) -> Study:
    sweep = sweep_in(folder)
    return Study(sweep, load_search(str(sweep.search)))


def assert_none_lost_or_doubled(folder: Path, trials: int) -> None:
    """In the storage, the directories and the table."""
    sweep, found = sweep_in(folder), study_in(folder).trials
    assert [trial.number for trial in found] == list(range(trials))
    assert all(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in found)
    directories = sorted(path.name for path in sweep.trials.iterdir())
    assert directories == [f"{number:04}" for number in range(trials)]
    with open(sweep.table, newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert sorted(int(row["trial"]) for row in rows) == list(range(trials))
    for trial in found:
        with open(sweep.trial(trial.number).history, newline="") as stream:
            values = {int(row["epoch"]): float(row["val_loss"]) for row in csv.DictReader(stream)}
        assert values == trial.intermediate_values
        if trial.state is TrialState.COMPLETE:
            assert trial.value == min(values.values())
    assert not list(sweep.trials.rglob("*.npz"))
    assert len(list(sweep.trials.rglob("model.keras"))) == 1


def outcomes(folder: Path) -> list[Any]:
    return [
        (trial.params, trial.state, trial.value, trial.intermediate_values)
        for trial in study_in(folder).trials
    ]


@pytest.mark.slow
def test_a_sweep_killed_three_times_is_the_one_that_was_not(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("uninterrupted")
    (other / "space.yaml").write_text(SPACE)
    whole = Sweep(other)
    generator = random.Random(6)
    for number in (1, 7, 13):
        command = Sweep(folder)
        assert command.wait_for(rf"^trial +{number} "), command.output
        time.sleep(generator.uniform(0, 2))
        command.kill()
    command = Sweep(folder)
    assert command.end() == 0, command.output
    assert whole.end() == 0, whole.output
    assert_none_lost_or_doubled(folder, TRIALS)
    assert outcomes(folder) == outcomes(other)
    assert TrialState.PRUNED in [trial.state for trial in study_in(folder).trials]
    for name in ("trials.csv", "best.yaml"):
        texts = [(sweep_in(place).path / name).read_text() for place in (folder, other)]
        assert texts[0] == texts[1]


@pytest.mark.slow
def test_two_workers_share_the_trials_whatever_ends_one_of_them(folder: Path) -> None:
    arguments = ("--workers", "2", "--trials", "12")
    command = Sweep(folder, *arguments)
    assert command.wait_for(r"^trial +\d+ "), command.output
    first, _ = command.workers()
    os.kill(first, signal.SIGKILL)
    assert command.wait_for(r" 8 left"), command.output
    command.kill()
    command = Sweep(folder, *arguments)
    assert command.wait_for(r" [3-5] left"), command.output
    command.process.send_signal(signal.SIGTERM)
    assert command.end(60) == 143, command.output
    assert "Traceback" not in "\n".join(command.output)
    assert command.output[-1] == (
        "stopped by SIGTERM: what is finished is kept; to continue: "
        "python -m pipeline.sweep space.yaml --workers 2 --trials 12"
    )
    command = Sweep(folder, *arguments)
    assert command.wait_for(r" [1-2] left"), command.output
    command.process.kill()  # its workers find out by themselves
    assert command.process.wait(30) == -signal.SIGKILL
    command = Sweep(folder, *arguments)
    assert command.end() == 0, command.output
    assert_none_lost_or_doubled(folder, 12)


@pytest.mark.slow
def test_workers_that_all_end_are_an_error(folder: Path) -> None:
    command = Sweep(folder, "--workers", "2")
    assert command.wait_for(r"^trial +\d+ "), command.output
    for worker in command.workers():
        os.kill(worker, signal.SIGKILL)
    assert command.end(60) == 2
    (error,) = [line for line in command.output if line.startswith("error: ")]
    assert "workers ended before their time, with exit codes [-9, -9]" in error


@pytest.mark.slow
def test_the_best_recipe_runs(folder: Path) -> None:
    command = Sweep(folder, "--trials", "2")
    assert command.end() == 0, command.output
    recipe = str(sweep_in(folder).best)
    words = ("pipeline.run", "--recipe", recipe, "--quantize.enabled", "false")
    run = FollowedCommand(*words, folder=folder)
    assert run.end() == 0, run.output
    assert (folder / "runs" / "best" / "model.onnx").is_file()
    best = study_in(folder).best()
    assert best is not None
    with open(folder / "runs" / "best" / "history.csv", newline="") as stream:
        values = [float(row["val_loss"]) for row in csv.DictReader(stream)]
    assert min(values) == best.value
