"""The stage `prepare`: read every image once and store uint8 arrays, splits and a manifest."""

import csv
import hashlib
import json
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from export.prepared_data import (
    MAX_PROOF_EXAMPLES,
    Duplicate,
    Manifest,
    ProofFile,
    Rejection,
    Split,
    evenly_spaced,
)
from export.run_directory import RunDirectory
from pipeline.config import Config
from pipeline.data.array_writer import ArrayWriter
from pipeline.data.sources import Example, Source, SourceError, open_source
from pipeline.data.splits import assign_splits
from serve.atomic import atomic_path
from serve.image_spec import ImageSpec
from serve.images import ImageError, encode_png, fit_pixels, read_image

DEFAULT_SIZE = (96, 96)
CHUNK_BYTES = 16_000_000
"""About how many bytes of pixels are held in memory at a time."""


def prepare(config: Config, run: RunDirectory) -> str:
    """Read the source that `config.data` names into `run.data`; returns a one-line summary.

    Raises:
        SourceError: no such source, or more unreadable images than allowed; those are then listed
            in `run.rejected`.
        SplitError: a class has too few images.
    """
    source = open_source(config.data)
    spec = config.prepare.image_spec(source.image_size or DEFAULT_SIZE, source.channels)
    run.rejected.unlink(missing_ok=True)
    with atomic_path(run.data) as directory:
        directory.mkdir()
        read = _read_all(source, spec, directory / "images.npy")
        _check_rejections(config, run, read)
        labels = np.asarray(read.labels, np.int64)
        np.save(directory / "labels.npy", labels)
        splits = assign_splits(
            labels,
            read.given_splits,
            source.class_names,
            validation_share=config.prepare.validation_share,
            test_share=config.prepare.test_share,
            seed=config.seed,
        )
        images = np.load(directory / "images.npy", mmap_mode="r")
        mean, std = channel_statistics(images, splits["train"])
        manifest = Manifest(
            source=config.data,
            class_names=list(source.class_names),
            image=spec.to_json(),
            splits={name: indices.tolist() for name, indices in splits.items()},
            counts={
                name: _count_classes(labels[indices], source.class_names)
                for name, indices in splits.items()
            },
            mean=mean,
            std=std,
            fingerprint=_fingerprint(spec, read.digests, labels, source.class_names, splits),
            rejected=read.rejected,
            ignored=list(source.ignored),
            duplicates=find_duplicates(read.digests, read.names, splits),
            proof_files=_keep_proof_files(source, read, splits["test"], directory),
        )
        (directory / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    return _summary(manifest)


@dataclass
class _Read:
    """What was learnt while reading; lists are parallel to the rows of images.npy."""

    positions: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    given_splits: list[Split | None] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)


def _read_all(source: Source, spec: ImageSpec, path: Path) -> _Read:
    """Decode all examples in parallel and write them, in order, to one array file."""
    read = _Read()

    def decode(example: Example) -> NDArray[np.uint8] | ImageError:
        try:
            if isinstance(example.image, np.ndarray):
                return fit_pixels(example.image, spec)
            return read_image(example.image, spec)
        except ImageError as error:
            return error

    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        ArrayWriter(path, spec.shape) as writer,
        tqdm(total=source.count, desc="prepare", unit=" images", disable=None) as progress,
    ):
        examples = enumerate(source.examples())
        while chunk := list(islice(examples, _chunk_size(spec.shape))):
            decoded = pool.map(decode, [example for _, example in chunk])
            for (position, example), pixels in zip(chunk, decoded, strict=True):
                if isinstance(pixels, ImageError):
                    read.rejected.append(Rejection(name=example.name, reason=str(pixels)))
                    continue
                writer.append(pixels)
                read.positions.append(position)
                read.names.append(example.name)
                read.labels.append(example.label)
                read.given_splits.append(example.split)
                read.digests.append(hashlib.sha256(pixels.tobytes()).digest())
            progress.update(len(chunk))
    return read


