"""The server as a process of its own.

with serving(bundle, largest=2**20) as server, server.client() as client:
    probabilities = client.infer(pixels)
"""

import contextlib
import queue
import re
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from export.examples import PathError
from export.processes import command, environment
from export.server_client import MODEL, PATIENCE, Client

BATCH = 4
"""Images of different requests that the server computes together."""

MAX_DELAY = 5
"""Milliseconds that the server waits for so many to come."""

TIMEOUT = 240
"""Seconds that the server gives a request; it says so where that is too little."""


@contextlib.contextmanager
def serving(bundle: Path, *, largest: int) -> Iterator["Server"]:
    """`python -m serve.http` on a free port of this machine, until the end of the block.

    Args:
        largest: bytes of the largest request that it will be sent.

    Raises:
        PathError: it does not start, dies, or does not end with code 0 after SIGTERM.
    """
    options = {
        "port": 0,
        "poll": 0,
        # Requests must meet in one batch, also where this machine would be faster without.
        "batching": BATCH,
        "max-delay": MAX_DELAY,
        # Only the bundle's own limits may refuse anything.
        "max-body": largest,
        "max-json": largest,
        "max-memory": 16 * largest,
        "max-queue": 10_000,
        "timeout": TIMEOUT,
    }
    arguments = [f"--{name}={value}" for name, value in options.items()]
    arguments.append("--until-stdin-ends")  # it must not outlive a proof that is killed
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            command("serve.http", f"{MODEL}={bundle.resolve()}", *arguments),
            cwd=folder,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        ) as process,
    ):
        server = Server(process)
        try:
            server.wait_until_ready()
            yield server
            server.stop()
        finally:
            process.kill()
            server.wait_for_last_words()


class Server:
    """A server process that was just started.

    Attributes:
        address: host and port, once it is ready.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.address = ""
        self._process = process
        self._lines: list[str] = []
        self._ready: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def client(self) -> Client:
        """A new connection."""
        return Client(self.address, self._lost)

    def wait_until_ready(self) -> None:
        """Raises PathError: it ended, or takes too long."""
        try:
            self.address = self._ready.get(timeout=PATIENCE)
        except queue.Empty:
            raise PathError(f"the server is not ready after {PATIENCE} s") from None
        if not self.address:
            raise PathError(f"the server did not start: {self._last_words()}")

    def stop(self) -> None:
        """Raises PathError: it does not end, or ends otherwise than it should."""
        self._process.terminate()
        try:
            code = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise PathError(f"the server did not end within {PATIENCE} s of SIGTERM") from None
        if code:
            raise PathError(f"the server ended with code {code}: {self._last_words()}")

    def wait_for_last_words(self) -> None:
        """Until all that it wrote is read."""
        self._reader.join()

    def _lost(self, error: Exception) -> PathError:
        """What a connection that broke off says of the server."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(2)  # its connections end a little before it does
        if self._process.returncode is None:
            return PathError(f"the server gave no answer: {error or type(error).__name__}")
        return PathError(
            f"the server ended with code {self._process.returncode}: {self._last_words()}"
        )

    def _last_words(self) -> str:
        self.wait_for_last_words()
        return self._lines[-1] if self._lines else "it said nothing"

    def _read(self) -> None:
        assert self._process.stderr
        for line in self._process.stderr:
            if line.strip():
                self._lines.append(line.strip())
            if found := re.search(r"ready: http://(\S+)", line):
                self._ready.put(found[1])
        self._ready.put("")
