"""The file of an earlier model; free of TensorFlow, since a command asks before it is imported."""

import hashlib
from pathlib import Path

from export.run_directory import RunDirectory
from pipeline.recipe import ConfigError


def model_file(origin: str) -> Path:
    """The model that `model.init_from` names: that of a run directory, or a .keras file.

    Raises:
        ConfigError: there is none.
    """
    path = Path(origin)
    file = RunDirectory(path).model if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(
            "model.init_from: expected a run directory with a trained model, or a .keras file; "
            f"got {origin}"
        )
    return file


def digest(file: Path) -> str:
    """SHA-256 of a file, which another may have replaced since."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
