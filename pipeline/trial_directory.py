"""Where a config is tried on its data before there is a run: images prepared once, and pictures.

    runs/try-<recipe>/
      data/, stages.json, .lock    as in a run
      learning_rates.csv, .html    what python -m pipeline.find_lr found
      preview.html                 what python -m pipeline.preview drew

It has no `config.yaml`, so that neither is ever taken for the other.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from export.prepared_data import PreparedData
from export.run_directory import RunDirectory
from export.run_lock import claimed
from pipeline.config import Config
from pipeline.data import sources
from pipeline.recipe import ConfigError
from pipeline.run import PREPARE
from pipeline.stages import StageRunner

TABLE, CURVE, PREVIEW = "learning_rates.csv", "learning_rates.html", "preview.html"
NAMES = {".lock", "data", "rejected.csv", "stages.json", TABLE, CURVE, PREVIEW}


def default_path(name: str) -> Path:
    """For a recipe, or for data, of this name."""
    return Path("runs") / f"try-{name}"


@contextmanager
def entered(path: Path, config: Config) -> Iterator[PreparedData]:
    """Be the only process at work there, with the images of `config`, read if they are not yet.

    Raises:
        LockstepError: no such data, other files are there, or another process is.
    """
    sources.identity(config.data)  # data that are not there claim no directory
    _check_place(path)
    run = RunDirectory(path)
    with claimed(run):
        StageRunner(config, run, (PREPARE,)).run(PREPARE)
        yield PreparedData.open(run.data)


def _check_place(path: Path) -> None:
    """Raises ConfigError: a run is there, or anything else that no such command has left."""
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{path}: expected a directory, and found a file")
    names = [file.name for file in path.iterdir()] if path.is_dir() else []
    foreign = [
        name for name in names if name.removeprefix(".partial-").removeprefix(".old-") not in NAMES
    ]
    if foreign:
        what = "a run" if RunDirectory(path).config.is_file() else f"other files ({min(foreign)})"
        raise ConfigError(
            f"{path}: expected a new directory or one of an earlier trial, and found {what}; "
            "name another with --output"
        )
