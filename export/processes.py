"""Commands of `serve`, as a user starts them: as processes of their own."""

import os
import sys
from pathlib import Path

import serve


def command(module: str, *arguments: str) -> list[str]:
    """`python -m MODULE ARGUMENTS`, with the interpreter that runs this."""
    return [sys.executable, "-m", module, *arguments]


def environment() -> dict[str, str]:
    """The environment in which such a command finds the same `serve` from any folder."""
    packages = str(Path(serve.__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, (packages, os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}
