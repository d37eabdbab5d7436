"""What the handlers of requests share."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from serve.http import metrics
from serve.http.connections import Connections
from serve.http.limits import Limits, Memory
from serve.http.repository import Repository

MUCH = 2**17
"""Values or bytes of which a function needs some milliseconds."""

T = TypeVar("T")


@dataclass
class Service:
    """The state of a running server.

    Attributes:
        connections: that are open, with their limits and what they hold.
        change: loads or unloads a model by name, in every worker.
        is_open: no API key is asked for.
        stopping: whoever sends requests here should send them elsewhere.
    """

    repository: Repository
    connections: Connections
    change: Callable[[str, str], Awaitable[None]]
    is_open: bool
    stopping: bool = False

    @property
    def is_ready(self) -> bool:
        return self.repository.is_ready and not self.stopping

    @property
    def limits(self) -> Limits:
        return self.connections.limits

    @property
    def memory(self) -> Memory:
        return self.connections.memory

    @property
    def timeout(self) -> float:
        """Seconds that a request may take, unless it asks for less."""
        return self.connections.timeout

    @property
    def draining(self) -> bool:
        """No new work is taken."""
        return self.connections.draining

    def report(self) -> None:
        """Tell the metrics what changes too often to tell each time."""
        metrics.connections.set(len(self.connections))
        metrics.held_bytes.set(self.memory.held)
        for served in self.repository.all():
            served.report()

    async def compute(self, size: int, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function: in a thread, if it has much to do, so that others are answered
        meanwhile.

        Args:
            size: about how many values or bytes it goes through.
        """
        if size < MUCH:
            return function(*arguments)
        return await asyncio.to_thread(function, *arguments)

    def deadline(self, wish: float | None) -> contextlib.AbstractAsyncContextManager[object]:
        """The time that a request wishes to have, if it is less than every request gets."""
        if wish is None or wish >= self.timeout:
            return _ALWAYS
        return asyncio.timeout(wish)


_ALWAYS = contextlib.nullcontext()
"""The connection ends what takes longer than every request gets."""
