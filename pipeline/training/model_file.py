"""The file of an earlier model; free of TensorFlow, since a command asks before it is imported."""

import hashlib
from pathlib import Path

from export.run_directory import RunDirectory


def model_file(origin: str) -> Path:
    """Where the model is that `model.init_from` names: of a run directory, or a .keras file."""
    path = Path(origin)
    return RunDirectory(path).model if path.is_dir() else path


def digest(file: Path) -> str:
    """SHA-256 of a file, which another may have replaced since."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
