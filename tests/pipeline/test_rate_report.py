"""The learning rate in the report: what was planned, what was taken, and what was decided."""

import json
import re
import shutil
from pathlib import Path
from typing import Any, get_args

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from export.run_directory import RunDirectory
from pipeline.config import Config
from pipeline.history import read_history
from pipeline.options.schedules import ScheduleOptions
from pipeline.recipe import load_recipe, resolve
from pipeline.report import plots
from pipeline.report.learning_rate import planned_rates
from pipeline.report.page import write_report
from tests.pipeline.test_training import digits_config, train_in

SCHEDULES: dict[str, dict[str, Any]] = {
    "constant": {},
    "step": {"every_epochs": 2, "factor": 0.5},
    "exponential": {"factor": 0.7},
    "inverse-time": {},
    "polynomial": {"power": 2.0, "warmup_epochs": 1, "floor": 0.01},
    "cosine": {"warmup_epochs": 1},
    "cosine-restarts": {"cycle_epochs": 2, "multiplier": 1},
    "one-cycle": {},
    "adaptive-cosine": {"cycle_epochs": 2, "factor": 0.5},
    "plateau": {"patience": 1, "factor": 0.5},
}
QUICK = ("cosine-restarts", "adaptive-cosine", "plateau")


def test_no_schedule_is_left_out() -> None:
    assert set(SCHEDULES) == {
        form.model_fields["name"].default for form in get_args(ScheduleOptions)
    }


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else (pytest.mark.slow,)) for name in SCHEDULES],
)
def test_the_rates_that_were_taken_lie_on_the_planned_curve(
    name: str, prepared: Path, tmp_path: Path
) -> None:
    """A rate so high that the adaptive schedules have to decide."""
    more = {
        "train.schedule": {"name": name, **SCHEDULES[name]},
        "train.epochs": 6,
        "train.batch_size": 512,
        "train.optimizer.learning_rate": 20.0 if name == "adaptive-cosine" else 3.0,
    }
    run = train_in(tmp_path / "run", prepared, **more)
    training = json.loads(run.training.read_bytes())
    planned = planned_rates(digits_config(**more), training)
    assert training["steps_per_epoch"] == 3
    assert len(planned) == 18
    for row in read_history(run.history):
        assert row["learning_rate"] == pytest.approx(planned[int(row["step"]) - 1], rel=1e-5)
    if name in ("adaptive-cosine", "plateau"):
        assert any(item["lowered"] for item in training["rate_decisions"]), "nothing was decided"
    else:
        assert training["rate_decisions"] == []


def test_frozen_epochs_come_first_and_a_limit_of_steps_cuts_the_plan_off(
    prepared: Path, tmp_path: Path
) -> None:
    more = {
        "train.schedule": {"name": "cosine", "warmup_epochs": 1},
        "train.epochs": 5,
        "train.batch_size": 512,
        "train.frozen_epochs": 2,
        "train.frozen_learning_rate": 0.01,
        "train.max_steps": 13,
    }
    run = train_in(tmp_path / "run", prepared, **more)
    training = json.loads(run.training.read_bytes())
    planned = planned_rates(digits_config(**more), training)
    assert len(planned) == 13
    assert planned[:6] == [0.01] * 6
    rows = read_history(run.history)
    assert [row["step"] for row in rows] == [3, 6, 9, 12, 13]
    for row in rows:
        assert row["learning_rate"] == pytest.approx(planned[int(row["step"]) - 1], rel=1e-5)


def test_a_training_that_ended_early_shows_the_whole_plan() -> None:
    config = resolve(load_recipe("digits"), {"train.epochs": 10})
    training = {"steps_per_epoch": 7, "epochs": 4, "rate_decisions": []}
    assert len(planned_rates(config, training)) == 70


def lines_of(svg: str) -> list[int]:
    """How many corners each drawn line has."""
    return [path.count("L") + 1 for path in re.findall(r'<path d="(M[^"]*)"', svg)]


def test_every_step_is_a_point_of_the_curve() -> None:
    """Rates that jump up and down at each step are drawn as such."""
    planned = [1 + step % 2 for step in range(300)]
    svg = plots.learning_rate_curve(planned, 50, [(50, 2.0), (100, 2.0)])
    assert max(lines_of(svg)) >= 300
    assert svg.count("<use") > 2
    assert "planned" in svg
    assert "bounds" not in svg
    decided = plots.learning_rate_curve(planned, 50, [], [(2, "lowered"), (3, "kept")])
    assert decided.count("bounds lowered") == decided.count("bounds kept") == 1


