"""The page of a sweep in a real browser, made from storages with all kinds of trials."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from axe_playwright_python.sync_playwright import Axe
from optuna.trial import TrialState
from playwright.sync_api import Page

from pipeline.recipe import dump_yaml, load_recipe, resolve
from pipeline.sweep.directory import SweepDirectory
from pipeline.sweep.results import write_results
from pipeline.sweep.search import load_search
from pipeline.sweep.study import REASON, TIE_BREAKER, Study

SPACE = {
    "train.optimizer.name": ["sgd", "momentum"],
    "train.optimizer.momentum": {"low": 0.5, "high": 0.9},
    "train.optimizer.learning_rate": {"low": 0.001, "high": 1.0, "log": True},
    "model.filters": [[4], [4, 8]],
}
Ending = tuple[TrialState, Sequence[float]]
COMPLETE, PRUNED, FAIL, RUNNING = (
    TrialState.COMPLETE,
    TrialState.PRUNED,
    TrialState.FAIL,
    TrialState.RUNNING,
)


def sweep_with(
    tmp_path: Path,
    endings: Sequence[Ending],
    space: dict[str, Any] | None = None,
    losses: Sequence[float] = (),
    **more: Any,
) -> SweepDirectory:
    """A sweep whose trials ended so: the state, and the figure of each epoch.

    Args:
        losses: of each trial, where its figure is an accuracy.
    """
    path = tmp_path / "space.yaml"
    path.write_text(dump_yaml({"space": space or SPACE, "trials": max(len(endings), 1), **more}))
    search, sweep = load_search(str(path)), SweepDirectory(tmp_path / "sweep")
    study = Study(sweep, search)
    for state, figures in endings:
        with study.next_trial() as trial:
            assert trial is not None
            live = study.live(trial)
            for epoch, value in enumerate(figures, 1):
                live.report(value, epoch)
            if losses:
                live.set_user_attr(TIE_BREAKER, losses[trial.number])
            if state is FAIL:
                study.fail(trial, "<b>no good</b>")
            elif state is not RUNNING:
                study.optuna.tell(
                    trial.number, figures[-1] if state is COMPLETE else None, state=state
                )
    write_results(study, sweep, search)
    return sweep


MANY: list[Ending] = [
    *((COMPLETE, (2.0, 1.0 / (number + 1))) for number in range(12)),
    (PRUNED, (3.0,)),
    (FAIL, ()),
    (FAIL, (2.5,)),
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_complete(tmp_path: Path, page: Page, problems: list[str], scheme: str) -> None:
    sweep = sweep_with(tmp_path, MANY, objective="val_loss")
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(sweep.page.as_uri())
    assert page.locator("h1").inner_text() == "sweep"
    drawn = page.locator("svg.plot")
    assert drawn.count() == 3 + len(SPACE)  # history, epochs, importances
    for index in range(drawn.count()):
        box = drawn.nth(index).bounding_box()
        assert box is not None
        assert box["width"] > 200
        assert box["height"] > 100
    rows = page.locator("table.trials tbody tr")
    assert rows.count() == len(MANY)
    assert rows.first.locator("td").first.inner_text() == "11"
    assert rows.first.locator("td").nth(2).inner_text() == "0.0833"
    assert page.get_by_text("failed: <b>no good</b>").count() == 2
    assert page.get_by_text("python -m pipeline.run --recipe").is_visible()
    page.get_by_text("What was searched").click()
    assert page.get_by_text("sampler: tpe").is_visible()
    violations = Axe().run(page).response["violations"]
    assert [violation["id"] for violation in violations] == []
    assert problems == []
    page.set_viewport_size({"width": 380, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 380


@pytest.mark.parametrize(
    ("endings", "more"),
    [
        ([(COMPLETE, (0.5,))], {}),
        ([(FAIL, ()), (FAIL, ())], {}),
        ([(PRUNED, (1.0,)), (RUNNING, ())], {}),
        ([(RUNNING, (0.5,))], {}),
        ([(COMPLETE, (0.5,))] * 11, {"objective": "val_accuracy"}),
        ([*((COMPLETE, (0.9 + 0.005 * n,)) for n in range(10)), (COMPLETE, (0.1,))],
         {"objective": "val_accuracy", "space": {"train.batch_size": [64, 128]}}),
        ([(COMPLETE, (0.5,)), (COMPLETE, (math.inf, 0.2))], {"space": {"train.batch_size": [64]}}),
    ],
    ids=["one", "all failed", "pruned", "under way", "all the same", "one parameter", "infinite"],
)  # fmt: skip
def test_the_page_copes_with(tmp_path: Path, endings: list[Ending], more: dict[str, Any]) -> None:
    sweep = sweep_with(tmp_path, endings, **more)
    page = sweep.page.read_text("utf-8")
    space = more.get("space", SPACE)
    is_too_early = "How much each parameter mattered is estimated once" in page
    assert page.count("<svg role=") == 3 + len(space) - is_too_early
    complete = sum(state is COMPLETE for state, _ in endings)
    assert sweep.best.is_file() == bool(complete)
    assert ("No trial trained to its end" in page) == (not complete)
    with open(sweep.table, newline="") as stream:
        assert len(list(csv.DictReader(stream))) == len(endings)


def test_the_table_and_the_recipe(tmp_path: Path) -> None:
    sweep = sweep_with(tmp_path, MANY, objective="val_loss")
    with open(sweep.table, newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["trial"]) for row in rows] == [*range(11, -1, -1), 12, 13, 14]
    assert [row["state"] for row in rows[-3:]] == ["pruned", "failed", "failed"]
    assert rows[-1]["reason"] == "<b>no good</b>"
    assert float(rows[0]["val_loss"]) == 1 / 12
    best = resolve(load_recipe(str(sweep.best)), {})
    assert best.train.optimizer.name == rows[0]["train.optimizer.name"]
    assert repr(best.train.optimizer.learning_rate) == rows[0]["train.optimizer.learning_rate"]
    assert best == load_search(str(tmp_path / "space.yaml")).config(
        Study(sweep, load_search(str(tmp_path / "space.yaml"))).trials[11]
    )
    header = sweep.best.read_text("utf-8")
    assert header.startswith(f"# Trial 11 of the sweep in {sweep.path},\n# val_loss 0.0833: the")
    assert f"python -m pipeline.run --recipe {sweep.best}" in header


def test_of_equal_figures_the_first_is_the_best(tmp_path: Path) -> None:
    sweep = sweep_with(tmp_path, [(COMPLETE, (0.5,))] * 3)
    assert sweep.best.read_text("utf-8").startswith("# Trial 0 ")


def test_of_equal_accuracies_the_lower_loss_is_the_best(tmp_path: Path) -> None:
    sweep = sweep_with(
        tmp_path, [(COMPLETE, (0.5,))] * 3, objective="val_accuracy", losses=[0.3, 0.1, 0.2]
    )
    assert sweep.best.read_text("utf-8").startswith("# Trial 1 ")
    with open(sweep.table, newline="") as stream:
        assert [row["trial"] for row in csv.DictReader(stream)] == ["1", "2", "0"]


def test_optunas_own_tools_read_the_storage(tmp_path: Path) -> None:
    sweep = sweep_with(tmp_path, MANY, objective="val_loss")
    study = optuna.load_study(study_name="sweep", storage=f"sqlite:///{sweep.storage}")
    assert study.best_trial.number == 11
    assert study.trials[13].user_attrs[REASON] == "<b>no good</b>"
    study._storage._backend.engine.dispose()
