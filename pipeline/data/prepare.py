"""The stage `prepare`: read every image once and store uint8 arrays, splits and a manifest."""

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.prepared_data import (
    MAX_PROOF_EXAMPLES,
    Manifest,
    ProofFile,
    Split,
    count_reasons,
    evenly_spaced,
)
from export.run_directory import RunDirectory
from pipeline.config import Config
from pipeline.data.default_shape import image_spec
from pipeline.data.findings import (
    count_repeats,
    find_contradictions,
    find_duplicates,
    sentences,
)
from pipeline.data.read_source import Read, chunk_size, read_source
from pipeline.data.sources import Example, Source, SourceError, open_source
from pipeline.data.splits import assign_splits
from serve.atomic import atomic_path
from serve.command import printable
from serve.image_spec import ImageSpec
from serve.images import encode_png


def prepare(config: Config, run: RunDirectory) -> str:
    """Read the source that `config.data` names into `run.data`; returns a one-line summary.

    Says on the terminal how the source was understood, and what was left out of it.

    Raises:
        SourceError: no such source, a class without a readable image, or more unreadable images
            than allowed; unreadable images are then listed in `run.rejected`.
        SplitError: a class has too few images.
    """
    source = open_source(config.data)
    spec, reason = image_spec(source, config.prepare)
    notes = [*source.notes, reason]
    _say(notes)
    run.rejected.unlink(missing_ok=True)
    with atomic_path(run.data) as directory:
        directory.mkdir()
        read = read_source(source, spec, directory / "images.npy")
        _check_classes(config, run, source, read)
        _check_rejections(config, run, read)
        class_names, labels = _used_classes(config, source, read)
        np.save(directory / "labels.npy", labels)
        splits = assign_splits(
            labels,
            read.given_splits,
            class_names,
            validation_share=config.prepare.validation_share,
            test_share=config.prepare.test_share,
            seed=config.seed,
        )
        images = np.load(directory / "images.npy", mmap_mode="r")
        mean, std = channel_statistics(images, splits["train"])
        named = [class_names[label] for label in labels]
        manifest = Manifest(
            source=config.data,
            class_names=class_names,
            image=spec.to_json(),
            splits={name: indices.tolist() for name, indices in splits.items()},
            counts={
                name: _count_classes(labels[indices], class_names)
                for name, indices in splits.items()
            },
            mean=mean,
            std=std,
            fingerprint=_fingerprint(spec, read.digests, labels, class_names, splits),
            rejected=read.rejected,
            ignored=list(source.ignored),
            ignored_images=list(source.outside),
            notes=notes,
            unused_classes=[name for name in source.class_names if name not in class_names],
            duplicates=find_duplicates(read.digests, read.names, splits),
            contradictory=find_contradictions(read.digests, read.names, named, splits),
            repeated=count_repeats(read.digests, named, splits),
            proof_files=_keep_proof_files(source, read, splits["test"], directory),
        )
        (directory / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    _say(sentences(manifest))
    return _summary(manifest)


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        print(f"           {printable(line)}", flush=True)


def _check_classes(config: Config, run: RunDirectory, source: Source, read: Read) -> None:
    """Raises: SourceError: a class has images, and none of them can be read."""
    lost = sorted(set(read.rejected_labels) - set(read.labels))
    if not lost:
        return
    _list_rejected(run, read)
    names = ", ".join(f"{source.class_names[label]!r}" for label in lost)
    count = sum(read.rejected_labels[label] for label in lost)
    by_reason = ", ".join(
        f"{number} × {reason}" for reason, number in count_reasons(read.rejected).items()
    )
    first = read.rejected[0]
    kind, whose = ("class", "its") if len(lost) == 1 else ("classes", "their")
    raise SourceError(
        f"{config.data}: {kind} {names}: none of {whose} {count} images can be read; unreadable in "
        f"all: {by_reason}; first: {first.name}: {first.reason}; each is listed in {run.rejected}: "
        "mend them, save them as JPEG or PNG, or remove the folder"
    )


def _used_classes(
    config: Config, source: Source, read: Read
) -> tuple[list[str], NDArray[np.int64]]:
    """The classes that some image has, and the labels numbered by them: int64 `[examples]`."""
    used, labels = np.unique(np.asarray(read.labels, np.int64), return_inverse=True)
    names = [source.class_names[label] for label in used]
    if len(names) < 2:
        raise SourceError(
            f"{config.data}: expected images of at least 2 classes, got {', '.join(names)} alone"
        )
    return names, labels.astype(np.int64)


def _check_rejections(config: Config, run: RunDirectory, read: Read) -> None:
    rejected = len(read.rejected)
    total = rejected + len(read.names)
    if total and rejected <= config.prepare.max_rejected_share * total:
        return
    _list_rejected(run, read)
    first = f"; first: {read.rejected[0].name}: {read.rejected[0].reason}" if rejected else ""
    raise SourceError(
        f"{config.data}: {rejected} of {total} images cannot be read, expected at most "
        f"{config.prepare.max_rejected_share:.1%}{first}; all are listed in {run.rejected}: mend "
        "or remove them, or raise --prepare.max_rejected_share"
    )


def _list_rejected(run: RunDirectory, read: Read) -> None:
    with (
        atomic_path(run.rejected) as temporary,
        open(temporary, "w", encoding="utf-8", newline="") as stream,
    ):
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(["name", "reason"])
        rows.writerows((item.name, item.reason) for item in read.rejected)


def channel_statistics(
    images: NDArray[np.uint8], indices: NDArray[np.int64]
) -> tuple[list[float], list[float]]:
    """Mean and deviation of each channel over the chosen images, in units of pixel / 255.

    The deviation is at least one grey step, so that an empty channel does not divide by zero.
    """
    channels = images.shape[-1]
    total = np.zeros(channels)
    squares = np.zeros(channels)
    size = chunk_size(images.shape[1:])
    for start in range(0, len(indices), size):
        chunk = images[indices[start : start + size]].reshape(-1, channels) / 255
        total += chunk.sum(axis=0)
        squares += np.square(chunk).sum(axis=0)
    count = len(indices) * images.shape[1] * images.shape[2]
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0)).clip(min=1 / 255)
    return mean.tolist(), std.tolist()


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
    source: Source, read: Read, test: NDArray[np.int64], directory: Path
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
    for count, what in (
        (len(manifest.rejected), "unreadable (see data/manifest.json)"),
        (len(manifest.ignored_images), "image{s} in no class folder passed over"),
        (len(manifest.ignored), "other file{s} passed over"),
        (len(manifest.unused_classes), "class{es} without images left out"),
        (len(manifest.duplicates), "duplicate{s} across splits (see the report)"),
        (len(manifest.contradictory), "picture{s} with more than one label (see the report)"),
    ):
        if count:
            endings = {"s": "", "es": ""} if count == 1 else {"s": "s", "es": "es"}
            parts.append(f"{count:,} {what.format(**endings)}")
    return "; ".join(parts)
