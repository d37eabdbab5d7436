"""Several server processes on one port, and the one that looks after them.

Each worker listens for itself (SO_REUSEPORT); the kernel spreads connections over them. Over a
pair of sockets a worker tells that it is ready, and passes on that a model shall be loaded or
unloaded, which its parent then has all of them do. A worker whose parent is gone sees its end of
the pair closed, and goes too.
"""

import asyncio
import contextlib
import dataclasses
import itertools
import json
import logging
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

from prometheus_client import multiprocess

from serve.http.catalogue import RepositoryError
from serve.http.metrics import SHARED_FOLDER
from serve.http.repository import Repository, UnknownModelError
from serve.http.server import STOP_SIGNALS, Settings, bind, change_here, run

CONTROL = "LOCKSTEP_CONTROL"
"""Environment variable with a worker's end of the pair, as a file descriptor."""

RESTART_SECONDS, LONGEST_RESTART = 1.0, 30.0
"""A worker that dies again and again is started again after longer and longer pauses."""

KILL_AFTER = 5.0
"""Seconds beyond the grace after which a worker that does not end is killed."""

LONGEST_MESSAGE = 2**30
"""Bytes; a message holds little more than a name, which the head of a request had room for."""

_Message = dict[str, Any]

_log = logging.getLogger("lockstep")


def is_worker() -> bool:
    return CONTROL in os.environ


