"""One process at a time in a run."""

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from export.run_directory import RunDirectory
from serve.command import LockstepError


class InUseError(LockstepError):
    """Another process is at work in a run."""


@contextmanager
def claimed(run: RunDirectory) -> Iterator[None]:
    """Be the only process at work in a run. A lock goes with its process, however that ends.

    Raises:
        InUseError: another process is at work there.
    """
    run.path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run.lock, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise InUseError(
            f"{run.path}: another process is at work in this run; wait for its end, or take "
            "another directory"
        ) from None
    try:
        yield
    finally:
        lock.release()
