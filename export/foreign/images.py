"""The images that a model from elsewhere is proven and measured on."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.foreign.label_names import Matches, match_labels
from export.prepared_data import evenly_spaced
from export.progress import counted
from serve.command import LockstepError
from serve.image_files import find_image_files
from serve.image_spec import ImageSpec
from serve.images import ImageError, read_image

SHOWN = 10
UNKNOWN = -1


@dataclass(frozen=True)
class ReadImages:
    """The images that were given, read as the bundle will read them.

    Attributes:
        pixels: uint8 `[images, height, width, channels]`.
        paths: their files.
        numbers: int64 `[images]`, the label of the folder that each lies in; -1 where no folder
            above it is named after a label.
        matches: which folder was taken for which label.
        strangers: images without a label, by the folder that they lie in.
        above: images with a label, by what lies above the folder that names it: `train`, `test`.
        unreadable: files that are no readable images, with reasons.
    """

    pixels: NDArray[np.uint8]
    paths: list[Path]
    numbers: NDArray[np.int64]
    matches: Matches
    strangers: Counter[str]
    above: Counter[str]
    unreadable: list[tuple[Path, str]]

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """The label of every image; None unless all are known."""
        return self.numbers if bool((self.numbers != UNKNOWN).all()) else None

    @property
    def labelled(self) -> NDArray[np.int64]:
        """Positions of the images whose label is known."""
        return np.flatnonzero(self.numbers != UNKNOWN)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all pixels, in order."""
        return hashlib.sha256(np.ascontiguousarray(self.pixels).data).hexdigest()

    def told(self, class_names: Sequence[str]) -> list[str]:
        """What was matched how, and what was not, in lines for the terminal."""
        lines = []
        otherwise = self.matches.written_otherwise
        if otherwise:
            named = [f"{folder!r} is {label!r}" for folder, label in otherwise.items()]
            lines.append(f"folders taken for labels although written otherwise: {_listed(named)}")
        if set(self.above) - {"."}:
            named = [f"{folder!r} ({count})" for folder, count in sorted(self.above.items())]
            lines.append(
                f"looked through the folders above the labels': {_listed(named)}; images that the "
                "model was trained on say little of others"
            )
        if self.strangers and len(self.labelled):
            named = [f"{folder!r} ({count})" for folder, count in sorted(self.strangers.items())]
            lines.append(f"folders that match no label, not measured on: {_listed(named)}")
        absent = set(range(len(class_names))) - set(self.numbers.tolist())
        if absent and len(self.labelled):
            named = [repr(class_names[number]) for number in sorted(absent)]
            lines.append(f"labels without an image: {_listed(named)}")
        return lines

    def why_not_measured(self, class_names: Sequence[str]) -> str:
        """Why there is no accuracy, for images of which none has a known label."""
        folders = [f"{folder!r}" for folder in sorted(self.strangers) if folder != "."]
        labels = _listed([repr(name) for name in class_names])
        if not folders:
            return f"the images lie in no folders named after the labels ({labels})"
        return f"no folder is named after a label: folders {_listed(folders)}; labels {labels}"


def read_images(
    folder: Path, spec: ImageSpec, class_names: Sequence[str], max_examples: int
) -> ReadImages:
    """Read up to `max_examples` images of a folder, searched at any depth and evenly spaced.

    Raises:
        LockstepError: it holds none that can be read.
    """
    files = image_files(folder)
    chosen = [files[number] for number in evenly_spaced(np.arange(len(files)), max_examples)]
    pixels = np.empty((len(chosen), *spec.shape), np.uint8)
    paths: list[Path] = []
    unreadable: list[tuple[Path, str]] = []
    for path in counted(chosen, f"read {len(chosen):,} images"):
        try:
            pixels[len(paths)] = read_image(path, spec)
            paths.append(path)
        except ImageError as error:
            unreadable.append((path, str(error)))
    if not paths:
        raise LockstepError(
            f"{folder}: expected images to prove the model on, got {len(files)} image files of "
            f"which none can be read; first: {unreadable[0][0]}: {unreadable[0][1]}"
        )
    folders = [path.relative_to(folder).parts[:-1] for path in paths]
    matches = match_labels((name for names in folders for name in names), class_names)
    found = [_place(names, matches) for names in folders]
    return ReadImages(
        pixels=pixels[: len(paths)],
        paths=paths,
        numbers=np.asarray(
            [UNKNOWN if place is None else matches.numbers[names[place]]
             for names, place in zip(folders, found, strict=True)],
            np.int64,
        ),
        matches=matches,
        strangers=Counter(
            _joined(names)
            for names, place in zip(folders, found, strict=True)
            if place is None
        ),
        above=Counter(
            _joined(names[:place])
            for names, place in zip(folders, found, strict=True)
            if place is not None
        ),
        unreadable=unreadable,
    )  # fmt: skip


def _place(folders: Sequence[str], matches: Matches) -> int | None:
    """Which of the folders above an image names its label: the uppermost that is one."""
    return next((place for place, name in enumerate(folders) if name in matches.numbers), None)


def _joined(folders: Sequence[str]) -> str:
    return "/".join(folders) or "."


def image_files(folder: Path) -> list[Path]:
    """The image files of a folder.

    Raises:
        LockstepError: no such folder, or none in it.
    """
    if not folder.is_dir():
        raise LockstepError(f"{folder}: no such folder; expected one with images to prove it on")
    files, _ = find_image_files(folder)
    if not files:
        raise LockstepError(f"{folder}: expected images to prove the model on, got no image file")
    return files


def _listed(items: Sequence[str]) -> str:
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more
