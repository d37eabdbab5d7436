"""The names of the tests: pytest-xdist refuses to run them where two processes see other ones."""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def collect(folder: Path, hash_seed: int) -> "subprocess.Popen[str]":
    """Begin to list every test, slow ones included, in a process with its own temporary folder."""
    folder.mkdir()
    environment = {"PYTHONHASHSEED": str(hash_seed), "TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
    options = ["--collect-only", "-q", "-m", "", "-p", "no:cacheprovider"]
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", *options],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
    )


def names_from(collection: "subprocess.Popen[str]") -> list[str]:
    output, _ = collection.communicate()
    assert collection.returncode == 0, output
    return [line for line in output.splitlines() if "::" in line]


def test_names_depend_on_neither_time_nor_chance_nor_addresses_nor_sets(tmp_path: Path) -> None:
    first = collect(tmp_path / "one", hash_seed=1)
    time.sleep(1.1)  # headers of gzip files hold whole seconds
    second = collect(tmp_path / "another", hash_seed=2)
    names, again = names_from(first), names_from(second)
    assert len(names) > 5000
    assert len(set(names)) == len(names)
    assert names == again
