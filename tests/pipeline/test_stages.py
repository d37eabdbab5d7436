"""What is run again and what is skipped."""

from pathlib import Path
from typing import Any

import pytest

from export.run_directory import RunDirectory
from pipeline.config import Config
from pipeline.recipe import resolve
from pipeline.stages import Stage, StageRunner

calls: list[str] = []


def first_work(config: Config, run: RunDirectory) -> str:
    calls.append("first")
    run.data.mkdir(exist_ok=True)
    (run.data / "values").write_text(str(config.seed))
    return "made values"


def second_work(config: Config, run: RunDirectory) -> str:
    calls.append("second")
    run.model.write_text((run.data / "values").read_text() * 2)
    return "doubled"


def failing_work(config: Config, run: RunDirectory) -> str:
    raise OSError("disk full")


FIRST = Stage("first", lambda config: config.seed, (), lambda run: (run.data,), first_work)
SECOND = Stage(
    "second",
    lambda config: config.train.epochs,
    ("first",),
    lambda run: (run.model,),
    second_work,
)


def run_both(
    path: Path, first: Stage = FIRST, second: Stage = SECOND, **overrides: Any
) -> list[str]:
    """Run both stages; returns those that did any work."""
    calls.clear()
    config = resolve({}, {key.replace("__", "."): value for key, value in overrides.items()})
    runner = StageRunner(config, RunDirectory(path), (first, second))
    runner.run(first)
    runner.run(second)
    return list(calls)


def test_a_second_run_skips_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_both(tmp_path) == ["first", "second"]
    capsys.readouterr()
    assert run_both(tmp_path) == []
    assert capsys.readouterr().out.count("skipped: unchanged") == 2


def test_a_changed_option_reruns_its_stage_and_what_follows(tmp_path: Path) -> None:
    run_both(tmp_path)
    assert run_both(tmp_path, train__epochs=3) == ["second"]
    assert run_both(tmp_path, train__epochs=3, seed=1) == ["first", "second"]
    assert (tmp_path / "model.keras").read_text() == "11"
    assert run_both(tmp_path, train__epochs=3, seed=1, verify__max_examples=5) == []


@pytest.mark.parametrize("damage", ["change", "remove", "add"])
def test_a_damaged_output_is_made_again(damage: str, tmp_path: Path) -> None:
    run_both(tmp_path)
    values = tmp_path / "data" / "values"
    if damage == "change":
        values.write_text("9")
    elif damage == "remove":
        values.unlink()
    else:
        (tmp_path / "data" / "other").touch()
    assert run_both(tmp_path)[:1] == ["first"]
    assert values.read_text() == "0"


def test_a_failed_stage_is_not_remembered(tmp_path: Path) -> None:
    broken = Stage("second", SECOND.reads, ("first",), SECOND.outputs, failing_work)
    with pytest.raises(OSError, match="disk full"):
        run_both(tmp_path, second=broken)
    assert run_both(tmp_path) == ["second"]


def test_a_raised_version_runs_again(tmp_path: Path) -> None:
    run_both(tmp_path)
    newer = Stage("second", SECOND.reads, ("first",), SECOND.outputs, second_work, version=2)
    assert run_both(tmp_path, second=newer) == ["second"]


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"first": 5, "second": {}}'])
def test_damaged_records_mean_nothing_is_done(content: str, tmp_path: Path) -> None:
    run_both(tmp_path)
    (tmp_path / "stages.json").write_text(content)
    assert run_both(tmp_path) == ["first", "second"]


def test_other_outputs_of_a_stage_rerun_what_follows(tmp_path: Path) -> None:
    """A retraining need not be reproducible: what hangs on it follows the files, not the plan."""

    def other_work(config: Config, run: RunDirectory) -> str:
        summary = first_work(config, run)
        (run.data / "values").write_text("7")
        return summary

    run_both(tmp_path)
    (tmp_path / "data" / "values").unlink()
    other = Stage("first", FIRST.reads, (), FIRST.outputs, other_work)
    assert run_both(tmp_path, first=other) == ["first", "second"]
    assert (tmp_path / "model.keras").read_text() == "77"


def test_new_outputs_withdraw_what_hung_on_the_old_ones(tmp_path: Path) -> None:
    broken = Stage("second", SECOND.reads, ("first",), SECOND.outputs, failing_work)
    run_both(tmp_path)
    with pytest.raises(OSError, match="disk full"):
        run_both(tmp_path, second=broken, seed=1)
    assert not (tmp_path / "model.keras").exists()


def test_a_failed_attempt_leaves_everything_old(tmp_path: Path) -> None:
    broken = Stage("first", FIRST.reads, (), FIRST.outputs, failing_work)
    run_both(tmp_path)
    with pytest.raises(OSError, match="disk full"):
        run_both(tmp_path, first=broken, seed=1)
    assert (tmp_path / "data" / "values").read_text() == "0"
    assert (tmp_path / "model.keras").read_text() == "00"
