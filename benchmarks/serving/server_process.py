"""Run a server on a core of its own: start it, wait until it answers, watch it, stop all of it."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SERVER_CORE, LOAD_CORE = 0, 1
_TICKS, _PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """Pin this process, and what it starts, to one core for the time of the block."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass(frozen=True)
class ServerProcess:
    """A server and every process it started, on 127.0.0.1."""

    process: subprocess.Popen[bytes]
    port: int

    def members(self) -> dict[int, list[str]]:
        """The processes of its session, and those that they started, with their /proc/PID/stat."""
        stats = dict(_stats())
        found = {pid for pid, stat in stats.items() if int(stat[3]) == self.process.pid}
        while more := {pid for pid, stat in stats.items() if int(stat[1]) in found} - found:
            found |= more
        return {pid: stats[pid] for pid in found if stats[pid][0] != "Z"}

    def cpu_seconds(self) -> float:
        """User and system time of its processes, and of those that ended under them."""
        times = [int(ticks) for stat in self.members().values() for ticks in stat[11:15]]
        return sum(times) / _TICKS

    def resident_mib(self) -> float:
        """Resident memory of all its processes; what they share counts for each."""
        return sum(int(stat[21]) for stat in self.members().values()) * _PAGE / 2**20

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for all that still runs after ten seconds."""
        members = set(self.members())
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        for pid in members | set(self.members()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def _stats() -> Iterator[tuple[int, list[str]]]:
    """The fields of each /proc/PID/stat after the name: state, parent, group, session, ..."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                yield int(entry.name), (entry / "stat").read_text().rpartition(")")[2].split()


@contextlib.contextmanager
def running(
    command: Sequence[str], port: int, ready: str, environment: Mapping[str, str], log: Path
) -> Iterator[ServerProcess]:
    """A server pinned to its core, from its first good answer to `ready` until the block ends.

    Raises:
        RuntimeError: it ended, or was not ready in two minutes; the message has the end of its log.
    """
    with log.open("wb") as output, on_core(SERVER_CORE):
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    server, deadline = ServerProcess(process, port), time.monotonic() + 120
    try:
        while not _answers(port, ready):
            if process.poll() is not None or time.monotonic() > deadline:
                end = log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"expected {command[0]} to become ready; {log} ends:\n{end}")
            time.sleep(0.1)
        yield server
    finally:
        server.stop()


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@contextlib.contextmanager
def memory_of(
    server: ServerProcess, *, interval: float = 1, clock: Callable[[], float] = time.monotonic
) -> Iterator[list[tuple[float, float]]]:
    """A list that grows in the block: what `clock` gave, and the server's memory in MiB."""
    samples = [(clock(), server.resident_mib())]
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(interval):
            samples.append((clock(), server.resident_mib()))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()
        samples.append((clock(), server.resident_mib()))