def _chunk_size(image_shape: tuple[int, ...]) -> int:
    """Images of one chunk: enough to keep every core busy, few enough for a lively progress bar."""
    return max(os.cpu_count() or 1, min(1024, CHUNK_BYTES // math.prod(image_shape)))


def _check_rejections(config: Config, run: RunDirectory, read: _Read) -> None:
    rejected = len(read.rejected)
    total = rejected + len(read.names)
    if total and rejected <= config.prepare.max_rejected_share * total:
        return
    with (
        atomic_path(run.rejected) as temporary,
        open(temporary, "w", encoding="utf-8", newline="") as stream,
    ):
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(["name", "reason"])
        rows.writerows((item.name, item.reason) for item in read.rejected)
    first = f"; first: {read.rejected[0].name}: {read.rejected[0].reason}" if rejected else ""
    raise SourceError(
        f"{config.data}: {rejected} of {total} images cannot be read, expected at most "
        f"{config.prepare.max_rejected_share:.1%}{first}; all are listed in {run.rejected}: mend "
        "or remove them, or raise --prepare.max_rejected_share"
    )


def channel_statistics(
    images: NDArray[np.uint8], indices: NDArray[np.int64]
) -> tuple[list[float], list[float]]:
    """Mean and deviation of each channel over the chosen images, in units of pixel / 255.

    The deviation is at least one grey step, so that an empty channel does not divide by zero.
    """
    channels = images.shape[-1]
    total = np.zeros(channels)
    squares = np.zeros(channels)
    size = _chunk_size(images.shape[1:])
    for start in range(0, len(indices), size):
        chunk = images[indices[start : start + size]].reshape(-1, channels) / 255
        total += chunk.sum(axis=0)
        squares += np.square(chunk).sum(axis=0)
    count = len(indices) * images.shape[1] * images.shape[2]
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0)).clip(min=1 / 255)
    return mean.tolist(), std.tolist()


def find_duplicates(
    digests: Sequence[bytes], names: Sequence[str], splits: dict[Split, NDArray[np.int64]]
) -> list[Duplicate]:
    """Groups of examples with the same pixels that lie in more than one split."""
    groups: dict[bytes, list[tuple[str, Split]]] = defaultdict(list)
    for split, indices in splits.items():
        for index in indices:
            groups[digests[index]].append((names[index], split))
    return [
        Duplicate(names=[name for name, _ in group], splits=[split for _, split in group])
        for group in groups.values()
        if len({split for _, split in group}) > 1
    ]


def _count_classes(labels: NDArray[np.int64], class_names: Sequence[str]) -> dict[str, int]:
    counts = np.bincount(labels, minlength=len(class_names)).tolist()
    return dict(zip(class_names, counts, strict=True))


def _fingerprint(
    spec: ImageSpec,
    digests: Iterable[bytes],
    labels: NDArray[np.int64],
    class_names: Sequence[str],
    splits: dict[Split, NDArray[np.int64]],
) -> str:
    digest = hashlib.sha256(json.dumps([spec.to_json(), list(class_names)]).encode())
    for part in digests:
        digest.update(part)
    digest.update(labels.tobytes())
    for indices in splits.values():
        digest.update(indices.astype(np.int64).tobytes())
    return digest.hexdigest()


def _keep_proof_files(
    source: Source, read: _Read, test: NDArray[np.int64], directory: Path
) -> list[ProofFile]:
    """Encoded originals of the test images: the source's own files, or copies under `proof/`."""
    wanted = {
        read.positions[index]: int(index) for index in evenly_spaced(test, MAX_PROOF_EXAMPLES)
    }
    files = []
    for position, example in _pick(source.examples(), wanted):
        index = wanted[position]
        if isinstance(example.image, Path):
            path, content = example.image, example.image.read_bytes()
        else:
            if isinstance(example.image, bytes):
                content, suffix = example.image, ".image"
            else:
                content, suffix = encode_png(example.image), ".png"
            path = directory / "proof" / f"{index:06}{suffix}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
            path = path.relative_to(directory)
        digest = hashlib.sha256(content).hexdigest()
        files.append(ProofFile(index=index, path=str(path), sha256=digest))
    return files


def _pick(examples: Iterator[Example], wanted: dict[int, int]) -> Iterator[tuple[int, Example]]:
    for position, example in enumerate(examples):
        if position in wanted:
            yield position, example


def _summary(manifest: Manifest) -> str:
    sizes = ", ".join(f"{len(indices):,} {name}" for name, indices in manifest.splits.items())
    parts = [f"{sizes}; {len(manifest.class_names)} classes"]
    spec = manifest.image_spec()
    parts.append(f"{spec.height}x{spec.width}x{spec.channels}")
    if manifest.rejected:
        parts.append(f"{len(manifest.rejected)} unreadable (see data/manifest.json)")
    if manifest.ignored:
        parts.append(f"{len(manifest.ignored)} other files passed over")
    if manifest.duplicates:
        parts.append(f"{len(manifest.duplicates)} duplicates across splits (see the report)")
    return "; ".join(parts)
