"""The report, opened in a real browser."""

import json
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page

from export.run_directory import RunDirectory
from pipeline.recipe import load_recipe, resolve
from pipeline.report import plots
from pipeline.report.page import most_confused, write_report


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_complete(
    trained_run: Path, page: Page, problems: list[str], scheme: str
) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.goto((trained_run / "report.html").as_uri())
    assert page.locator("h1").inner_text().startswith("digits")
    assert page.get_by_text("proof passed").is_visible()
    verdict = json.loads((trained_run / "metrics.json").read_bytes())["verdict"]
    assert len(verdict) == 6
    for finding in verdict:
        item = page.locator(".verdict li", has_text=finding["text"])
        assert item.locator("b").inner_text() == finding["status"]
    assert page.get_by_role("link", name="model: ").get_attribute("href") == "#verdict"
    drawn = page.locator("svg.plot")
    assert drawn.count() == 5
    for index in range(5):
        plot = drawn.nth(index)
        box = plot.bounding_box()
        assert box is not None
        assert box["width"] > 200
        assert box["height"] > 100
        assert plot.locator("path").count() > 10
    # Both curves run over the whole plot, not just a dot of them.
    line = page.locator("svg.plot #line2d_1 path, svg.plot [id^=line2d] path")
    assert line.count() > 5
    assert page.locator("table.matrix td").count() == 100
    total = sum(int(text) for text in page.locator("table.matrix td").all_inner_texts())
    assert total == 359
    for name in ("saved_model", "document", "graph", "onnx", "batch", "server"):
        assert page.locator("td", has_text=name).first.is_visible()
    pictures = page.locator("figure img")
    assert pictures.count() > 0
    assert pictures.first.evaluate("image => image.naturalWidth") == 8
    assert page.get_by_text("python -m serve.batch").is_visible()
    assert page.get_by_text("Expected calibration error on 359").is_visible()
    page.get_by_text("What was tried").click()
    assert page.get_by_text("nothing (float32)").is_visible()
    assert problems == []


def test_the_page_fits_a_telephone(trained_run: Path, page: Page) -> None:
    page.set_viewport_size({"width": 380, "height": 800})
    page.goto((trained_run / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 380


def test_names_from_outside_are_escaped(run_copy: Path, page: Page, problems: list[str]) -> None:
    """A class may be called anything that a folder may be called."""
    evil = "<script>document.title='owned'</script>"
    for name in ("metrics.json", "data/manifest.json"):
        path = run_copy / name
        path.write_text(path.read_text().replace('"7"', f'"{evil}"'))
    write_report(resolve(load_recipe("digits"), {}), RunDirectory(run_copy))
    page.goto((run_copy / "report.html").as_uri())
    assert page.title() != "owned"
    assert page.locator("th", has_text=evil).count() > 0
    assert problems == []


def test_a_useless_model_has_no_green_badge_but_that_of_its_proof(
    run_copy: Path, page: Page, problems: list[str]
) -> None:
    run = RunDirectory(run_copy)
    metrics = json.loads(run.metrics.read_bytes())
    bad = {"name": "more than one answer", "status": "bad", "text": "all answers are '3'"}
    metrics["verdict"][1] = bad
    run.metrics.write_text(json.dumps(metrics))
    run.requirements.write_text('[{"text": "accuracy>=0.99: accuracy is 0.1", "met": false}]')
    write_report(resolve(load_recipe("digits"), {}), run)
    page.goto(run.report.as_uri())
    badges = page.locator("h1 .badge")
    assert badges.all_inner_texts() == [
        "proof passed",
        "model: bad",
        "not released: requirements not met",
    ]
    assert ["good" in (badge.get_attribute("class") or "") for badge in badges.all()] == [
        True,
        False,
        False,
    ]
    assert page.get_by_text("bad in 1 of 6 respects").is_visible()
    assert (
        page.locator(".verdict li", has_text="accuracy is 0.1").inner_text().startswith("not met")
    )
    assert problems == []


def test_a_class_without_test_images_is_not_tested(
    run_copy: Path, page: Page, problems: list[str]
) -> None:
    run = RunDirectory(run_copy)
    metrics = json.loads(run.metrics.read_bytes())
    nothing = {"precision": None, "recall": None, "f1": None, "examples": 0}
    metrics["per_class"]["7"] = nothing
    metrics["classes_tested"] = 9
    run.metrics.write_text(json.dumps(metrics))
    write_report(resolve(load_recipe("digits"), {}), run)
    page.goto(run.report.as_uri())
    row = page.locator("#classes + .card tbody tr").nth(7)
    assert row.locator("td").all_inner_texts()[:3] == ["7", "not tested", "0"]
    assert page.get_by_text("macro over 9 of 10 classes").count() == 2
    assert problems == []


def test_a_pretraining_has_a_curve(run_copy: Path, page: Page, problems: list[str]) -> None:
    run = RunDirectory(run_copy)
    run.pretraining.write_text(
        "epoch,step,learning_rate,loss,val_loss,seconds,images_per_second\n"
        "1,21,0.1,4.5,5.1,1.5,900\n"
        "2,42,0.01,4.2,4.9,1.4,950\n"
    )
    write_report(resolve(load_recipe("digits"), {}), run)
    page.goto(run.report.as_uri())
    assert page.get_by_label("Contrastive loss by epoch").is_visible()
    assert page.locator("svg.plot").count() == 6
    assert problems == []


def test_many_classes_become_a_picture() -> None:
    svg = plots.confusion_image(np.eye(200, dtype=int).tolist())
    assert svg.startswith('<svg role="img" aria-label="Confusion matrix"')
    assert len(svg) < 200_000


def test_most_confused() -> None:
    matrix = [[5, 2, 0], [0, 5, 7], [1, 0, 5]]
    assert most_confused(matrix, ["a", "b", "c"], 2) == [("b", "c", 7), ("a", "b", 2)]
    assert most_confused([[3, 0], [0, 3]], ["a", "b"], 5) == []
