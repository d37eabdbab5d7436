"""What the handlers of requests share."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from serve.http.limits import Limits
from serve.http.repository import Repository


@dataclass
class Service:
    """The state of a running server.

    Attributes:
        timeout: seconds that a request may take, unless it asks for less.
        change: loads or unloads a model by name, in every worker.
        stopping: whoever sends requests here should send them elsewhere.
        draining: no new work is taken.
    """

    repository: Repository
    limits: Limits
    timeout: float
    change: Callable[[str, str], Awaitable[None]]
    stopping: bool = False
    draining: bool = False

    @property
    def is_ready(self) -> bool:
        return self.repository.is_ready and not self.stopping

    def deadline(self, wish: float | None) -> contextlib.AbstractAsyncContextManager[object]:
        """The time that a request wishes to have, if it is less than every request gets."""
        if wish is None or wish >= self.timeout:
            return _ALWAYS
        return asyncio.timeout(wish)


_ALWAYS = contextlib.nullcontext()
"""The connection ends what takes longer than every request gets."""
