"""comparison.html in a real browser."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from pipeline.compare import curves
from pipeline.compare.page import page as render
from pipeline.compare.runs import read_runs
from pipeline.report.plots import INK

MakeRun = Callable[..., Path]
PICTURES = 6
EVIL = "<img src=x onerror=document.title='owned'>"


@pytest.fixture
def show(page: Page, tmp_path: Path) -> Callable[..., None]:
    """Compare runs and open the page."""

    def open_page(*paths: Path) -> None:
        (tmp_path / "comparison.html").write_text(render(read_runs(paths)), encoding="utf-8")
        page.goto((tmp_path / "comparison.html").as_uri())

    return open_page


def in_row(page: Page, name: str, title: str) -> str:
    """The cell of a run in the table of final figures, with the star of the best."""
    titles = page.locator(".figures thead th").all_inner_texts()
    row = page.locator(".figures tbody tr").filter(has=page.get_by_role("rowheader", name=name))
    cell = row.locator("th, td").nth(titles.index(title))
    star = cell.evaluate("cell => getComputedStyle(cell, '::after').content").strip('"')
    return cell.inner_text() + (star if star != "none" else "")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_complete_and_accessible(
    scheme: str,
    make_run: MakeRun,
    unfinished: MakeRun,
    page: Page,
    show: Callable[..., None],
    problems: list[str],
) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    sgd = make_run("sgd", {"train.optimizer.name": "sgd"}, accuracy=0.91)
    adam = make_run("adam", {"train.optimizer.name": "adam"}, accuracy=0.95)
    show(sgd, adam, unfinished("slow"), make_run(EVIL, fingerprint="cd" * 32))
    assert page.title() == "4 runs compared · Lockstep"
    assert page.locator("svg.plot").count() == PICTURES
    for position in range(4):
        lines = page.locator(f"svg.plot .run-{position}")
        assert lines.count() == PICTURES
        assert {line.bounding_box()["width"] > 50 for line in lines.all()} == {True}
        colors = lines.locator("path").evaluate_all(
            "paths => [...new Set(paths.map(path => getComputedStyle(path).stroke))]"
        )
        sample = page.locator(".legend line").nth(position)
        assert colors == [sample.evaluate("line => getComputedStyle(line).stroke")]
    assert in_row(page, "adam", "test accuracy") == "95.0 % ★"
    assert in_row(page, "sgd", "test accuracy") == "91.0 %"
    assert in_row(page, EVIL, "test accuracy") == "90.0 %", "alone on its images"
    assert in_row(page, "slow", "test accuracy") == ""
    assert in_row(page, "slow", "state") == "unfinished: epoch 3 of 6"
    assert in_row(page, "slow", "epochs") == "3"
    keys = page.locator(".differences tbody th").all_inner_texts()
    assert keys[:2] == ["train.optimizer.name", "train.optimizer.learning_rate"]
    expect(page.get_by_text("Not all runs are on the same images")).to_be_visible()
    found = Axe().run(page)
    assert [(item["id"], item["nodes"][0]["html"]) for item in found.response["violations"]] == []
    assert problems == []


def test_a_run_can_be_hidden(make_run: MakeRun, page: Page, show: Callable[..., None]) -> None:
    show(make_run("one"), make_run("two"))
    expect(page.get_by_text("Not all runs are on the same images")).to_have_count(0)
    page.get_by_label("two").uncheck()
    for position, shown in ((0, True), (1, False)):
        for line in page.locator(f"svg.plot .run-{position}").all():
            expect(line).to_be_visible(visible=shown)
    page.get_by_label("two").press("Space")
    expect(page.locator("svg.plot .run-1").first).to_be_visible()


def test_twenty_runs_on_a_telephone(
    make_run: MakeRun, page: Page, show: Callable[..., None]
) -> None:
    page.set_viewport_size({"width": 380, "height": 800})
    show(*(make_run(f"rate-{n}", {"train.optimizer.learning_rate": n / 100}) for n in range(1, 21)))
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
    assert page.locator(".figures tbody tr").count() == 20
    assert page.locator(".legend label").count() == 20
    assert page.locator(".differences thead th").count() == 21
    assert page.locator("svg.plot [class^=run-]").count() == 20 * PICTURES


def test_without_an_epoch_there_is_no_picture(
    make_run: MakeRun, page: Page, show: Callable[..., None]
) -> None:
    show(make_run("one", until="prepare"), make_run("two", until="prepare"))
    expect(page.get_by_text("No run has finished an epoch yet.")).to_be_visible()
    expect(page.get_by_text("None: the runs have the same config.")).to_be_visible()
    assert page.locator("svg.plot").count() == 0


def test_every_line_is_its_own_and_seen_on_both_grounds() -> None:
    lines = [(curves.color(position), curves.dashes(position)) for position in range(curves.LINES)]
    assert len(set(lines)) == curves.LINES == 35
    colors = [color for color in curves.COLORS if color != INK]
    for color, ground in itertools.product(colors, ("#ffffff", "#1a2029")):
        assert contrast(color, ground) >= 3, (color, ground)


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, contrast ratio."""
    darker, lighter = sorted(map(luminance, (one, other)))
    return (lighter + 0.05) / (darker + 0.05)


def luminance(color: str) -> float:
    """WCAG 2.2, relative luminance."""
    values = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
