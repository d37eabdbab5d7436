"""The command line of the server.

python -m serve.http runs/fashion-mnist/model.onnx
python -m serve.http shoes=model.onnx models/ --port 9000 --workers 2
curl --data-binary @shoe.jpg localhost:8000/predict
"""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path

import uvloop

from serve.command import CommandParser, LockstepError
from serve.description import add_arguments, description
from serve.http import limits
from serve.http.catalogue import Policy, catalogue, read_policy
from serve.http.server import Settings, bind, is_reachable, run, tls_context
from serve.http.tuning import Wishes, available_cores
from serve.http.workers import Supervisor, Worker, is_worker

_log = logging.getLogger("lockstep")


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="python -m serve.http",
        description="Serve bundles over HTTP: the Open Inference Protocol v2 for programs, "
        "POST /predict and a page for people.",
        epilog="examples:\n"
        "  python -m serve.http runs/fashion-mnist/model.onnx\n"
        "  curl --data-binary @shoe.jpg localhost:8000/predict\n"
        "  python -m serve.http shoes=model.onnx models/ --batching off --workers 2",
    )
    parser.add_argument(
        "models",
        metavar="[NAME=]PATH",
        nargs="+",
        help="a bundle, or a folder of NAME/VERSION/model.onnx",
    )
    add = parser.add_argument_group("server").add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    add("--port", type=_port, default=8000, help="0 is any free one (default: 8000)")
    add("--workers", metavar="INT", type=limits.count, default=1,
        help="server processes (default: 1)")  # fmt: skip
    add("--tls-cert", metavar="FILE", type=Path, help="certificate chain in PEM: serve HTTPS")
    add("--tls-key", metavar="FILE", type=Path, help="its key, if it is not in the same file")
    add("--api-keys", metavar="FILE", type=Path,
        help="one key a line; clients send one as Authorization: Bearer KEY")  # fmt: skip
    add("--cors-origin", metavar="ORIGIN", action="append", default=[],
        help="pages that may ask, like https://example.com; * is all (default: none)")  # fmt: skip
    add("--allowed-host", metavar="NAME", action="append", default=[],
        help="a name in the header Host that is allowed on loopback besides localhost")  # fmt: skip
    add("--access-log", metavar="FILE", default="off",
        help="a line of JSON for each answer; - for stdout (default: off)")  # fmt: skip
    add("--grace", metavar="SECONDS", type=limits.seconds, default=30.0,
        help="time to finish accepted requests after SIGTERM (default: 30)")  # fmt: skip
    add("--drain-delay", metavar="SECONDS", type=_delay, default=0.0,
        help="serve on for so long after SIGTERM while not ready, so that a balancer can send "
             "requests elsewhere (default: 0)")  # fmt: skip
    add("--until-stdin-ends", action="store_true",
        help="end as after SIGTERM when standard input does: for a program that starts this one "
             "over a pipe and may be killed")  # fmt: skip
    add = parser.add_argument_group("models").add_argument
    add("--versions", metavar="POLICY", type=read_policy, default=Policy(),
        help="latest, latest:N, all, or numbers: 1,3 (default: latest)")  # fmt: skip
    add("--poll", metavar="SECONDS", type=_delay, default=2.0,
        help="how often to look for new versions; 0 never does (default: 2)")  # fmt: skip
    add("--batching", metavar="off|auto|N", type=_batching, default=None,
        help="images of different requests computed together: never, as many as measured to be "
             "best at start, or up to N (default: auto)")  # fmt: skip
    add("--max-delay", metavar="MS", type=_delay, default=0.0,
        help="milliseconds to wait for a batch to fill (default: 0)")  # fmt: skip
    add("--threads", metavar="auto|N", type=_threads, default=None,
        help="threads in one call of the model (default: auto, measured at start)")  # fmt: skip
    add("--max-queue", metavar="IMAGES", type=limits.count,
        help="images that may wait for a model (default: work of 0.1 s, 64 at least)")  # fmt: skip
    add("--timeout", metavar="SECONDS", type=limits.seconds, default=30.0,
        help="for one request, unless it asks for less (default: 30)")  # fmt: skip
    limits.add_limits(parser)
    add_arguments(parser)
    return parser


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise ValueError
    return number


def _delay(text: str) -> float:
    return 0.0 if text == "0" else limits.seconds(text)


def _batching(text: str) -> int | None:
    if text == "auto":
        return None
    return 1 if text == "off" else limits.count(text)


def _threads(text: str) -> int | None:
    return None if text == "auto" else limits.count(text)


# For the error of a command line.
_port.__name__ = "a port from 0 to 65535"
_delay.__name__ = "a number of at least 0"
_batching.__name__ = "off, auto or an integer of at least 1"
_threads.__name__ = "auto or an integer of at least 1"


def _settings(options: argparse.Namespace) -> Settings:
    if options.tls_key and not options.tls_cert:
        raise LockstepError("--tls-key: give --tls-cert too")
    for origin in options.cors_origin:
        if origin != "*" and ("://" not in origin or origin.endswith("/")):
            raise LockstepError(
                f"--cors-origin: expected * or an origin like https://example.com, got {origin}"
            )
    cores = max(1, available_cores() // options.workers)
    return Settings(
        sources=options.models,
        policy=options.versions,
        host=options.host,
        port=options.port,
        wishes=Wishes(options.batching, options.threads, cores, options.max_delay / 1000),
        max_queue=options.max_queue,
        timeout=options.timeout,
        poll=options.poll,
        grace=options.grace,
        drain_delay=options.drain_delay,
        tls_cert=options.tls_cert,
        tls_key=options.tls_key,
        api_keys=options.api_keys,
        origins=options.cors_origin,
        allowed_hosts=options.allowed_host,
        access_log=options.access_log,
        limits=limits.limits(options),
        description=description(options),
        thresholds=options.threshold or (),
    )


def main(arguments: list[str] | None = None) -> int:
    """The command. Exit code 0 after SIGTERM; 1 if accepted requests had to be cut off."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    settings = _settings(options)
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    # A thread that computes hands over to the event loop soon.
    sys.setswitchinterval(0.0005)
    if is_worker():
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(Worker().run(settings))
    if options.until_stdin_ends:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    catalogue(settings.sources)
    tls_context(settings)
    with bind(settings.host, settings.port) as listener:
        if is_reachable(settings.host) and not (settings.api_keys and settings.tls_cert):
            _log.warning(
                "%s can be reached from outside: think of --api-keys and --tls-cert", settings.host
            )
        if options.workers > 1:
            command = [sys.executable, "-m", "serve.http", *arguments]
            with asyncio.Runner() as runner:
                return runner.run(_supervise(command, options.workers, settings, listener))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(
                run(settings, listener=listener, ready=lambda address, _: _announce(address))
            )


def _end_with_stdin() -> None:
    """Whoever held the other end is gone, however it went."""
    while os.read(0, 2**16):  # not through sys.stdin, whose lock would hold up the exit
        pass
    os.kill(os.getpid(), signal.SIGTERM)


async def _supervise(
    command: list[str], count: int, settings: Settings, holder: socket.socket
) -> int:
    # It does not listen, but keeps the port from all but the workers, also while there is none.
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    port = holder.getsockname()[1]
    patience = settings.drain_delay + settings.grace
    return await Supervisor(command, count, port, patience).run(_announce)


def _announce(address: str) -> None:
    _log.info("ready: %s (page: /, documentation: /docs)", address)
