"""Whole sweeps of tiny trainings on the digits, in this process."""

import csv
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from export.run_directory import RunDirectory
from export.run_lock import claimed
from pipeline.history import read_history
from pipeline.recipe import ConfigError, dump_yaml, load_recipe, resolve
from pipeline.sweep.command import main, parse
from pipeline.sweep.directory import SweepDirectory
from pipeline.sweep.search import load_search
from pipeline.sweep.study import Study
from pipeline.training.loop import Training
from serve.command import LockstepError

TINY = {
    "recipe": "digits",
    "config": {
        "train": {"epochs": 1, "batch_size": 256, "schedule": {"name": "constant"}},
        "model": {"filters": [2], "convolutions": 1, "batch_normalization": False},
        "augment": {"crop_padding": 0, "rotation": 0.0},
    },
    "trials": 3,
    "space": {
        "train.optimizer.learning_rate": {"low": 0.01, "high": 0.3, "log": True},
        "model.filters": [[2], [3]],
    },
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_space(folder: Path, **changes: Any) -> str:
    (folder / "tiny.yaml").write_text(dump_yaml({**TINY, **changes}))
    return "tiny.yaml"


def study_of(sweep: SweepDirectory) -> Study:
    return Study(sweep, load_search(str(sweep.search)))


def figures(sweep: SweepDirectory) -> list[tuple[Any, ...]]:
    return [(t.params, t.value, t.intermediate_values) for t in study_of(sweep).trials]


def test_three_trials(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space, sweep = write_space(folder), SweepDirectory(Path("sweeps/tiny"))
    assert main([space, "--trials", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("sweep ")
    assert sum(line.startswith("prepare ") for line in lines) == 2, "its begin and its end"
    first, second = (line for line in lines if line.startswith("trial "))
    assert [first.split()[1], second.split()[1]] == ["0", "1"]
    assert "1 left" in first
    assert "0 left" in second
    assert not any("Epoch" in line for line in lines)
    two = figures(sweep)

    assert main([space]) == 0  # a larger number goes on
    three = figures(sweep)
    assert (len(three), three[:2]) == (3, two)
    assert "2 have ended" in capsys.readouterr().out

    assert sorted(path.name for path in sweep.trials.iterdir()) == ["0000", "0001", "0002"]
    best = study_of(sweep).best()
    assert best is not None
    for number in range(3):
        run = sweep.trial(number)
        with open(run.history, newline="") as stream:
            (row,) = csv.DictReader(stream)
        assert float(row["val_loss"]) == three[number][1]
        config = resolve(load_recipe(str(run.config)), {})
        assert config == load_search(str(sweep.search)).config(study_of(sweep).trials[number])
        assert json.loads(run.training.read_bytes())["epochs"] == 1
        assert run.model.is_file() == (number == best.number)
        assert not list(run.checkpoints.glob("*.npz"))
        assert run.data.resolve().parent.parent == sweep.data.resolve()
    assert len(list(sweep.data.iterdir())) == 1  # images were prepared once
    assert not list(sweep.path.rglob("test_probabilities.npy"))

    # Nothing is left to do, and what differs is refused.
    assert main([space]) == 0
    assert figures(sweep) == three
    with pytest.raises(ConfigError, match=r"other values: config.train.epochs 1 -> 2; .*--fresh"):
        main([space, "--train.epochs", "2"])
    with pytest.raises(ConfigError, match=r"other values: seed 0 -> 1"):
        main([write_space(folder, seed=1)])

    assert main([write_space(folder), "--fresh", "--trials", "1"]) == 0
    assert figures(sweep) == three[:1]
    assert [path.name for path in sweep.trials.iterdir()] == ["0000"]


@pytest.mark.slow
def test_a_trial_alone_is_what_it_is_after_others(folder: Path) -> None:
    """Its config as a sweep of one trial, after a sweep of others in the same process."""
    space = write_space(
        folder, trials=2, sampler="grid", space={"model.filters": [[4], [3]]}, objective="loss"
    )
    assert main([space, "--run-dir", "both"]) == 0
    other = write_space(
        folder, trials=1, sampler="grid", space={"model.filters": [[3]]}, objective="loss"
    )
    assert main([other, "--run-dir", "alone"]) == 0
    both, alone = SweepDirectory(Path("both")), SweepDirectory(Path("alone"))
    assert figures(both)[1] == figures(alone)[0]
    histories = [read_history(run.history) for run in (both.trial(1), alone.trial(0))]
    for rows in histories:
        for row in rows:
            del row["seconds"], row["images_per_second"]
    assert histories[0] == histories[1]


@pytest.mark.slow
def test_trials_that_fail_do_not_end_the_sweep(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = write_space(
        folder,
        trials=4,
        sampler="grid",
        space={
            "model.filters": [[2, 2, 2, 2, 2], [2]],
            "train.optimizer.learning_rate": [0.1, 1e30],
        },
    )
    assert main([space]) == 0
    sweep = SweepDirectory(Path("sweeps/tiny"))
    trials = study_of(sweep).trials
    assert [trial.state for trial in trials] == [
        TrialState.FAIL,
        TrialState.FAIL,
        TrialState.COMPLETE,
        TrialState.FAIL,
    ]
    assert "8x8" in trials[0].user_attrs["reason"]
    assert "no longer a finite number" in trials[3].user_attrs["reason"]
    assert "failed: " in capsys.readouterr().out
    assert not sweep.trial(3).model.exists()


def test_none_that_ends_well_is_a_bad_result(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = write_space(folder, space={"train.optimizer.learning_rate": [1e30]}, trials=1)
    assert main([space]) == 1
    assert "no trial trained to its end; first: training stopped" in capsys.readouterr().err
    assert Path("sweeps/tiny/sweep.html").is_file()


@pytest.mark.slow
def test_poor_trials_are_pruned(folder: Path) -> None:
    space = write_space(
        folder,
        sampler="grid",
        space={"train.optimizer.learning_rate": [0.1, 1e-8]},
        pruner={"name": "median", "startup_trials": 1, "warmup_epochs": 2},
    )
    assert main([space, "--train.epochs", "4"]) == 0
    sweep = SweepDirectory(Path("sweeps/tiny"))
    good, poor = study_of(sweep).trials
    assert (good.state, sorted(good.intermediate_values)) == (TrialState.COMPLETE, [1, 2, 3, 4])
    assert (poor.state, sorted(poor.intermediate_values)) == (TrialState.PRUNED, [1, 2])
    assert not sweep.trial(1).model.exists()


@pytest.mark.slow
def test_a_signal_saves_and_the_same_command_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    space, sweep = write_space(folder, trials=1), SweepDirectory(Path("sweeps/tiny"))
    assert main([space, "--run-dir", "whole", "--train.epochs", "2"]) == 0
    original, calls = Training.run, 0

    def stopping(self: Training, between: Any) -> None:
        def counted() -> None:
            nonlocal calls
            calls += 1
            if calls == 10:  # in the second epoch
                os.kill(os.getpid(), signal.SIGTERM)
            between()

        original(self, counted)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "run", stopping)
        assert main([space, "--train.epochs", "2"]) == 143
    told = capsys.readouterr().err.splitlines()[-1]
    assert told == (
        "stopped by SIGTERM: what is finished is kept; to continue: "
        "python -m pipeline.sweep tiny.yaml --train.epochs 2"
    )
    assert [trial.state for trial in study_of(sweep).trials] == [TrialState.RUNNING]
    assert sweep.page.is_file()
    assert main([space, "--train.epochs", "2"]) == 0
    assert "continues after" in (sweep.trial(0).path / "log.txt").read_text("utf-8")
    assert figures(sweep) == figures(SweepDirectory(Path("whole")))


def test_broken_images_are_an_error_before_any_trial(folder: Path) -> None:
    for name in ("cats/a.png", "dogs/b.png"):
        path = folder / "photos" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"no image")
    with pytest.raises(
        LockstepError, match="classes 'cats', 'dogs': none of their 2 images can be read"
    ):
        main([write_space(folder), "--data", "folder:photos"])
    assert study_of(SweepDirectory(Path("sweeps/tiny"))).trials == []


def test_one_command_at_a_time(folder: Path) -> None:
    space = write_space(folder)
    with claimed(RunDirectory(Path("sweeps/tiny"))), pytest.raises(LockstepError, match="at work"):
        main([space])


@pytest.mark.parametrize("name", ["config.yaml", "photo.png"])
def test_other_files_are_left_alone(folder: Path, name: str) -> None:
    Path("sweeps/tiny").mkdir(parents=True)
    Path("sweeps/tiny", name).write_text("mine")
    with pytest.raises(ConfigError, match="expected a new directory or one with a sweep in it"):
        main([write_space(folder)])
    assert Path("sweeps/tiny", name).read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digits", "--train.epoch", "3"], "unknown argument --train.epoch; did you mean"),
        (["digits", "--trials", "0"], "expected a whole number from 1, got 0"),
        (["digits", "--workers", "two"], "expected a whole number from 1, got two"),
        (["digits", "--train.epochs", "0"], "train.epochs: expected"),
        ([], "SPACE"),
    ],
)
def test_wrong_commands(arguments: list[str], message: str) -> None:
    with pytest.raises(LockstepError, match=message):
        parse(arguments)


def test_data_that_are_not_there_claim_no_directory(folder: Path) -> None:
    with pytest.raises(LockstepError, match="nowhere"):
        main([write_space(folder), "--data", "folder:nowhere"])
    assert not Path("sweeps").exists()


def test_the_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"])
    text = capsys.readouterr().out
    assert "python -m pipeline.sweep digits" in text
    assert "a space file:" in text
    assert "--train.epochs INT" not in text
