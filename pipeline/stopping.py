"""SIGTERM and SIGINT: the first asks to stop, the second ends the process at once."""

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(BaseException):
    """A signal asked to stop. No `Exception`, so that nothing takes it for a failure of its own.

    Attributes:
        exit_code: as shells have it, 128 and the number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number

    def say_how_to_continue(self, module: str, arguments: list[str] | None) -> None:
        """Print the command that goes on, and does not begin anew.

        Args:
            arguments: None for those of this process.
        """
        words = sys.argv[1:] if arguments is None else arguments
        again = shlex.join(word for word in words if word != "--fresh")
        print(
            f"{self}: what is finished is kept; to continue: python -m {module} {again}",
            file=sys.stderr,
        )


class StopSignals:
    """What this process was asked by signals.

    Attributes:
        number: of the one that came, or 0.
    """

    def __init__(self) -> None:
        self.number = 0
        self._can_wait = False

    @contextmanager
    def received(self) -> Iterator[None]:
        """Within the block, in the main thread, a signal raises Stopped."""
        before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        try:
            yield
        finally:
            self.number = 0
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within the block it waits; whoever works there calls `check` when it suits."""
        before, self._can_wait = self._can_wait, True
        try:
            yield
        finally:
            self._can_wait = before
        if not before:
            self.check()

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within the block it raises Stopped, even if what is around the block lets it wait."""
        before, self._can_wait = self._can_wait, False
        try:
            self.check()
            yield
        finally:
            self._can_wait = before

    def check(self) -> None:
        """Raises Stopped: a signal came."""
        if self.number:
            raise Stopped(self.number)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.number = number
        if not self._can_wait:
            self.check()


stop_signals = StopSignals()
"""Signals come to the whole process, so there is one of these."""
