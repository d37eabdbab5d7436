"""Names of folders that hold a split, or that hold neither a split nor a class."""

import re
import unicodedata
from collections.abc import Iterable

from export.prepared_data import Split

_STEMS = {
    "train": "train|training|trainval|trn",
    "validation": "val|valid|validation|validate|validating|dev|devel|development",
    "test": "test|testing|tst|holdout|heldout",
    "evaluation": "eval|evaluation|evaluate|evaluating",
}
"""By split the words for it. Evaluation is the test, unless another folder is that."""

_FILLERS = (
    "set|sets|data|dataset|datasets|images|image|imgs|img|photos|photo|pictures|pics|"
    "split|splits|folder|samples|sample|part|full|final|new"
)
_SPLIT = {
    split: re.compile(rf"(?:{_FILLERS}|\d+)*?(?:{stems})(?:{_FILLERS}|\d+)*")
    for split, stems in _STEMS.items()
}
_STEM = {split: re.compile(stems) for split, stems in _STEMS.items()}

_BESIDE = frozenset(
    (
        *("doc", "docs", "documentation", "readme", "assets", "screenshot", "screenshots"),
        *("figure", "figures", "figs", "plot", "plots", "example", "examples", "sample"),
        *("samples", "demo", "demos", "code", "src", "script", "scripts", "notebook"),
        *("notebooks", "model", "models", "weights", "checkpoints", "result", "results"),
        *("output", "outputs", "logs", "runs", "annotation", "annotations", "labels", "meta"),
        *("metadata", "misc", "tmp", "temp", "thumbs", "thumbnails", "preview", "previews"),
        *("license", "licenses", "media", "web", "report", "reports", "paper", "papers"),
        *("unlabeled", "unlabelled", "pred", "predict", "prediction", "predictions"),
        *("submission", "submissions", "backup", "old", "trash"),
    )
)
_WRAPPERS = frozenset(
    (
        *("data", "dataset", "datasets", "images", "image", "imgs", "img", "photos", "pictures"),
        *("pics", "archive", "raw", "all", "input", "classes", "database", "collection", "main"),
        *("master", "split", "splits", "splitted", "original", "processed", "resized", "export"),
    )
)


def splits_by_name(names: Iterable[str]) -> dict[str, Split]:
    """Those of the folders beside each other that are named like splits, and which.

    A word before or after that two of them share is no part of the name: `seg_train`, `seg_test`.
    """
    names = list(names)
    found = {name: split for name in names if (split := _split_of(name))}
    shared = [part for name in names if name not in found and (part := _part_of(name))]
    for name in names:
        part = _part_of(name)
        kinds = {split for split, rest in shared if part and rest == part[1]}
        if part and name not in found and len(kinds) > 1:
            found[name] = part[0]
    has_test = "test" in found.values()
    evaluation: Split = "validation" if has_test else "test"
    return {
        name: evaluation if split == "evaluation" else split  # type: ignore[misc]
        for name, split in found.items()
    }


def lies_beside(name: str) -> bool:
    """Whether a folder of this name, next to the data, is known not to be a part of them."""
    return any(word in _BESIDE for word in _words(name))


def is_wrapper(name: str) -> bool:
    """Whether a folder of this name is known to have a whole data set in it."""
    return any(word in _WRAPPERS or word.endswith(("dataset", "database")) for word in _words(name))


def _split_of(name: str) -> str | None:
    joined = "".join(_words(name))
    return next((split for split, known in _SPLIT.items() if known.fullmatch(joined)), None)


def _part_of(name: str) -> tuple[str, tuple[str, ...]] | None:
    """The split that one word of the name says, and the other words."""
    words = _words(name)
    for place, word in enumerate(words):
        for split, known in _STEM.items():
            if known.fullmatch(word):
                return split, (*words[:place], *words[place + 1 :])
    return None


def _words(name: str) -> tuple[str, ...]:
    """The words of a name in small letters, however they are set apart."""
    name = unicodedata.normalize("NFC", name)
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)  # TrainingSet
    return tuple(re.findall(r"[^\W\d_]+|\d+", name.casefold()))
