"""The oldest packages that `pyproject.toml` allows a server give the answers of the newest.

The versions are read from `pyproject.toml`, so that what it claims is what is tested. Each
installation is a virtual environment of its own, made with pip.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from serve.images import encode_png

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PICTURES = Path(__file__).with_name("images")
EXAMPLES = 200
NEED_A_PACKAGE = (".heic", ".heif", ".hif")
"""Kinds of pictures that are read with the extra `heic` alone."""

INSTALLATIONS = {
    "oldest onnxruntime": ("onnxruntime",),
    "all at their oldest": ("numpy", "onnxruntime", "pillow", "tqdm"),
}
"""Which packages are as old as can be; the others are the newest."""


def oldest_versions() -> dict[str, str]:
    """The packages that serving needs and the oldest version of each, from `pyproject.toml`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = [re.fullmatch(r"([a-z-]+)>=([0-9.]+)", item) for item in project["dependencies"]]
    assert all(found), project["dependencies"]
    return {match[1]: match[2] for match in found if match}


@pytest.fixture(scope="session", params=INSTALLATIONS.values(), ids=INSTALLATIONS)
def old_python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with what serving needs and no more."""
    versions = oldest_versions()
    if "numpy" in request.param and sys.version_info >= (3, 13):
        pytest.skip("the oldest NumPy is older than this Python: pip takes a newer one")
    folder = tmp_path_factory.mktemp("oldest")
    venv.create(folder, with_pip=True, symlinks=True)
    python = folder / "bin" / "python"
    packages = [
        f"{name}=={version}" if name in request.param else f"{name}>={version}"
        for name, version in versions.items()
    ]
    install = [python, "-m", "pip", "install", "--quiet", *packages]
    done = subprocess.run(install, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in request.param:
        code = f"from importlib.metadata import version; print(version({name!r}))"
        installed = run(python, "-c", code).strip()
        assert re.fullmatch(rf"{re.escape(versions[name])}(\.0)*", installed), installed
    return python


def run(python: Path | str, *arguments: Path | str) -> str:
    """What a command prints; a warning is an error."""
    done = subprocess.run(
        [python, "-W", "error", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def answers(
    python: Path | str, bundle: Path, folder: Path
) -> tuple[list[str], NDArray[np.float64]]:
    """The files that the batch command labels, and the probabilities it gives them."""
    options = ("--format", "jsonl", "--probabilities", "--quiet")
    printed = run(python, "-m", "serve.batch", bundle, folder, *options)
    rows = [json.loads(line) for line in printed.splitlines()]
    rows = [row for row in rows if Path(row["path"]).suffix not in NEED_A_PACKAGE]
    assert all(row["error"] is None for row in rows)
    return (
        [row["path"] for row in rows],
        np.array([list(row["probabilities"].values()) for row in rows]),
    )


@pytest.fixture(scope="module")
def digits(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of the size that the network takes: their pixels are the same in any version."""
    folder = tmp_path_factory.mktemp("digits")
    for number, pixels in enumerate(np.load(trained_run / "data" / "images.npy")[:EXAMPLES]):
        (folder / f"{number:03}.png").write_bytes(encode_png(pixels))
    return folder


@pytest.fixture(scope="module", params=["model.onnx", "model.int8.onnx"])
def bundle(request: pytest.FixtureRequest, trained_run: Path) -> Path:
    path = trained_run / request.param
    if not path.exists():
        pytest.skip("this run has no such file")
    return path


def test_the_answers_are_those_of_this_installation(
    old_python: Path, bundle: Path, digits: Path
) -> None:
    paths, old = answers(old_python, bundle, digits)
    expected_paths, new = answers(sys.executable, bundle, digits)
    assert paths == expected_paths and len(paths) == EXAMPLES
    np.testing.assert_array_equal(old.argmax(axis=1), new.argmax(axis=1))
    if bundle.name == "model.onnx":
        np.testing.assert_allclose(old, new, rtol=0, atol=1e-5)


def test_every_kind_of_picture_is_read(old_python: Path, trained_run: Path) -> None:
    bundle = trained_run / "model.onnx"
    paths, old = answers(old_python, bundle, PICTURES)
    expected_paths, new = answers(sys.executable, bundle, PICTURES)
    assert paths == expected_paths and len(paths) > 60
    print(np.abs(old - new).max(axis=1), paths)
    np.testing.assert_array_equal(old.argmax(axis=1), new.argmax(axis=1))


def test_inspect_says_the_same(old_python: Path, bundle: Path) -> None:
    for options in ((), ("--json",)):
        old, new = (
            run(python, "-m", "serve.inspect", bundle, *options)
            for python in (old_python, sys.executable)
        )
        assert old == new != ""
