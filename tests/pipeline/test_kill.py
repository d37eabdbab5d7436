"""`python -m pipeline.run`, killed and asked to stop at any instant."""

import csv
import json
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from export.serving_function import load_model
from serve.atomic import remove
from tests.pipeline.followed_command import FollowedCommand

STAGES = ("prepare", "train", "evaluate", "export", "quantize", "verify", "report")
OUTPUTS = {
    "prepare": "data",
    "train": "model.keras",
    "export": "model.unverified.onnx",
    "verify": "parity.json",
}
"""What a stage leaves when it is done."""

CONFIG = """
train:
  epochs: 8
  batch_size: 64
  early_stopping: 6
  checkpoint_minutes: 0.005
  optimizer: {name: momentum, learning_rate: 1.0}
  schedule: SCHEDULE
  pretraining: {name: contrastive, epochs: 1}
  frozen_epochs: 2
  weight_average: 0.9
model: {name: cnn, filters: [16, 32], dropout: 0.3}
augment: {rotation: 10, crop_padding: 1, mixup: 0.3}
quantize: {enabled: false}
verify: {max_examples: 60}
"""
SCHEDULES = {
    "adaptive-cosine": "{name: adaptive-cosine, cycle_epochs: 1, factor: 0.5}",
    "plateau": "{name: plateau, patience: 1, factor: 0.5}",
}


def run_chaos(folder: Path, *arguments: str) -> FollowedCommand:
    words = ("pipeline.run", "--recipe", "chaos.yaml", *arguments)
    return FollowedCommand(*words, folder=folder, SOURCE_DATE_EPOCH="1700000000")


@pytest.fixture(scope="module", params=list(SCHEDULES))
def schedule(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def uninterrupted(schedule: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    (folder / "chaos.yaml").write_text(CONFIG.replace("SCHEDULE", SCHEDULES[schedule]))
    command = run_chaos(folder)
    assert command.end() == 0, command.output
    run = folder / "runs" / "chaos"
    decisions = json.loads((run / "training.json").read_bytes())["rate_decisions"]
    assert any(item["lowered"] for item in decisions), "nothing to remember"
    return run


@pytest.fixture
def folder(schedule: str, tmp_path: Path) -> Path:
    (tmp_path / "chaos.yaml").write_text(CONFIG.replace("SCHEDULE", SCHEDULES[schedule]))
    return tmp_path


def history_of(run: Path) -> list[dict[str, str]]:
    with open(run / "history.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        del row["seconds"], row["images_per_second"]
    return rows


def assert_same(run: Path, other: Path) -> None:
    weights, others = (load_model(item / "model.keras").get_weights() for item in (run, other))
    for weight, expected in zip(weights, others, strict=True):
        np.testing.assert_array_equal(weight, expected)
    assert history_of(run) == history_of(other)
    for name in ("metrics.json", "test_probabilities.npy", "model.onnx"):
        assert (run / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schedule", "plan"),
    [
        ("adaptive-cosine", {"prepare": 6, "train": 14, "export": 5, "verify": 5}),
        ("plateau", {"train": 6}),
    ],
    indirect=["schedule"],
)
def test_kills_change_nothing(folder: Path, uninterrupted: Path, plan: dict[str, int]) -> None:
    """So many after each stage has begun."""
    seconds = {
        name: record["seconds"]
        for name, record in json.loads((uninterrupted / "stages.json").read_bytes()).items()
    }
    generator, run = random.Random(20), folder / "runs" / "chaos"
    hit: list[str] = []
    for target, kills in plan.items():
        wanted = len(hit) + kills
        while len(hit) < wanted:
            remove(run / OUTPUTS[target])  # if it was done in time, it is done again
            command = run_chaos(folder)
            assert command.wait_for(rf"^{target} +\.\.\.$"), command.output
            time.sleep(generator.uniform(0, seconds[target]))
            command.process.kill()
            if command.end() == -signal.SIGKILL:
                hit.append([line.split()[0] for line in command.output if line[-4:] == " ..."][-1])
            else:
                assert command.process.returncode == 0, command.output
                assert_same(run, uninterrupted)
    assert set(plan) <= set(hit), hit
    command = run_chaos(folder)
    assert command.end() == 0, command.output
    assert_same(run, uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["adaptive-cosine"], indirect=True)
def test_a_signal_saves_and_says_how_to_continue(folder: Path, uninterrupted: Path) -> None:
    command = run_chaos(folder)
    command.wait_for(r"^Epoch 4/8")
    started = time.monotonic()
    command.process.terminate()
    assert command.end() == 143, command.output
    assert time.monotonic() - started < 5
    assert "Traceback" not in "\n".join(command.output)
    assert any("saved after" in line for line in command.output)
    assert command.output[-1] == (
        "stopped by SIGTERM: what is finished is kept; to continue: "
        "python -m pipeline.run --recipe chaos.yaml"
    )
    other = run_chaos(folder, "--train.epochs", "9")
    assert other.end() == 2
    assert "unfinished" in other.output[-1]
    assert "train.epochs 8 -> 9" in other.output[-1]
    again = run_chaos(folder)
    assert again.wait_for("continues after")
    second = run_chaos(folder)
    assert second.end() == 2
    assert "another process is at work in this run" in second.output[-1]
    assert again.end() == 0, again.output
    assert_same(folder / "runs" / "chaos", uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["adaptive-cosine"], indirect=True)
def test_a_fresh_start_forgets_the_unfinished_training(folder: Path) -> None:
    command = run_chaos(folder)
    command.wait_for(r"^Epoch 4/8")
    command.process.terminate()
    assert command.end() == 143
    command = run_chaos(folder, "--train.epochs", "1", "--train.frozen_epochs", "0", "--fresh")
    assert command.end() == 0, command.output
    assert not any("continues" in line for line in command.output)
    assert len(history_of(folder / "runs" / "chaos")) == 1
