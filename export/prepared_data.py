"""The prepared data set as files: what `prepare` writes and every later stage reads.

images.npy      uint8 [examples, height, width, channels]
labels.npy      int64 [examples]
manifest.json   `Manifest`
proof/          encoded originals of test images that came from no file of their own
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from serve.command import LockstepError
from serve.image_spec import ImageSpec

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

MAX_PROOF_EXAMPLES = 10_000
"""Test examples that the proof covers at most, and of which encoded files are kept."""


class Rejection(BaseModel):
    """An image that could not be read, and why."""

    name: str
    reason: str


class Duplicate(BaseModel):
    """Examples of different splits with exactly the same pixels."""

    names: list[str]
    splits: list[Split]


class Contradiction(BaseModel):
    """Examples with exactly the same pixels and different labels.

    Attributes:
        labels: the class name of each example, parallel to `names` and `splits`.
    """

    names: list[str]
    labels: list[str]
    splits: list[Split]


def count_reasons(rejected: Iterable[Rejection]) -> dict[str, int]:
    """How many images could not be read for each kind of reason, the commonest first."""
    kinds = Counter(
        "more pixels than allowed"
        if item.reason.startswith(("image of ", "decompression bomb"))
        else re.split(r": |; ", item.reason)[0]
        for item in rejected
    )
    return dict(kinds.most_common())


class ProofFile(BaseModel):
    """The encoded file from which example `index` was read; relative paths are within `data/`."""

    index: int
    path: str
    sha256: str


class Manifest(BaseModel):
    """What is in the prepared data set, and what was left out of it.

    Attributes:
        rejected: images that could not be read.
        ignored: files that are no images.
        ignored_images: images that lie in no class folder.
        notes: how the source was understood, and why the images have their size, in sentences.
        unused_classes: classes that the source declares and no image has.
        duplicates: the same pixels in several splits.
        contradictory: the same pixels under several labels.
        repeated: how many images are the same as another of their class and split.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    class_names: list[str]
    image: dict[str, Any]
    splits: dict[Split, list[int]]
    counts: dict[Split, dict[str, int]]
    mean: list[float]
    std: list[float]
    fingerprint: str
    rejected: list[Rejection]
    ignored: list[str]
    ignored_images: list[str] = []
    notes: list[str] = []
    unused_classes: list[str] = []
    duplicates: list[Duplicate]
    contradictory: list[Contradiction] = []
    repeated: int = 0
    proof_files: list[ProofFile]

    def image_spec(self) -> ImageSpec:
        """How every image of the set was read."""
        return ImageSpec.from_json(self.image)

    def rejected_by_reason(self) -> dict[str, int]:
        """How many images could not be read for each kind of reason."""
        return count_reasons(self.rejected)

    def to_json(self) -> str:
        """JSON with one line for each field, so that it can be read and compared."""
        fields = self.model_dump(mode="json")
        lines = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in fields.items())
        return "{\n" + ",\n".join(lines) + "\n}\n"


@dataclass(frozen=True)
class PreparedData:
    """The prepared arrays, memory-mapped, and their manifest."""

    directory: Path
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    manifest: Manifest

    @classmethod
    def open(cls, directory: Path) -> "PreparedData":
        """Raises: LockstepError if a file is missing or does not fit the others."""
        try:
            manifest = Manifest.model_validate_json((directory / "manifest.json").read_bytes())
            images = np.load(directory / "images.npy", mmap_mode="r", allow_pickle=False)
            labels = np.load(directory / "labels.npy", allow_pickle=False)
        except FileNotFoundError as error:
            raise LockstepError(
                f"{error.filename}: no such file; expected a finished run directory, "
                "so run python -m pipeline.run first"
            ) from None
        except ValidationError as error:  # one of perhaps thousands is enough to know
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise LockstepError(
                f"{directory}: damaged manifest.json, or one of another release: {place}: "
                f"{first['msg']}; delete the folder to prepare again"
            ) from None
        except (ValueError, EOFError) as error:
            raise LockstepError(
                f"{directory}: damaged data set: {error}; delete the folder to prepare again"
            ) from None
        shape = (len(labels), *manifest.image_spec().shape)
        if images.dtype != np.uint8 or images.shape != shape:
            raise LockstepError(
                f"{directory}: expected uint8 images of shape {list(shape)}, "
                f"got {images.dtype} of shape {list(images.shape)}; prepare again"
            )
        return cls(directory, images, labels, manifest)

    def indices(self, split: Split) -> NDArray[np.int64]:
        """Positions of the split's examples."""
        return np.asarray(self.manifest.splits[split], np.int64)

    def proof_path(self, file: ProofFile) -> Path:
        """Where the encoded file of a test example lies."""
        return self.directory / file.path


def evenly_spaced(indices: NDArray[np.int64], maximum: int) -> NDArray[np.int64]:
    """At most `maximum` of `indices`, spread over all of them, in order."""
    if len(indices) <= maximum:
        return indices
    return indices[np.linspace(0, len(indices) - 1, maximum).round().astype(np.int64)]
