"""Create the virtual environments of the servers compared with, one each.

python -m benchmarks.serving.environments --folder FOLDER
"""

import argparse
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
SERVERS = ("mlserver", "litserve", "bentoml", "kserve")


def python_of(folder: Path, server: str) -> Path:
    """The interpreter of a server's environment."""
    return folder / f"env-{server}" / "bin" / "python"


def create(folder: Path, server: str) -> None:
    """Create one environment, if it is not there.

    Raises:
        subprocess.CalledProcessError: pip could not install it.
    """
    python = python_of(folder, server)
    if not python.exists():
        venv.create(folder / f"env-{server}", with_pip=True)
    requirements = HERE / "requirements" / f"{server}.txt"
    subprocess.run(
        [str(python), "-m", "pip", "install", "-qq", "-r", str(requirements)], check=True
    )


def version_of(folder: Path, server: str) -> str:
    """What is installed there, for the output."""
    code = f"import importlib.metadata as m; print(m.version({server!r}))"
    python = str(python_of(folder, server))
    return subprocess.run(
        [python, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, required=True, help="where they go")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for server in SERVERS:
        create(options.folder, server)
        print(server, version_of(options.folder, server))
    return 0


if __name__ == "__main__":
    sys.exit(main())
