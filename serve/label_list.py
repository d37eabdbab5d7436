"""Several label names in one field of a table: `cat|dog`.

Names are separated by `|`. A `|` or a backslash within a name has a backslash before it, so that
every list can be read back: `a|b` and `c` are `a\\|b|c`.
"""

import re
from collections.abc import Iterable

SEPARATOR = "|"


def join_labels(names: Iterable[str]) -> str:
    """Names as one text; no names are an empty text."""
    return SEPARATOR.join(re.sub(r"([\\|])", r"\\\1", name) for name in names)


def split_labels(text: str) -> list[str]:
    """The names in a text that `join_labels` gave; a backslash before another letter is itself."""
    if not text:
        return []
    names = [""]
    for part in re.findall(r"\\[\\|]|.", text, re.DOTALL):
        if part == SEPARATOR:
            names.append("")
        else:
            names[-1] += part[-1]
    return names
