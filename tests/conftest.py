"""Fixtures that several tests share."""

import os
import shutil
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short but complete run on the digits; treat it as read-only."""
    from pipeline.run import main

    run_dir = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["--run-dir", str(run_dir), "--train.epochs", "3"]) == 0
    return run_dir


@pytest.fixture
def run_copy(trained_run: Path, tmp_path: Path) -> Path:
    """A copy of the trained run, to change and to break."""
    return Path(shutil.copytree(trained_run, tmp_path / "run"))
