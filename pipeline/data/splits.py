"""Which example serves for what: a pure function of labels, given splits and a seed."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from export.prepared_data import SPLITS, Split
from pipeline.data.class_names import look_alike
from serve.command import LockstepError


class SplitError(LockstepError):
    """Too few images to split."""


def assign_splits(
    labels: NDArray[np.int64],
    given: Sequence[Split | None],
    class_names: Sequence[str],
    *,
    validation_share: float,
    test_share: float,
    seed: int,
) -> dict[Split, NDArray[np.int64]]:
    """Keep the source's own splits and draw the missing ones, stratified by class.

    A source that gives splits gives all of its examples one. Without a test split, `test_share` of
    the training examples of every class become one; without a validation split, `validation_share`
    of what remains.

    Args:
        labels: int64 `[examples]`.
        given: the source's split of each example, or None for all.

    Returns:
        For each split the sorted positions of its examples; together they cover all, once.

    Raises:
        SplitError: a class has too few examples to be in every split.
    """
    names = np.array([split or "train" for split in given])
    splits = {split: np.flatnonzero(names == split) for split in SPLITS}
    generator = np.random.default_rng(seed)
    missing: tuple[tuple[Split, float], ...] = (
        ("test", test_share),
        ("validation", validation_share),
    )
    for split, share in missing:
        if len(splits[split]) == 0:
            drawn = _draw(splits["train"], labels, share, generator)
            splits[split] = drawn
            splits["train"] = np.setdiff1d(splits["train"], drawn)
    _check(splits, labels, class_names)
    return splits


def _draw(
    candidates: NDArray[np.int64],
    labels: NDArray[np.int64],
    share: float,
    generator: np.random.Generator,
) -> NDArray[np.int64]:
    """About `share` of each class, at least one where the class has any."""
    drawn = [
        generator.permutation(members)[: max(1, round(share * len(members)))]
        for label in np.unique(labels[candidates])
        for members in [candidates[labels[candidates] == label]]
    ]
    return np.sort(np.concatenate([candidates[:0], *drawn]))


def _check(
    splits: dict[Split, NDArray[np.int64]], labels: NDArray[np.int64], class_names: Sequence[str]
) -> None:
    counts = np.bincount(labels, minlength=len(class_names))
    trained = np.bincount(labels[splits["train"]], minlength=len(class_names))
    for name, count, in_train in zip(class_names, counts, trained, strict=True):
        if in_train == 0:
            alike = next((group for group in look_alike(class_names) if name in group), ())
            hint = f"; or is it one class with {', '.join(map(repr, alike))}?" if alike else ""
            raise SplitError(
                f"class {name!r} has too few images: {count}, and none is left to train on; "
                "expected at least 3 in each class (train, validation, test): "
                f"add images or remove the class{hint}"
            )
