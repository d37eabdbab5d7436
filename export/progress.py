"""Progress of a command: bars on a terminal, lines elsewhere; nothing long goes on in silence."""

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

EVERY = 10.0
"""Seconds between two lines where there is no terminal."""


def step(text: str) -> None:
    """Say what begins now, in a line of its own on standard error."""
    print(text, file=sys.stderr, flush=True)


def counted(items: Sequence[Item], text: str) -> Iterator[Item]:
    """The items, while a bar or a line every few seconds says how many are done."""
    if sys.stderr.isatty():
        yield from tqdm(items, desc=text, leave=False)
        return
    step(text)
    said = time.monotonic()
    for done, item in enumerate(items):
        if time.monotonic() - said > EVERY:
            step(f"{text}: {done:,} of {len(items):,}")
            said = time.monotonic()
        yield item