# The page


def report_of(
    trained_run: Path, folder: Path, training: dict[str, Any], **schedule: object
) -> tuple[Config, Path]:
    """The trained run's report, as if its rate had been set by another schedule."""
    run = RunDirectory(Path(shutil.copytree(trained_run, folder / "run")))
    document = json.loads(run.training.read_bytes())
    run.training.write_text(json.dumps({**document, **training}))
    overrides: dict[str, Any] = {"train.epochs": 3, "train.schedule": schedule}
    config = resolve(load_recipe("digits"), {**overrides, "augment.mixup": 0.4})
    write_report(config, run)
    return config, run.report


DECISIONS = [
    {"epoch": 1, "loss": 0.9, "accuracy": 0.55, "lowered": False, "reason": "",
     "highest": 0.8, "lowest": 0.2},
    {"epoch": 2, "loss": 0.7, "accuracy": 0.65, "lowered": False, "reason": "",
     "highest": 0.8, "lowest": 0.2},
    {"epoch": 3, "loss": 0.8, "accuracy": 0.9, "lowered": True, "reason": "the loss rose",
     "highest": 0.4, "lowest": 0.1},
]  # fmt: skip


def test_the_decisions_of_adaptive_cosine_are_a_table(
    trained_run: Path, page: Page, tmp_path: Path
) -> None:
    training = {"rate_decisions": DECISIONS}
    _, report = report_of(
        trained_run, tmp_path, training, name="adaptive-cosine", cycle_epochs=1, factor=0.5
    )
    page.goto(report.as_uri())
    rows = page.locator("table", has_text="Adaptive cosine annealing").locator("tbody tr")
    assert [row.split("\t") for row in rows.all_inner_texts()] == [
        ["1", "0.9000", "", "55.00 %", "", "nothing to compare with: kept", "0.8", "0.2"],
        ["2", "0.7000", "0.9000", "65.00 %", "55.00 %", "kept", "0.8", "0.2"],
        ["3", "0.8000", "0.7000", "90.00 %", "65.00 %", "the loss rose: lowered", "0.4", "0.1"],
    ]
    assert page.locator("svg.plot text", has_text="bounds lowered").count() == 1
    assert page.locator("svg.plot text", has_text="bounds kept").count() == 1


@pytest.mark.parametrize(
    ("decisions", "text"),
    [
        ([{"epoch": 2, "lowered": True, "best": 0.7, "rate": 0.25}], "rate from then on"),
        ([], "The rate never fell"),
    ],
)
def test_the_decisions_of_a_plateau(
    decisions: list[dict[str, float]], text: str, trained_run: Path, page: Page, tmp_path: Path
) -> None:
    training = {"rate_decisions": decisions}
    _, report = report_of(trained_run, tmp_path, training, name="plateau", factor=0.5)
    page.goto(report.as_uri())
    assert page.get_by_text(text).is_visible()


def test_the_report_shows_what_training_saw_and_is_accessible(
    trained_run: Path, page: Page, tmp_path: Path
) -> None:
    training = {"rate_decisions": DECISIONS}
    _, report = report_of(trained_run, tmp_path, training, name="adaptive-cosine", cycle_epochs=1)
    page.goto(report.as_uri())
    grid = page.locator("table.seen")
    assert grid.locator("img").count() == 6 * 4, "six images as they are, and in three epochs"
    assert grid.get_by_text(re.compile(r"\d: \d+\s%")).count() > 0
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        violations = Axe().run(page).response["violations"]
        assert [(item["id"], item["nodes"][0]["html"]) for item in violations] == []
    page.set_viewport_size({"width": 380, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 380


def test_without_augmentation_the_report_says_so(
    trained_run: Path, page: Page, tmp_path: Path
) -> None:
    run = RunDirectory(Path(shutil.copytree(trained_run, tmp_path / "run")))
    none = {"augment.crop_padding": 0, "augment.rotation": 0}
    write_report(resolve(load_recipe("digits"), {"train.epochs": 3, **none}), run)
    page.goto(run.report.as_uri())
    assert page.get_by_text("no augmentation was configured").is_visible()
    assert page.locator("table.seen").count() == 0
