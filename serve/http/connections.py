"""All connections of a process: how many there may be, and what is over its time."""

import time
from typing import TYPE_CHECKING

from serve.http.limits import Limits, Memory

if TYPE_CHECKING:
    from serve.http.connection import Connection

REFUSED = 128
"""Connections beyond the limit that may stay for a moment to read why; others are just closed."""


class Connections:
    """All open connections and their limits.

    Args:
        timeout: seconds that any request may take to be answered.

    Attributes:
        draining: answers are the last ones of their connections.
    """

    def __init__(self, limits: Limits, memory: Memory, timeout: float) -> None:
        self.limits = limits
        self.timeout = timeout
        self.memory = memory
        self.draining = False
        self.date = b""
        self._open: set[Connection] = set()
        self._refused: set[Connection] = set()
        self.sweep()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: "Connection") -> bool:
        """False if there are enough already."""
        is_full = len(self._open) >= self.limits.max_connections
        (self._refused if is_full else self._open).add(connection)
        return not is_full

    @property
    def many_refused(self) -> bool:
        return len(self._refused) > REFUSED

    def remove(self, connection: "Connection") -> None:
        self._open.discard(connection)
        self._refused.discard(connection)

    def sweep(self) -> None:
        """Close what is over its time. To be called several times a second."""
        self.date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime()).encode()
        now = time.perf_counter()
        for connection in (*self._open, *self._refused):
            connection.check(now)

    @property
    def busy(self) -> int:
        """Connections with a request that is being answered."""
        return sum(connection.is_busy for connection in self._open)

    @property
    def arriving(self) -> int:
        """Connections with a request whose body is on its way."""
        return sum(connection.is_arriving for connection in self._open)

    def close_idle(self) -> None:
        for connection in list(self._open):
            if not connection.is_busy:
                connection.close()

    def abort(self) -> None:
        for connection in (*self._open, *self._refused):
            connection.abort()
