"""Which models and versions lie in the places that were named, and which of them are wanted.

A model is a file, or a folder of version folders: `NAME/VERSION/model.onnx`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from serve.command import LockstepError
from serve.http.limits import count

FILE = "model.onnx"

Signature = tuple[int, int, int]
"""What changes when a file does: modification time, size, inode."""

Catalogue = Mapping[str, Mapping[int, Path]]
"""The file of each version of each model."""


class RepositoryError(LockstepError):
    """A model that cannot be found, or cannot be served."""


@dataclass(frozen=True)
class Policy:
    """Which of the versions there are get served.

    Attributes:
        newest: so many, counted from the highest number; None is all.
        only: these and no others, if not empty.
    """

    newest: int | None = 1
    only: tuple[int, ...] = ()

    def candidates(self, versions: Iterable[int]) -> list[int]:
        """In the order in which they are tried: newest first."""
        chosen = (version for version in versions if not self.only or version in self.only)
        return sorted(chosen, reverse=True)


def read_policy(text: str) -> Policy:
    """`latest`, `latest:2`, `all`, or version numbers with commas between."""
    if text == "all":
        return Policy(newest=None)
    if text == "latest":
        return Policy()
    name, _, number = text.partition(":")
    if name == "latest":
        return Policy(newest=count(number))
    return Policy(newest=None, only=tuple(count(part) for part in text.split(",")))


read_policy.__name__ = "latest, latest:N, all, or numbers like 1,3"


def catalogue(sources: Sequence[str]) -> dict[str, dict[int, Path]]:
    """What the places on the command line hold at this moment.

    Args:
        sources: `PATH` or `NAME=PATH`; a file, a run directory, or a folder of
            NAME/VERSION/model.onnx.

    Raises:
        RepositoryError: a place holds no model, or two have the same name.
    """
    found: dict[str, dict[int, Path]] = {}
    for source in sources:
        name, path = split_source(source)
        if path.is_dir() and not (path / FILE).is_file():
            models = _folder(path)
            if name:
                raise RepositoryError(
                    f"{source}: a folder of models has the names of its own folders; leave out "
                    f"{name}="
                )
            if not models:
                raise RepositoryError(f"{path}: expected NAME/VERSION/{FILE} in this folder")
        else:
            file = path / FILE if path.is_dir() else path
            if not file.exists():
                raise RepositoryError(f"{file}: no such file; expected an ONNX bundle or a folder")
            models = {name or model_name(file): {1: file}}
        for twice in models.keys() & found.keys():
            raise RepositoryError(f"two models are called {twice}; give one as NAME={path}")
        found.update(models)
    return found


def split_source(source: str) -> tuple[str, Path]:
    """The name that was given, or "", and the path."""
    name, equals, path = source.partition("=")
    if equals and name and not Path(source).exists() and "/" not in name:
        return name, Path(path)
    return "", Path(source)


def model_name(file: Path) -> str:
    """The name of a model in a file: that of the run, where the file has none of its own."""
    folder = file.absolute().parent.name
    if file.stem == "model" or file.stem.startswith("model."):
        return folder + file.stem.removeprefix("model")
    return file.stem


def _folder(path: Path) -> dict[str, dict[int, Path]]:
    found: dict[str, dict[int, Path]] = {}
    for file in sorted(path.glob(f"*/*/{FILE}")):
        number = file.parent.name
        if number.isascii() and number.isdigit() and int(number) > 0:
            found.setdefault(file.parent.parent.name, {})[int(number)] = file
    return found


def signature(path: Path) -> Signature | None:
    """None if there is no such file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
