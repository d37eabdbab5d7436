"""Fixtures that several tests share."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import models  # noqa: F401  # its import keeps the settings of who runs the tests from Keras

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


ROOT = Path(__file__).resolve().parents[1]

RunModule = Callable[..., subprocess.CompletedProcess[str]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file first: of two processes, one would be left with it in the end."""
    items.sort(key=lambda item: item.path.name != "test_recipes_whole.py")


@pytest.fixture(scope="session")
def run_module() -> RunModule:
    """Run `python -m MODULE ARGUMENTS` in a folder, in the environment of a user."""

    def run(module: str, *arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
        environment = {key: os.environ[key] for key in os.environ if key != "TF_CPP_MIN_LOG_LEVEL"}
        return subprocess.run(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=folder,
            env={**environment, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )

    return run


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short but complete run on the digits; treat it as read-only.

    Smoothed labels make it doubt what it knows, so that it has a temperature.
    """
    from pipeline.run import main

    run_dir = tmp_path_factory.mktemp("runs") / "digits"
    options = ["--train.epochs", "3", "--train.loss.label_smoothing", "0.2"]
    assert main(["--run-dir", str(run_dir), *options]) == 0
    return run_dir


@pytest.fixture
def run_copy(trained_run: Path, tmp_path: Path) -> Path:
    """A copy of the trained run, to change and to break."""
    return Path(shutil.copytree(trained_run, tmp_path / "run"))


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """A headless Chromium with a camera that shows a test picture.

    For one module only: while it runs, its event loop is that of this thread.
    """
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        if os.environ.get("CI"):
            pytest.fail("chromium is not installed")
        pytest.skip("chromium is not installed")
    camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", *camera]
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser: "Browser") -> "Iterator[Page]":
    page = browser.new_page()
    page.set_default_timeout(60_000)  # a busy machine is slow
    yield page
    page.close()


@pytest.fixture
def problems(page: "Page") -> list[str]:
    """Everything the browser complains of, and every request that leaves the page."""
    found: list[str] = []
    page.on("console", lambda message: found.append(message.text))
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on(
        "request",
        lambda request: (
            None if request.url.startswith(("file:", "data:")) else found.append(request.url)
        ),
    )
    return found