async def _open(end: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(sock=end, limit=LONGEST_MESSAGE)


def _send(writer: asyncio.StreamWriter, message: _Message) -> None:
    writer.write(json.dumps(message).encode() + b"\n")


async def _messages(reader: asyncio.StreamReader) -> AsyncIterator[_Message]:
    """What the other side sends, until it is gone."""
    with contextlib.suppress(ConnectionError):
        while (line := await reader.readline()).endswith(b"\n"):
            yield json.loads(line)


def _settle(future: asyncio.Future[_Message] | None, message: _Message) -> None:
    """Give a message to who waits for it, if there is still somebody."""
    if future and not future.done():
        future.set_result(message)


class Worker:
    """A server process that has siblings."""

    def __init__(self) -> None:
        self._control = socket.socket(fileno=int(os.environ.pop(CONTROL)))
        self._asked: dict[int, asyncio.Future[_Message]] = {}
        self._numbers = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._repository: Repository
        self._writer: asyncio.StreamWriter

    async def run(self, settings: Settings) -> int:
        """As `server.run`."""
        reader, self._writer = await _open(self._control)
        first: asyncio.Future[_Message] = asyncio.get_running_loop().create_future()
        listening = asyncio.create_task(self._listen(reader, first))
        start = await first
        try:
            settings = dataclasses.replace(settings, port=start["port"])
            with bind(settings.host, settings.port, shared=True) as listener:
                return await run(
                    settings,
                    listener=listener,
                    change=self._change,
                    ready=self._ready,
                    unloaded=start["unloaded"],
                    # Its parent passes SIGTERM on, to which somebody may have sent it, too.
                    cut_short=(signal.SIGINT,),
                )
        finally:
            listening.cancel()

    def _ready(self, address: str, repository: Repository) -> None:
        self._repository = repository
        _send(self._writer, {"kind": "ready", "address": address})

    async def _listen(self, reader: asyncio.StreamReader, start: asyncio.Future[_Message]) -> None:
        async for message in _messages(reader):
            match message["kind"]:
                case "start":
                    start.set_result(message)
                case "do":
                    task = asyncio.create_task(self._do(message))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                case "answer":
                    _settle(self._asked.pop(message["number"], None), message)
        # The parent is gone: nobody would stop this process any more, or clean up.
        shutil.rmtree(os.environ[SHARED_FOLDER], ignore_errors=True)
        os._exit(1)

    async def _do(self, message: _Message) -> None:
        error, is_unknown = "it failed; the server's log has the details", False
        try:
            await change_here(self._repository, message["action"], message["name"])
            error = ""
        except RepositoryError as refused:
            error, is_unknown = str(refused), isinstance(refused, UnknownModelError)
        finally:
            done = {"kind": "done", "number": message["number"], "error": error}
            _send(self._writer, {**done, "is_unknown": is_unknown})

    async def _change(self, repository: Repository, action: str, name: str) -> None:
        """Load or unload a model in all workers, this one among them."""
        number = next(self._numbers)
        future = self._asked[number] = asyncio.get_running_loop().create_future()
        _send(self._writer, {"kind": "ask", "number": number, "action": action, "name": name})
        try:
            answer = await future
        finally:
            self._asked.pop(number, None)
        if answer["error"]:
            raise (UnknownModelError if answer["is_unknown"] else RepositoryError)(answer["error"])


class _Child:
    """What the parent knows of a worker."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        writer: asyncio.StreamWriter,
        last_action: dict[str, str],
    ) -> None:
        self.process = process
        self.writer = writer
        self.is_ready = False
        self.knows = dict(last_action)
        self.doing: dict[int, asyncio.Future[_Message]] = {}

    def signal(self, number: int) -> None:
        # Not by `process.send_signal`, which may collect an exit code that asyncio then misses.
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            os.kill(self.process.pid, number)


_DONE: _Message = {"error": "", "is_unknown": False}


class Supervisor:
    """Starts workers, starts them again if they die, and stops them.

    Args:
        command: starts one worker.
        port: for all of them.
        patience: seconds that a worker may need to finish its requests.
    """

    def __init__(self, command: Sequence[str], count: int, port: int, patience: float) -> None:
        self._command = command
        self._count = count
        self._port = port
        self._patience = patience
        self._children: set[_Child] = set()
        self._folder = tempfile.mkdtemp(prefix="lockstep-metrics-")
        self._numbers = itertools.count()
        self._last_action: dict[str, str] = {}
        self._changing = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._announce: Callable[[str], None] | None = None

    async def run(self, ready: Callable[[str], None]) -> int:
        """Until SIGTERM or SIGINT. Returns the worst exit code of a worker."""
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._stop)
        self._announce = ready
        try:
            return max(await asyncio.gather(*(self._live() for _ in range(self._count))))
        finally:
            self._signal(signal.SIGKILL)
            shutil.rmtree(self._folder, ignore_errors=True)

    def _stop(self) -> None:
        """Have all workers finish; a second signal has them end at once."""
        if self._stopping.is_set():
            self._signal(signal.SIGINT)
            return
        self._stopping.set()
        self._signal(signal.SIGTERM)
        asyncio.get_running_loop().call_later(
            self._patience + KILL_AFTER, self._signal, signal.SIGKILL
        )

    def _signal(self, number: int) -> None:
        for child in self._children:
            child.signal(number)

    async def _live(self) -> int:
        """One place for a worker: a new one is started when the last one died."""
        pause = RESTART_SECONDS
        while not self._stopping.is_set():
            child = await self._spawn()
            code = await child.process.wait()
            self._forget(child)
            if self._stopping.is_set():
                # A signal ends a worker only before it is ready, unless it has to be killed.
                return code if code >= 0 else int(child.is_ready)
            if self._announce and not child.is_ready:  # it said why; the others would fail alike
                self._stop()
                return code if code > 0 else 1
            _log.error("worker %d ended with code %d; starting another", child.process.pid, code)
            pause = RESTART_SECONDS if child.is_ready else min(2 * pause, LONGEST_RESTART)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
        return 0

    async def _spawn(self) -> _Child:
        ours, theirs = socket.socketpair()
        reader, writer = await _open(ours)
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                pass_fds=[theirs.fileno()],
                env={**os.environ, CONTROL: str(theirs.fileno()), SHARED_FOLDER: self._folder},
                process_group=0,  # Ctrl-C reaches the parent alone, which passes it on
            )
        child = _Child(process, writer, self._last_action)
        self._children.add(child)
        if self._stopping.is_set():  # meanwhile, when it was not among those that were told
            child.signal(signal.SIGTERM)
        unloaded = [name for name, action in child.knows.items() if action == "unload"]
        _send(writer, {"kind": "start", "port": self._port, "unloaded": unloaded})
        self._start(self._listen(child, reader))
        return child

    def _forget(self, child: _Child) -> None:
        """A worker that has ended: nobody waits for it any more."""
        self._children.discard(child)
        child.writer.close()
        for future in child.doing.values():
            _settle(future, _DONE)
        multiprocess.mark_process_dead(child.process.pid, self._folder)  # type: ignore[no-untyped-call]

    def _start(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _listen(self, child: _Child, reader: asyncio.StreamReader) -> None:
        async for message in _messages(reader):
            match message["kind"]:
                case "ready":
                    child.is_ready = True
                    self._tell_when_all_are_ready(message["address"])
                    self._start(self._catch_up(child))
                case "ask":
                    self._start(self._have_all_do(child, message))
                case "done":
                    _settle(child.doing.pop(message["number"], None), message)

    def _tell_when_all_are_ready(self, address: str) -> None:
        if self._announce and sum(child.is_ready for child in self._children) == self._count:
            self._announce(address)
            self._announce = None

    async def _catch_up(self, child: _Child) -> None:
        """Have a worker do what the others did while it started."""
        async with self._changing:
            for name, action in self._last_action.items():
                if child.knows.get(name) != action:
                    await self._have_done(child, action, name)

    async def _have_all_do(self, asking: _Child, message: _Message) -> None:
        """Have every worker load or unload a model, one such change after the other.

        The answer is the first error. Unloading fails only if no worker had the model.
        """
        action, name = message["action"], message["name"]
        async with self._changing:
            ready = [child for child in self._children if child.is_ready]
            done = await asyncio.gather(*(self._have_done(child, action, name) for child in ready))
            choose = max if action == "load" else min
            answer = choose(done, key=lambda item: bool(item["error"]), default=_DONE)
            if not answer["is_unknown"]:
                self._last_action[name] = action
        _send(asking.writer, {**answer, "kind": "answer", "number": message["number"]})

    async def _have_done(self, child: _Child, action: str, name: str) -> _Message:
        if child not in self._children:
            return _DONE
        number = next(self._numbers)
        future: asyncio.Future[_Message] = asyncio.get_running_loop().create_future()
        child.doing[number] = future
        _send(child.writer, {"kind": "do", "number": number, "action": action, "name": name})
        return await future
