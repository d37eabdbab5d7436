"""Several server processes on one port, and the one that looks after them.

Each worker listens for itself (SO_REUSEPORT); the kernel spreads connections over them. Over a
pair of sockets a worker tells that it is ready, and passes on that a model shall be loaded or
unloaded, which its parent then has all of them do. A worker whose parent is gone sees its end of
the pair closed, and goes too.
"""

import asyncio
import itertools
import json
import logging
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from prometheus_client import multiprocess

from serve.http.metrics import SHARED_FOLDER
from serve.http.repository import Repository, RepositoryError, UnknownModelError
from serve.http.server import Settings, bind, change_here, run

CONTROL = "LOCKSTEP_CONTROL"
"""Environment variable with a worker's end of the pair, as a file descriptor."""

RESTART_SECONDS = 1.0
KILL_AFTER = 5.0
"""Seconds beyond the grace after which a worker that does not end is killed."""

_Message = dict[str, Any]

_log = logging.getLogger("lockstep")


def is_worker() -> bool:
    return CONTROL in os.environ


class Worker:
    """A server process that has siblings."""

    def __init__(self) -> None:
        self._control = socket.socket(fileno=int(os.environ.pop(CONTROL)))
        self._asked: dict[int, asyncio.Future[_Message]] = {}
        self._numbers = itertools.count()
        self._repository: Repository
        self._writer: asyncio.StreamWriter

    async def run(self, settings: Settings) -> int:
        """As `server.run`."""
        reader, self._writer = await asyncio.open_connection(sock=self._control)
        listening = asyncio.create_task(self._listen(reader))
        try:
            with bind(settings.host, settings.port, shared=True) as listener:
                return await run(
                    settings, listener=listener, change=self._change, ready=self._ready
                )
        finally:
            listening.cancel()

    def _ready(self, address: str, repository: Repository) -> None:
        self._repository = repository
        _send(self._writer, {"kind": "ready", "address": address})

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        doing = set()
        while line := await reader.readline():
            message = json.loads(line)
            if message["kind"] == "do":
                task = asyncio.create_task(self._do(message))
                doing.add(task)
                task.add_done_callback(doing.discard)
            else:
                self._asked.pop(message["number"]).set_result(message)
        os._exit(1)  # the parent is gone: nobody would stop this process any more

    async def _do(self, message: _Message) -> None:
        error, is_unknown = "", False
        try:
            await change_here(self._repository, message["action"], message["name"])
        except RepositoryError as refused:
            error, is_unknown = str(refused), isinstance(refused, UnknownModelError)
        done = {"kind": "done", "number": message["number"], "error": error}
        _send(self._writer, {**done, "is_unknown": is_unknown})

    async def _change(self, repository: Repository, action: str, name: str) -> None:
        """Load or unload a model in all workers, this one among them."""
        number = next(self._numbers)
        future = self._asked[number] = asyncio.get_running_loop().create_future()
        _send(self._writer, {"kind": "ask", "number": number, "action": action, "name": name})
        answer = await future
        if answer["error"]:
            raise (UnknownModelError if answer["is_unknown"] else RepositoryError)(answer["error"])


class _Child:
    """What the parent knows of a worker."""

    def __init__(self, process: asyncio.subprocess.Process, writer: asyncio.StreamWriter) -> None:
        self.process = process
        self.writer = writer
        self.is_ready = False
        self.doing: dict[int, asyncio.Future[_Message]] = {}


class Supervisor:
    """Starts workers, starts them again if they die, and stops them.

    Args:
        command: starts one worker.
    """

    def __init__(self, command: Sequence[str], count: int, grace: float) -> None:
        self._command = command
        self._count = count
        self._grace = grace
        self._children: set[_Child] = set()
        self._folder = tempfile.mkdtemp(prefix="lockstep-metrics-")
        self._numbers = itertools.count()
        self._last_action: dict[str, str] = {}
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._announce: Callable[[str], None] | None = None

    async def run(self, ready: Callable[[str], None]) -> int:
        """Until SIGTERM or SIGINT. Returns the worst exit code of a worker."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        self._announce = ready
        try:
            return max(await asyncio.gather(*(self._live() for _ in range(self._count))))
        finally:
            for child in self._children:
                child.process.kill()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _stop(self) -> None:
        """Pass the signal on; whoever needs longer than the grace is killed."""
        if not self._stopping.is_set():
            asyncio.get_running_loop().call_later(self._grace + KILL_AFTER, self._kill)
        self._stopping.set()
        for child in self._children:
            child.process.terminate()

    def _kill(self) -> None:
        for child in self._children:
            child.process.kill()

    async def _live(self) -> int:
        """One place for a worker: a new one is started when the last one died."""
        while True:
            child = await self._spawn()
            code = await child.process.wait()
            self._children.discard(child)
            for future in child.doing.values():
                future.set_result({"error": "", "is_unknown": False})
            multiprocess.mark_process_dead(child.process.pid, self._folder)  # type: ignore[no-untyped-call]
            if self._stopping.is_set():
                return code
            if not child.is_ready:  # it said why; the others would fail alike
                self._stop()
                return code or 1
            _log.error("worker %d ended with code %d; starting another", child.process.pid, code)
            await asyncio.sleep(RESTART_SECONDS)
            if self._stopping.is_set():
                return code

    async def _spawn(self) -> _Child:
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                pass_fds=[theirs.fileno()],
                env={**os.environ, CONTROL: str(theirs.fileno()), SHARED_FOLDER: self._folder},
                process_group=0,  # Ctrl-C reaches the parent alone, which passes it on
            )
        reader, writer = await asyncio.open_connection(sock=ours)
        child = _Child(process, writer)
        self._children.add(child)
        self._start(self._listen(child, reader))
        return child

    def _start(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _listen(self, child: _Child, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            message = json.loads(line)
            match message["kind"]:
                case "ready":
                    child.is_ready = True
                    self._tell_when_all_are_ready(message["address"])
                    for name, action in self._last_action.items():
                        if action == "unload":
                            self._start(self._have_done(child, action, name))
                case "ask":
                    self._start(self._have_all_do(child, message))
                case "done":
                    child.doing.pop(message["number"]).set_result(message)

    def _tell_when_all_are_ready(self, address: str) -> None:
        if self._announce and all(child.is_ready for child in self._children):
            self._announce(address)
            self._announce = None

    async def _have_all_do(self, asking: _Child, message: _Message) -> None:
        """Have every worker load or unload a model; the answer is the first error, if any."""
        action, name = message["action"], message["name"]
        done = await asyncio.gather(
            *(self._have_done(child, action, name) for child in self._children if child.is_ready)
        )
        worst = next((answer for answer in done if answer["error"]), done[0])
        if not worst["error"]:
            self._last_action[name] = action
        _send(asking.writer, {**worst, "kind": "answer", "number": message["number"]})

    async def _have_done(self, child: _Child, action: str, name: str) -> _Message:
        number = next(self._numbers)
        future: asyncio.Future[_Message] = asyncio.get_running_loop().create_future()
        child.doing[number] = future
        _send(child.writer, {"kind": "do", "number": number, "action": action, "name": name})
        return await future


def _send(writer: asyncio.StreamWriter, message: _Message) -> None:
    writer.write(json.dumps(message).encode() + b"\n")
