"""What a person may have meant by an option or a config key that there is not."""

import difflib
from collections.abc import Collection, Sequence

SYNONYMS: dict[str, tuple[str, ...]] = {
    "arch": ("model",),
    "architecture": ("model",),
    "bs": ("batch_size",),
    "clipnorm": ("clip_norm",),
    "clipvalue": ("clip_value",),
    "data_dir": ("data",),
    "dataset": ("data",),
    "decay": ("decay", "weight_decay"),
    "early_stop": ("early_stopping",),
    "epoch_count": ("epochs",),
    "global_clipnorm": ("clip_global_norm",),
    "image_shape": ("image_size",),
    "img_size": ("image_size",),
    "imgsz": ("image_size",),
    "init": ("initializer",),
    "input_shape": ("image_size",),
    "input_size": ("image_size",),
    "lr": ("learning_rate",),
    "lr_schedule": ("schedule",),
    "lr_scheduler": ("schedule",),
    "n_epochs": ("epochs",),
    "network": ("model",),
    "num_epochs": ("epochs",),
    "opt": ("optimizer",),
    "optim": ("optimizer",),
    "out_dir": ("run_dir",),
    "output": ("run_dir",),
    "output_dir": ("run_dir",),
    "patience": ("early_stopping", "patience"),
    "random_seed": ("seed",),
    "random_state": ("seed",),
    "resolution": ("image_size",),
    "scheduler": ("schedule",),
    "size": ("image_size",),
    "val_share": ("validation_share",),
    "validation_split": ("validation_share",),
    "wd": ("weight_decay",),
}
"""Names in use elsewhere, and ours: last parts of keys."""

ALIKE = 0.8
"""Share of equal letters from which a word counts as misspelt."""
MOST = 5
"""More candidates than this say nothing."""


def suggestion(word: str, keys: Sequence[str], usual: Collection[str], *, prefix: str = "") -> str:
    """`; did you mean KEY?`, `; did you mean KEY or KEY?`, or nothing where no key is near.

    Args:
        word: a dotted key that is not among `keys`.
        keys: all that there are; `a.name` chooses among the forms of `a`.
        usual: those that a config has by default; the others belong to forms not chosen.
        prefix: stands before each key, as `--`.

    Example:
        suggestion("lr", ["train.optimizer.learning_rate"], [])
        # "; did you mean train.optimizer.learning_rate?"
    """
    found = [f"{prefix}{key}" for key in candidates(word, keys, usual)]
    if not 0 < len(found) <= MOST:
        return ""
    return f"; did you mean {' or '.join(filter(None, (', '.join(found[:-1]), found[-1])))}?"


def candidates(word: str, keys: Sequence[str], usual: Collection[str]) -> list[str]:
    """Keys that `word` may stand for: by its end first, then by its letters."""
    parts = _plain(word).split(".")
    typo = _same_depth(word, keys)
    if typo:
        return [typo]
    for first in range(len(parts)):
        tails = _spellings(parts[first:])
        ending = [key for key in keys if any(_ends(key, tail) for tail in tails)]
        if ending:
            return _preferred(ending, parts[0], usual)
    all_tails = list(dict.fromkeys(tail for key in keys for tail in _tails(key)))
    for near in difflib.get_close_matches(parts[-1], all_tails, n=1, cutoff=ALIKE):
        return _preferred([key for key in keys if _ends(key, near)], parts[0], usual)
    if having := _of_words(parts[-1], keys):
        return _preferred(having, parts[0], usual)
    return difflib.get_close_matches(word, keys, n=1, cutoff=0.6)


def _same_depth(word: str, keys: Sequence[str]) -> str | None:
    """A key of as many parts, of which each differs in a letter or two or in dashes and capitals.

    The one of the most equal letters, where there are several.
    """
    parts = _plain(word).split(".")
    likeness = {
        key: [
            difflib.SequenceMatcher(None, one, other).ratio()
            for one, other in zip(parts, _plain(key).split("."), strict=True)
        ]
        for key in keys
        if key.count(".") == word.count(".")
    }
    near = [key for key, shares in likeness.items() if min(shares) >= ALIKE]
    return max(near, key=lambda key: sum(likeness[key]), default=None)


def _of_words(leaf: str, keys: Sequence[str]) -> list[str]:
    """Keys with this word in their last part: `flip` is in `horizontal_flip`."""
    return [key for key in keys if leaf in _plain(key).rpartition(".")[2].split("_")]


def _spellings(parts: Sequence[str]) -> list[str]:
    """The end of a key as it is, and with our name for its last part."""
    *sections, leaf = parts
    return [".".join([*sections, name]) for name in (leaf, *SYNONYMS.get(leaf, ()))]


def _ends(key: str, tail: str) -> bool:
    return tail in _tails(key)


def _tails(key: str) -> list[str]:
    """Every end of a key; that of a choice also without its `.name`, as `--optimizer adam`."""
    plain = _plain(key)
    starts = [plain] if not plain.endswith(".name") else [plain, plain.removesuffix(".name")]
    return [
        ".".join(parts[first:])
        for parts in (start.split(".") for start in starts)
        for first in range(len(parts))
    ]


def _preferred(keys: Sequence[str], section: str, usual: Collection[str]) -> list[str]:
    """Of keys with the same end: those that a config has by default, and of the named section."""
    keys = [key for key in keys if key.removesuffix(".name") == key or key[:-5] not in keys]
    in_use = [key for key in keys if key in usual] or list(keys)
    beside = [key for key in keys if _plain(key).partition(".")[0] == section]
    both = [key for key in in_use if key in beside]
    return both or list(dict.fromkeys((*in_use, *beside)))


def _plain(key: str) -> str:
    return key.lower().replace("-", "_")
