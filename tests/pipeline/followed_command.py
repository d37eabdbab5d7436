"""A command of the pipeline in a process of its own, followed by what it prints."""

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from queue import Empty, SimpleQueue

ROOT = Path(__file__).resolve().parents[2]


class FollowedCommand:
    """`python -m WORDS...` in a folder, in a process group of its own.

    Args:
        environment: added to that of the tests.

    Attributes:
        output: the lines so far, of both streams.
    """

    def __init__(self, *words: str, folder: Path, **environment: str) -> None:
        self.output: list[str] = []
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        self.process = subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout
        with self.process.stdout as stream:
            for line in stream:
                self.output.append(line.rstrip("\n"))
                self._lines.put(line)
        self._lines.put(None)

    def wait_for(self, pattern: str, seconds: float = 240) -> str | None:
        """The next line in which it is found; None if the output ends before."""
        end = time.monotonic() + seconds
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, end - time.monotonic()))
            except Empty:
                raise AssertionError(f"no {pattern!r} in {self.output}") from None
            if line is None:
                self._lines.put(None)  # it is still so for whoever asks next
            if line is None or re.search(pattern, line):
                return line

    def end(self, seconds: float = 500) -> int:
        """Its exit code, once it has ended."""
        self.wait_for("^$ never", seconds)
        return self.process.wait(30)
