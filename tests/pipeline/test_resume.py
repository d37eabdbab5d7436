"""A training that is stopped and goes on ends as one that was never stopped."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.run_directory import RunDirectory
from export.run_lock import claimed
from export.serving_function import load_model
from pipeline.config import Config
from pipeline.data.prepare import prepare
from pipeline.recipe import ConfigError, load_recipe, resolve
from pipeline.stopping import Stopped, stop_signals
from pipeline.training.checkpoints import refuse_other_config
from pipeline.training.loop import Training
from pipeline.training.state_file import read_state
from pipeline.training.train import train
from serve.command import LockstepError

ROOT = Path(__file__).resolve().parents[2]
STEPS = 11
"""In an epoch: 1,295 images in batches of 128. Between them and the next epoch come the end of the
last step, one batch of validation, and the end of the epoch."""

EVERYTHING_WITH_STATE: dict[str, Any] = {
    "train.epochs": 4,
    "train.batch_size": 128,
    "train.early_stopping": 3,
    "train.schedule": {"name": "adaptive-cosine", "cycle_epochs": 1, "factor": 0.5},
    "train.optimizer.learning_rate": 5.0,
    "model.filters": [8, 8],
    "model.convolutions": 1,
    "model.dropout": 0.3,
    "train.weight_average": 0.9,
    "augment.mixup": 0.3,
    "augment.rotation": 10,
    "augment.crop_padding": 1,
}

SGD, RMSPROP = {"name": "sgd"}, {"name": "rmsprop"}


def config_of(**more: object) -> Config:
    return resolve(load_recipe("digits"), {**EVERYTHING_WITH_STATE, **more})


@pytest.fixture
def new_run(prepared: Path, tmp_path: Path) -> Callable[[str], RunDirectory]:
    def make(name: str) -> RunDirectory:
        (tmp_path / name).mkdir()
        (tmp_path / name / "data").symlink_to(prepared)
        return RunDirectory(tmp_path / name)

    return make


@pytest.fixture(scope="module")
def uninterrupted(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    path = tmp_path_factory.mktemp("uninterrupted")
    (path / "data").symlink_to(prepared)
    run = RunDirectory(path)
    train(config_of(), run)
    decisions = json.loads(run.training.read_bytes())["rate_decisions"]
    assert any(item["lowered"] for item in decisions), "nothing to remember"
    return run


def train_until(config: Config, run: RunDirectory, moment: int) -> None:
    """Train, and have SIGTERM come at this call of `between`, counted from 1."""
    calls = 0

    def run_and_stop(self: Training, between: Callable[[], None]) -> None:
        def counted() -> None:
            nonlocal calls
            calls += 1
            if calls == moment:
                os.kill(os.getpid(), signal.SIGTERM)
            between()

        original(self, counted)

    original = Training.run
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(Stopped),
        stop_signals.received(),
    ):
        patch.setattr(Training, "run", run_and_stop)
        train(config, run)
    assert calls == moment


def history_of(run: RunDirectory) -> list[dict[str, str]]:
    """Without what the clock says."""
    with open(run.history, newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        assert float(row.pop("seconds")) > 0
        assert float(row.pop("images_per_second")) > 0
    return rows


def logged(run: RunDirectory) -> dict[str, list[tuple[int, float]]]:
    """Every value in TensorBoard's files, in order, by split and name."""
    import tensorflow as tf
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found: dict[str, list[tuple[int, float]]] = {}
    for file in sorted(run.logs.rglob("events.out.tfevents.*")):
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                name = f"{file.parent.name}/{value.tag}"
                number = float(tf.make_ndarray(value.tensor))
                found.setdefault(name, []).append((event.step, number))
    return found


def assert_same(run: RunDirectory, other: RunDirectory) -> None:
    weights, others = (load_model(item.model).get_weights() for item in (run, other))
    for weight, expected in zip(weights, others, strict=True):
        np.testing.assert_array_equal(weight, expected)
    assert history_of(run) == history_of(other)
    state, expected = (read_state(item.checkpoints / "state.npz") for item in (run, other))
    assert state.document["position"] == expected.document["position"]
    assert list(state.arrays) == list(expected.arrays)
    for name, array in state.arrays.items():
        np.testing.assert_array_equal(array, expected.arrays[name], err_msg=name)
    facts, expected_facts = (json.loads(item.training.read_bytes()) for item in (run, other))
    for item in (facts, expected_facts):
        del item["seconds"]
    assert facts == expected_facts


# Stopped and continued


