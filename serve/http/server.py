"""A server process: opens the models, listens, and ends without losing what it accepted."""

import asyncio
import contextlib
import ctypes
import gc
import logging
import resource
import signal
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from serve.command import LockstepError, one_line
from serve.description import Description
from serve.http.access_log import AccessLog
from serve.http.app import App
from serve.http.batcher import Plan
from serve.http.catalogue import Policy
from serve.http.connection import Connection
from serve.http.connections import Connections
from serve.http.limits import MIB, Limits, Memory
from serve.http.repository import Repository
from serve.http.security import Gate, read_keys
from serve.http.served import Opened, Served, open_model
from serve.http.service import Service
from serve.http.tuning import Wishes

SWEEP_SECONDS = 0.2
LOOPBACK = ("127.0.0.1", "::1", "localhost")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
SETTLE_SECONDS = 0.1
"""What was sent before a server stops is read for so long."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
BACKLOG = 1024

_log = logging.getLogger("lockstep")


@dataclass(frozen=True)
class Settings:
    """Everything that can be said on the command line; see its help.

    Attributes:
        timeout, poll, grace, drain_delay: in seconds.
        max_queue: images; None is so many as are answered in `served.QUEUE_SECONDS`.
    """

    sources: Sequence[str]
    policy: Policy
    host: str
    port: int
    wishes: Wishes
    max_queue: int | None
    timeout: float
    poll: float
    grace: float
    drain_delay: float
    tls_cert: Path | None
    tls_key: Path | None
    api_keys: Path | None
    origins: Sequence[str]
    allowed_hosts: Sequence[str]
    access_log: str
    limits: Limits
    description: Description | None
    thresholds: Sequence[float]


Change = Callable[[Repository, str, str], Awaitable[None]]
"""Loads or unloads (second argument) a model (third), here and in every other worker."""


async def change_here(repository: Repository, action: str, name: str) -> None:
    """Load or unload a model of this process."""
    await (repository.load(name) if action == "load" else repository.unload(name))


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A socket on an address.

    Args:
        shared: other processes of this user may listen on it, too.

    Raises:
        LockstepError: the address is taken, or not ours.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        taken = socket.socket(family, kind, protocol)
        try:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            taken.bind(address)
        except OSError:
            taken.close()
            raise
    except OSError as error:
        raise LockstepError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another with "
            "--host and --port"
        ) from None
    return taken


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """Raises LockstepError: certificate and key cannot be used."""
    if not settings.tls_cert:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise LockstepError(
            f"{settings.tls_cert}: no usable certificate and key: {one_line(error)}"
        ) from None
    return context


async def run(
    settings: Settings,
    *,
    listener: socket.socket,
    change: Change = change_here,
    ready: Callable[[str, Repository], None],
    unloaded: Iterable[str] = (),
    cut_short: Sequence[signal.Signals] = STOP_SIGNALS,
) -> int:
    """Serve until SIGTERM or SIGINT.

    Args:
        listener: bound, not yet listening.
        ready: told the address and the models once requests are answered.
        unloaded: names of models that are not served until somebody loads them.
        cut_short: signals that end it at once, if they come while it finishes its requests.

    Returns:
        The exit code: 0, or 1 if requests were cut off when the grace was over.
    """
    _give_memory_back()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop.set)
    context = tls_context(settings)
    gate = Gate(
        read_keys(settings.api_keys) if settings.api_keys else (),
        settings.origins,
        hosts=None if is_reachable(settings.host) else (settings.host, *settings.allowed_hosts),
    )
    access_log = AccessLog(settings.access_log) if settings.access_log != "off" else None
    memory = Memory(settings.limits.max_memory)
    repository = _repository(settings, memory, unloaded)
    starting = asyncio.ensure_future(repository.start())
    stopped = asyncio.ensure_future(stop.wait())
    await asyncio.wait((starting, stopped), return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        return 0
    await starting

    async def change_everywhere(action: str, name: str) -> None:
        # A client that leaves does not leave a model half opened.
        await asyncio.shield(change(repository, action, name))

    connections = Connections(settings.limits, memory, settings.timeout)
    service = Service(repository, connections, change_everywhere, is_open=settings.api_keys is None)
    app = App(service, gate, access_log)
    _allow_files(settings.limits.max_connections)
    server = await loop.create_server(
        lambda: Connection(app, connections),
        sock=listener,
        backlog=BACKLOG,
        ssl=context,
        ssl_handshake_timeout=settings.limits.head_timeout if context else None,
    )
    chores = [
        asyncio.create_task(_every(SWEEP_SECONDS, app.sweep)),
        *([asyncio.create_task(_every(settings.poll, repository.poll))] if settings.poll else []),
    ]
    gc.freeze()  # what is there now stays, and need not be looked through again and again
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    ready(f"{'https' if context else 'http'}://{shown}:{port}", repository)
    await stopped
    for number in set(STOP_SIGNALS) - set(cut_short):
        loop.add_signal_handler(number, lambda: None)
    cut_off = await _drain(settings, service, stop)
    server.close()
    connections.abort()
    for chore in chores:
        chore.cancel()
    await asyncio.gather(*chores, return_exceptions=True)
    await app.sweep()
    if access_log:
        access_log.close()
    repository.close()
    if cut_off:
        _log.error("%d requests were cut off: --grace is %g s", cut_off, settings.grace)
    return 1 if cut_off else 0


def _repository(settings: Settings, memory: Memory, unloaded: Iterable[str]) -> Repository:
    threads = ThreadPoolExecutor(settings.wishes.cores, "work")

    def open_file(path: Path, plan: Plan | None) -> Opened:
        return open_model(
            path, settings.description, settings.wishes, plan, thresholds=settings.thresholds
        )

    def serve(name: str, version: int, opened: Opened) -> Served:
        return Served(
            name,
            version,
            opened,
            limits=settings.limits,
            memory=memory,
            threads=threads,
            max_queue=settings.max_queue,
        )

    return Repository(settings.sources, settings.policy, open_file, serve, unloaded)


async def _drain(settings: Settings, service: Service, stop: asyncio.Event) -> int:
    """Finish what was accepted. Returns how many requests were not answered in time."""
    connections = service.connections
    stop.clear()  # another signal ends it at once
    service.stopping = True
    _log.info("stopping: not ready any more")
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), settings.drain_delay)
    connections.draining = True
    begun = now = time.monotonic()
    while not stop.is_set() and now < begun + (
        settings.grace if connections.busy or connections.arriving else SETTLE_SECONDS
    ):
        await asyncio.sleep(SETTLE_SECONDS / 5)
        now = time.monotonic()
    cut_off = connections.busy
    connections.close_idle()
    await asyncio.sleep(0)
    return cut_off


async def _every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except Exception:  # noqa: BLE001 (what fails once is tried again, and not given up)
            _log.exception("a chore failed")


def is_reachable(host: str) -> bool:
    """Whether other machines reach what listens on this address."""
    return host not in LOOPBACK


def _give_memory_back() -> None:
    """Have glibc return large pieces to the system when they are free. By itself it raises the
    bound with every one that it meets, and keeps hundreds of MiB after a few large images."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt:
        mallopt(M_MMAP_THRESHOLD, 8 * MIB)
        # Said too, as it would be so small by now that every image gives its pages back.
        mallopt(M_TRIM_THRESHOLD, 32 * MIB)


def _allow_files(connections: int) -> None:
    """Raise the process's own limit on open files, if it is below what the connections need."""
    needed = connections + 256
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed:
        most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        if most < needed:
            _log.warning("only %d files may be open: fewer than --max-connections needs", most)
