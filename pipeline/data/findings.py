"""What is odd about a data set, and what was left out of it: counted, and said in sentences."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from export.prepared_data import Contradiction, Duplicate, Manifest, Split

_MOST_SHOWN = 20
"""Classes that are listed on the terminal."""


def find_duplicates(
    digests: Sequence[bytes], names: Sequence[str], splits: dict[Split, NDArray[np.int64]]
) -> list[Duplicate]:
    """Groups of examples with the same pixels that lie in more than one split."""
    return [
        Duplicate(names=[names[index] for index, _ in group], splits=[split for _, split in group])
        for group in _same_pixels(digests, splits)
        if len({split for _, split in group}) > 1
    ]


def find_contradictions(
    digests: Sequence[bytes],
    names: Sequence[str],
    labels: Sequence[str],
    splits: dict[Split, NDArray[np.int64]],
) -> list[Contradiction]:
    """Groups of examples with the same pixels and more than one label, in one split or in several.

    Args:
        labels: the class name of each example.
    """
    return [
        Contradiction(
            names=[names[index] for index, _ in group],
            labels=[labels[index] for index, _ in group],
            splits=[split for _, split in group],
        )
        for group in _same_pixels(digests, splits)
        if len({labels[index] for index, _ in group}) > 1
    ]


def count_repeats(
    digests: Sequence[bytes], labels: Sequence[str], splits: dict[Split, NDArray[np.int64]]
) -> int:
    """How many examples have the pixels and the label of an earlier one of the same split."""
    counts = Counter(
        (split, labels[index], digests[index])
        for split, indices in splits.items()
        for index in indices
    )
    return sum(counts.values()) - len(counts)


def _same_pixels(
    digests: Sequence[bytes], splits: dict[Split, NDArray[np.int64]]
) -> Iterator[list[tuple[int, Split]]]:
    groups: dict[bytes, list[tuple[int, Split]]] = defaultdict(list)
    for split, indices in splits.items():
        for index in indices:
            groups[digests[index]].append((int(index), split))
    return (group for group in groups.values() if len(group) > 1)


def sentences(manifest: Manifest) -> Iterator[str]:
    """What the terminal says of the prepared set, beside its summary."""
    yield f"classes: {_numbered(manifest.class_names)}"
    if manifest.unused_classes:
        yield (
            f"{len(manifest.unused_classes)} classes without any image left out: "
            f"{_some(manifest.unused_classes)}"
        )
    for reason, count in manifest.rejected_by_reason().items():
        yield f"unreadable: {count} × {reason}"
    if manifest.ignored_images:
        yield f"images in no class folder, passed over: {_by_folder(manifest.ignored_images)}"
    if manifest.ignored:
        yield f"other files, passed over: {_by_folder(manifest.ignored)}"
    if manifest.contradictory:
        first = manifest.contradictory[0]
        pairs = zip(first.names, first.labels, strict=True)
        yield (
            f"contradictory: pictures with more than one label: {len(manifest.contradictory)}; "
            f"first: {', '.join(f'{name} is {label!r}' for name, label in pairs)}"
        )
    if manifest.repeated:
        yield f"repeated: images that equal another of their class and split: {manifest.repeated}"


def _numbered(names: Sequence[str]) -> str:
    more = f", and {len(names) - _MOST_SHOWN} more (data/manifest.json, report)"
    shown = ", ".join(f"{label} {name}" for label, name in enumerate(names[:_MOST_SHOWN]))
    return shown + (more if len(names) > _MOST_SHOWN else "")


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _by_folder(names: Sequence[str]) -> str:
    """The names, or where there are many the folders that they lie in, with how many each has."""
    if len(names) <= 3:
        return ", ".join(names)
    folders = Counter(
        name.rpartition("/")[0] + "/" if "/" in name else "beside the folders" for name in names
    )
    return _some([f"{folder} {count}" for folder, count in folders.most_common()])