def test_a_training_that_was_stopped_anywhere_ends_the_same(
    new_run: Callable[[str], RunDirectory],
    uninterrupted: RunDirectory,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, config = new_run("run"), config_of()
    for moment, place in (
        (4, "step 4 of 11 in epoch 1 of 4"),
        (8, "step 11 of 11 in epoch 1 of 4"),  # 6 more steps, their end, and in the validation
        (2, "epoch 1 of 4"),  # validation again, and the end of the epoch
        (STEPS, "step 11 of 11 in epoch 2 of 4"),  # before the validation
        (2 + 1, "step 1 of 11 in epoch 3 of 4"),
    ):
        train_until(config, run, moment)
        assert f"saved after {place}\n" in capsys.readouterr().out
        assert not run.model.exists()
    train(config, run)
    assert "continues after step 1 of 11 in epoch 3 of 4" in capsys.readouterr().out
    assert_same(run, uninterrupted)
    epochs = [int(row["epoch"]) for row in history_of(run)]
    values = logged(run)
    assert values == logged(uninterrupted)
    assert set(values) == {
        *("train/loss", "train/accuracy", "train/learning_rate"),
        *("validation/loss", "validation/accuracy"),
    }
    for name, points in values.items():
        assert [step for step, _ in points] == epochs, name


def test_a_state_is_written_in_the_middle_of_an_epoch_and_kept(
    new_run: Callable[[str], RunDirectory],
    uninterrupted: RunDirectory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed without a chance to write anything: the last state counts."""

    class KilledError(BaseException):
        pass

    run, config = new_run("run"), config_of(**{"train.checkpoint_minutes": 1e-9})
    original, calls = Training.run, 0

    def run_and_die(self: Training, between: Callable[[], None]) -> None:
        def counted() -> None:
            nonlocal calls
            calls += 1
            if calls == 7:
                raise KilledError
            between()

        original(self, counted)

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(Training, "run", run_and_die)
        train(config, run)
    state = read_state(run.checkpoints / "state.npz")
    assert state.document["position"]["step"] == 6
    train(config_of(), run)  # how often it is written changes nothing
    assert_same(run, uninterrupted)


PHASES: dict[str, dict[str, Any]] = {
    "contrast, frozen, all": {
        "train.pretraining": {"name": "contrastive", "epochs": 1},
        "train.frozen_epochs": 1,
        "train.epochs": 2,
        "augment.mixup": 0.0,
    },
    "full batch in parts, plateau": {
        "train.batch_size": "full",
        "train.part_size": 400,
        "train.epochs": 7,
        "train.early_stopping": None,
        "train.schedule": {"name": "plateau", "patience": 1, "factor": 0.5},
    },
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "places"),
    [
        (
            PHASES["contrast, frozen, all"],
            (
                (5, "pretraining, step 5 of 11 in epoch 1 of 1"),
                (8, "pretraining, epoch 1 of 1"),
                (3, "frozen, step 3 of 11 in epoch 1 of 1"),
                (9, "frozen, step 11 of 11 in epoch 1 of 1"),
                (2, "frozen, epoch 1 of 1"),
                (6, "step 6 of 11 in epoch 2 of 2"),
            ),
        ),
        (
            PHASES["full batch in parts, plateau"],
            ((3, "epoch 1 of 7"), (4, "step 1 of 1 in epoch 3 of 7"), (8, "epoch 5 of 7")),
        ),
    ],
    ids=list(PHASES),
)
def test_every_phase_and_method_goes_on_where_it_was(
    new_run: Callable[[str], RunDirectory],
    capsys: pytest.CaptureFixture[str],
    more: dict[str, Any],
    places: tuple[tuple[int, str], ...],
) -> None:
    config = config_of(**more)
    whole, run = new_run("whole"), new_run("run")
    train(config, whole)
    for moment, place in places:
        train_until(config, run, moment)
        assert f"saved after {place}\n" in capsys.readouterr().out
    train(config, run)
    assert_same(run, whole)
    assert logged(run) == logged(whole)


def test_finishing_again_gives_the_same(
    new_run: Callable[[str], RunDirectory], uninterrupted: RunDirectory
) -> None:
    """A kill after the last state and before the outputs, or in between them."""
    run = new_run("run")
    shutil.copytree(uninterrupted.checkpoints, run.checkpoints)
    shutil.copytree(uninterrupted.logs, run.logs)
    train(config_of(), run)
    assert_same(run, uninterrupted)
    assert logged(run) == logged(uninterrupted)


@pytest.mark.slow
def test_early_stopping_counts_on(
    new_run: Callable[[str], RunDirectory],
) -> None:
    """A rate that spoils everything: the first epochs are the best, and patience ends."""
    more = {
        "train.epochs": 30,
        "train.optimizer.learning_rate": 3.0,
        "train.schedule": {"name": "constant"},
    }
    whole, run = new_run("whole"), new_run("run")
    train(config_of(**more), whole)
    epochs = len(history_of(whole))
    assert epochs < 30
    train_until(config_of(**more), run, (STEPS + 2) * (epochs - 1) + 5)
    train(config_of(**more), run)
    assert_same(run, whole)


DETERMINISTIC = """
import sys
from pathlib import Path
from export.run_directory import RunDirectory
from pipeline.training.train import train
from tests.pipeline.test_resume import config_of, train_until

whole, stopped = (RunDirectory(Path(path)) for path in sys.argv[1:])
config = config_of(deterministic=True)
train(config, whole)
train_until(config, stopped, 16)
train(config, stopped)
"""


@pytest.mark.slow
def test_a_deterministic_training_goes_on_too(new_run: Callable[[str], RunDirectory]) -> None:
    """In a process of its own, since TensorFlow cannot leave that mode. An operation that could
    only be done at random would end it."""
    runs = [new_run("whole"), new_run("stopped")]
    subprocess.run(
        [sys.executable, "-c", DETERMINISTIC, *(str(run.path) for run in runs)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True,
    )  # fmt: skip
    assert_same(*runs)


# Damage


def test_a_damaged_state_falls_back_to_the_one_before(
    new_run: Callable[[str], RunDirectory],
    uninterrupted: RunDirectory,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = new_run("run")
    train_until(config_of(), run, 3 * (STEPS + 2) - 2)
    newest = run.checkpoints / "state.npz"
    newest.write_bytes(newest.read_bytes()[:-1000])
    train(config_of(), run)
    output = capsys.readouterr()
    assert output.err.count("\n") == 1
    assert f"warning: {newest}: damaged" in output.err
    assert "going on from the state before it" in output.err
    assert "continues after epoch 2 of 4" in output.out
    assert_same(run, uninterrupted)
    assert logged(run) == logged(uninterrupted)


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"train.batch_size": "full", "train.optimizer": SGD | {"learning_rate": 1e38}}, "loss"),
        ({"train.optimizer": RMSPROP | {"learning_rate": 3e38}}, "weights"),
    ],
    ids=["in validation", "in the middle of an epoch"],
)
def test_a_state_that_leads_nowhere_is_not_written(
    more: dict[str, Any], what: str, new_run: Callable[[str], RunDirectory]
) -> None:
    """The loss of a step is finite, and what the step left is of no use."""
    run = new_run("run")
    with pytest.raises(ConfigError, match=f"in epoch 1 of 4: the {what} "):
        train(config_of(**{"train.checkpoint_minutes": 1e-9, **more}), run)
    for state in run.checkpoints.glob("*.npz"):
        assert all(np.isfinite(array).all() for array in read_state(state).arrays.values())


def test_without_any_whole_state_nothing_is_guessed(
    new_run: Callable[[str], RunDirectory],
) -> None:
    run = new_run("run")
    run.checkpoints.mkdir()
    (run.checkpoints / "state.npz").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"nothing whole is left.*--fresh.*--run-dir"):
        train(config_of(), run)


# Another config


@pytest.fixture(scope="module")
def unfinished(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """Treat it as read-only."""
    path = tmp_path_factory.mktemp("unfinished")
    (path / "data").symlink_to(prepared)
    train_until(config_of(), RunDirectory(path), STEPS + 5)
    return RunDirectory(path)


@pytest.fixture
def unfinished_copy(unfinished: RunDirectory, tmp_path: Path) -> RunDirectory:
    return RunDirectory(Path(shutil.copytree(unfinished.path, tmp_path / "copy", symlinks=True)))


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("train.epochs", 5, "train.epochs 4 -> 5"),
        ("train.batch_size", 64, "train.batch_size 128 -> 64"),
        ("train.optimizer.momentum", 0.8, "train.optimizer.momentum 0.9 -> 0.8"),
        ("model.dropout", 0.2, "model.dropout 0.3 -> 0.2"),
        ("augment.horizontal_flip", True, "augment.horizontal_flip False -> True"),
        ("seed", 1, "seed 0 -> 1"),
        ("prepare.image_size", [16, 16], r"prepare.image_size None -> \[16, 16\]"),
        ("deterministic", True, "deterministic False -> True"),
    ],
)
def test_a_config_that_changes_the_result_is_refused(
    unfinished: RunDirectory, key: str, value: object, named: str
) -> None:
    expected = rf"unfinished \(in epoch 2\).*{named}.*--fresh.*--run-dir"
    with pytest.raises(ConfigError, match=expected):
        refuse_other_config(unfinished, config_of(**{key: value}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.checkpoint_minutes", 1),
        ("evaluate.temperature", False),
        ("quantize.enabled", False),
        ("verify.max_examples", 10),
        ("prepare.max_rejected_share", 0.5),
    ],
)
def test_a_config_that_does_not_is_not(unfinished: RunDirectory, key: str, value: object) -> None:
    refuse_other_config(unfinished, config_of(**{key: value}))


def test_a_finished_training_is_no_obstacle(
    uninterrupted: RunDirectory, new_run: Callable[[str], RunDirectory]
) -> None:
    run = new_run("run")
    shutil.copytree(uninterrupted.checkpoints, run.checkpoints)
    config = config_of(**{"train.epochs": 1})
    refuse_other_config(run, config)
    train(config, run)
    assert len(history_of(run)) == 1


def test_other_images_are_refused(unfinished_copy: RunDirectory, tmp_path: Path) -> None:
    unfinished_copy.data.unlink()
    prepare(config_of(**{"prepare.validation_share": 0.2}), unfinished_copy)
    with pytest.raises(ConfigError, match=r"began with other images; .*--fresh"):
        train(config_of(), unfinished_copy)


def test_another_machine_is_a_warning(
    unfinished_copy: RunDirectory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from pipeline.training import train as module

    monkeypatch.setattr(module, "prepare_device", lambda **options: "GPU (NVIDIA H100)")
    train(config_of(), unfinished_copy)
    warning = capsys.readouterr().err
    assert "device was CPU" in warning
    assert "is GPU (NVIDIA H100): the last bits of the result may differ" in warning


# A full disk


FULL_DISK = """
mount -t tmpfs -o size={size} tmpfs {folder} || exit 99
mkdir {folder}/run
cp -r {data} {folder}/run/data
{python} {program} {folder}/run
echo "first: $?"
mount -o remount,size=64m {folder} || exit 99
{python} {program} {folder}/run
echo "second: $?"
cp -r {folder}/run/. {result}
"""

PROGRAM = """
import sys
from pathlib import Path
from export.run_directory import RunDirectory
from pipeline.training.train import train
from serve.command import run_command
from tests.pipeline.test_resume import config_of

config = config_of(**{"model.filters": [8, 192]})
run_command(lambda arguments: print(train(config, RunDirectory(Path(arguments[0])))))
"""


@pytest.mark.slow
def test_a_full_disk_loses_nothing(
    prepared: Path, new_run: Callable[[str], RunDirectory], tmp_path: Path
) -> None:
    """A file system that has no room for a third state; then it gets more."""
    namespace = ["unshare", "--mount", "--map-root-user"]
    if shutil.which("unshare") is None or subprocess.run([*namespace, "true"]).returncode:
        pytest.skip("no file system of its own can be mounted here")
    program, folder, result = tmp_path / "program.py", tmp_path / "disk", tmp_path / "result"
    program.write_text(PROGRAM)
    for path in (folder, result):
        path.mkdir()
    whole = new_run("whole")
    config = config_of(**{"model.filters": [8, 192]})
    train(config, whole)
    state = (whole.checkpoints / "state.npz").stat().st_size
    data = sum(path.stat().st_size for path in prepared.rglob("*") if path.is_file())
    data += 4096 * sum(1 for _ in prepared.rglob("*"))
    done = subprocess.run(
        [*namespace, "sh", "-c", FULL_DISK.format(
            size=data + round(2.5 * state), folder=folder, data=prepared, python=sys.executable,
            program=program, result=result,
        )],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert "first: 2\n" in done.stdout, done
    assert "second: 0\n" in done.stdout, done
    errors = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert errors == [
        f"error: {folder}/run/checkpoints/state.npz: No space left on device; free some space, "
        "then run the same command again"
    ]
    assert "continues after epoch 2 of 4" in done.stdout
    run = RunDirectory(result)
    assert_same(run, whole)


# One writer


def test_a_run_has_one_writer(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    with (
        claimed(run),
        pytest.raises(LockstepError, match="another process is at work in this run"),
        claimed(run),
    ):
        pass
    with claimed(run):
        pass


def test_a_lock_goes_with_a_killed_process(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from export.run_directory import RunDirectory\n"
        "from export.run_lock import claimed\n"
        "with claimed(RunDirectory(Path(sys.argv[1]))):\n"
        "    print('mine', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "mine\n"
        with pytest.raises(LockstepError, match="another process"), claimed(RunDirectory(tmp_path)):
            pass
        process.kill()
        process.wait()
    with claimed(RunDirectory(tmp_path)):
        pass
