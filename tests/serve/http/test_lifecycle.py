"""How server processes begin and end: bad starts, signals, reloads under load, workers, logs."""

import contextlib
import http.client
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import serve
from serve.classifier import Classifier
from serve.command import LockstepError
from serve.http.command import main
from serve.http.server import bind

ROOT = Path(serve.__file__).parents[1]
WriteBundle = Callable[..., Path]
StartServer = Callable[..., Any]

QUICK = ("--batching", "off", "--threads", "1")
"""Nothing is measured at start."""

IMAGES = np.random.default_rng(7).integers(0, 256, (4, 8, 8, 1), np.uint8)
BODY = json.dumps(
    {
        "inputs": [
            {
                "name": "image",
                "datatype": "UINT8",
                "shape": list(IMAGES.shape),
                "data": IMAGES.ravel().tolist(),
            }
        ]
    }
).encode()


class Answer:
    """Status, headers and body of an answer."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def probabilities(self) -> NDArray[np.float32]:
        output = self.json["outputs"][0]
        return np.array(output["data"], "f").reshape(output["shape"])


def ask(server: Any, method: str, path: str, body: bytes | None = None) -> Answer:
    """A request on a connection of its own."""
    with contextlib.closing(http.client.HTTPConnection(server.address, timeout=60)) as connection:
        connection.request(method, path, body)
        return Answer(connection.getresponse())


def get(server: Any, path: str) -> Answer:
    return ask(server, "GET", path)


def infer(server: Any, model: str = "letters") -> Answer:
    return ask(server, "POST", f"/v2/models/{model}/infer", BODY)


def change(server: Any, action: str, model: str = "letters") -> Answer:
    return ask(server, "POST", f"/v2/repository/models/{model}/{action}", b"{}")


def expected(path: Path) -> NDArray[np.float32]:
    return Classifier(path, threads=1).predict(IMAGES)


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be collected does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text("ascii")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii")
    return [int(number) for number in text.split()]


def is_free(address: str) -> bool:
    """Whether a server could listen there."""
    host, port = address.split(":")
    try:
        socket.create_server((host, int(port))).close()
    except OSError:
        return False
    return True


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A server that is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "serve.http", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


class Admitted:
    """A request whose head the server has taken, and whose body is still to come."""

    def __init__(self, server: Any, model: str = "letters") -> None:
        host, port = server.address.split(":")
        self._socket = socket.create_connection((host, int(port)), timeout=60)
        self._socket.sendall(
            f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: {server.address}\r\n"
            f"Content-Length: {len(BODY)}\r\nExpect: 100-continue\r\n\r\n".encode()
        )
        told = self._socket.recv(1000)
        assert told == b"HTTP/1.1 100 Continue\r\n\r\n"

    def finish(self) -> Answer:
        self._socket.sendall(BODY)
        response = http.client.HTTPResponse(self._socket)
        with contextlib.closing(self._socket), contextlib.closing(response):
            response.begin()
            return Answer(response)

    def give_up(self) -> None:
        self._socket.close()


@pytest.fixture
def slow_bundle(tmp_path: Path, make_bundle: WriteBundle) -> Path:
    """A model called "letters" that needs some 0.1 s for an image."""
    return make_bundle(tmp_path / "slow" / "letters.onnx", work=50)


# Bad starts.


def fails(*arguments: str | Path, says: str) -> None:
    """The command ends with exit code 2 and one line."""
    done = command(*arguments)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert re.search(says, line), line


def test_missing_damaged_and_half_written_models(bundle: Path, tmp_path: Path) -> None:
    content = bundle.read_bytes()
    half, damaged = tmp_path / "half.onnx", tmp_path / "damaged.onnx"
    half.write_bytes(content[: len(content) // 2])
    damaged.write_bytes(content[:500] + bytes([content[500] ^ 1]) + content[501:])
    fails(tmp_path / "none.onnx", "--port", "0", says=r"none\.onnx.*no such file")
    fails(half, "--port", "0", *QUICK, says=r"half\.onnx: cut off")
    fails(damaged, "--port", "0", *QUICK, says=r"damaged\.onnx: .*digest")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "required.*PATH.*--help"),
        (("{bundle}", "--port", "65536"), "--port.*port from 0 to 65535.*65536"),
        (("{bundle}", "--versions", "newest"), "latest:N.*'newest'"),
        (("{bundle}", "--versions", "0"), "latest:N.*'0'"),
        (("{bundle}", "--batching", "0"), "--batching"),
        (("{bundle}", "--max-delay", "-1"), "--max-delay"),
        (("{bundle}", "--workers", "0"), "--workers"),
        (("{bundle}", "--grace", "nan"), "--grace"),
        (("{bundle}", "--tls-key", "key.pem"), "--tls-cert"),
    ],
)
def test_bad_options(bundle: Path, options: tuple[str, ...], says: str) -> None:
    with pytest.raises(LockstepError, match=says) as caught:
        main([option.format(bundle=bundle) for option in options])
    assert caught.value.exit_code == 2


def test_an_address_that_cannot_be_had(bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        says = f"cannot listen on 127.0.0.1:{port}: .* in use; choose another with --host and"
        fails(bundle, "--port", str(port), says=says)
        with pytest.raises(LockstepError, match=says):
            bind("127.0.0.1", port)
    for host in ("192.0.2.1", "no.such.host.invalid"):
        with pytest.raises(LockstepError, match=f"cannot listen on {host}:0: "):
            bind(host, 0)


def test_an_access_log_that_cannot_be_opened(bundle: Path, tmp_path: Path) -> None:
    place = tmp_path / "no" / "log"
    fails(bundle, "--port", "0", "--access-log", place, says="no/log: No such file or directory")


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_port_that_another_server_has(start: StartServer, bundle: Path, workers: int) -> None:
    first = start(bundle, "--workers", str(workers), *QUICK)
    port = first.address.rpartition(":")[2]
    with pytest.raises(LockstepError, match="cannot listen"):
        bind("127.0.0.1", int(port))
    assert infer(first).status == 200
    assert first.stop() == 0


# Signals.


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_signal_ends_an_idle_server(start: StartServer, bundle: Path, number: int) -> None:
    server = start(bundle, *QUICK)
    idle = http.client.HTTPConnection(server.address, timeout=60)
    idle.request("GET", "/v2/health/live")
    assert idle.getresponse().read()
    assert server.stop(number, timeout=60) == 0
    idle.close()
    assert not any("Traceback" in line for line in server.lines)


@pytest.mark.parametrize(
    ("workers", "wait"),
    [
        (1, 0.2),
        (1, 0.8),
        *(pytest.param(1, wait, marks=pytest.mark.slow) for wait in np.arange(0.1, 1.6, 0.1)),
        *(pytest.param(2, wait, marks=pytest.mark.slow) for wait in np.arange(0.1, 3, 0.2)),
    ],
)
def test_a_signal_while_it_starts(
    start: StartServer, bundle: Path, workers: int, wait: float
) -> None:
    """At every moment of the start: before and after the handlers are there."""
    server = start(bundle, "--workers", str(workers), wait=False)
    time.sleep(wait)  # there is nothing to be seen from outside that could be awaited
    begun = children(server.process.pid)
    code = server.stop(timeout=60)
    assert code in (0, -signal.SIGTERM), server.lines
    wait_until(lambda: not any(map(is_alive, begun)))
    assert not any("Traceback" in line for line in server.lines), server.lines


def test_sigterm_under_load_answers_all_that_was_accepted(
    start: StartServer, slow_bundle: Path
) -> None:
    """Ready turns 503 while it goes on, live stays 200, new work is refused."""
    server = start(slow_bundle, *QUICK, "--max-queue", "200")
    answers = expected(slow_bundle)
    with ThreadPoolExecutor(12) as pool:
        begun = [Admitted(server) for _ in range(4)]
        under_way = [pool.submit(Admitted(server).finish) for _ in range(4)]
        wait_until(
            lambda: sample(server, "lockstep_queue_images") or all(map(Future.done, under_way))
        )
        last = Admitted(server)
        os.kill(server.process.pid, signal.SIGTERM)
        wait_until(lambda: get(server, "/v2/health/ready").status == 503)
        ready = get(server, "/v2/health/ready")
        assert ready.json == {"ready": False}
        assert get(server, "/v2/models/letters/ready").status == 503
        assert get(server, "/v2/health/live").status == 200
        refused = infer(server)
        assert refused.status == 503
        assert int(refused.headers["Retry-After"]) >= 1
        assert "shutting down" in refused.json["error"]
        assert refused.headers["Connection"] == "close"
        assert ask(server, "POST", "/predict", b"no image").status == 503
        assert server.process.poll() is None
        finished = [pool.submit(item.finish) for item in (*begun, last)]
        for item in (*under_way, *finished):
            answer = item.result()
            assert answer.status == 200, answer.body
            np.testing.assert_allclose(answer.probabilities, answers, atol=1e-5)
    assert server.process.wait(60) == 0


def sample(server: Any, name: str) -> float:
    """The sum of a metric's samples."""
    lines = get(server, "/metrics").body.decode().splitlines()
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if line.partition("{")[0].partition(" ")[0] == name
    )


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_sigterm_under_load_resets_no_request_that_was_sent_before(
    start: StartServer, bundle: Path, workers: int
) -> None:
    """Eight clients that never pause, on connections that stay open.

    What was sent before the signal is answered: with 200, or with 503 if its head was read after.
    """
    server = start(bundle, *QUICK, "--workers", str(workers))
    signalled = float("inf")
    outcomes: list[tuple[float, int]] = []

    def client() -> None:
        with contextlib.closing(http.client.HTTPConnection(server.address, timeout=60)) as one:
            while True:
                sent = float("inf")
                try:
                    one.request("POST", "/v2/models/letters/infer", BODY)
                    sent = time.monotonic()
                    response = one.getresponse()
                    response.read()
                except (ConnectionError, http.client.HTTPException):
                    outcomes.append((sent, 0))
                    return
                outcomes.append((sent, response.status))
                if response.status != 200:
                    return

    with ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(client) for _ in range(8)]
        wait_until(lambda: len(outcomes) > 400)
        signalled = time.monotonic()
        os.kill(server.process.pid, signal.SIGTERM)
        for item in clients:
            item.result()
    assert server.process.wait(60) == 0
    before = [status for sent, status in outcomes if sent < signalled]
    assert before.count(200) > 400
    assert set(before) <= {200, 503}, f"{before.count(0)} requests were cut off"
    assert {status for _, status in outcomes} <= {200, 503, 0}


def infer_head(length: int) -> bytes:
    path = "/v2/models/letters/infer"
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()


@contextlib.contextmanager
def long_request(server: Any) -> Iterator[None]:
    """A request that the slow bundle needs some seconds for is being computed inside."""
    shape = [30, *IMAGES.shape[1:]]
    tensor = {"name": "image", "datatype": "UINT8", "shape": shape, "data": [7] * math.prod(shape)}
    body = json.dumps({"inputs": [tensor]}).encode()
    host, port = server.address.split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(infer_head(len(body)) + body)
        wait_until(lambda: sample(server, "lockstep_queue_images") > 0)
        yield


def test_a_second_signal_ends_it_at_once(start: StartServer, slow_bundle: Path) -> None:
    server = start(slow_bundle, *QUICK)
    with long_request(server):
        os.kill(server.process.pid, signal.SIGTERM)
        wait_until(lambda: get(server, "/v2/health/ready").status == 503)
        assert server.stop(signal.SIGINT, timeout=60) == 1
    assert any("1 request" in line and "cut off" in line for line in server.lines)


def test_the_grace_is_not_exceeded(start: StartServer, slow_bundle: Path) -> None:
    server = start(slow_bundle, *QUICK, "--grace", "0.5")
    with long_request(server):
        assert server.stop(timeout=60) == 1
    assert any("1 request" in line and "--grace is 0.5 s" in line for line in server.lines)


def test_a_body_that_never_comes_is_waited_for_and_no_failure(
    start: StartServer, bundle: Path
) -> None:
    server = start(bundle, *QUICK, "--grace", "0.5")
    unfinished = Admitted(server)
    started = time.monotonic()
    assert server.stop(timeout=60) == 0
    assert time.monotonic() - started >= 0.5
    unfinished.give_up()


def test_it_serves_on_while_a_balancer_notices(start: StartServer, bundle: Path) -> None:
    server = start(bundle, *QUICK, "--drain-delay", "60")
    os.kill(server.process.pid, signal.SIGTERM)
    wait_until(lambda: get(server, "/v2/health/ready").status == 503)
    assert infer(server).status == 200
    assert get(server, "/v2/health/live").status == 200
    assert server.stop(timeout=60) == 0  # the second one ends the wait


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_drain_delay_is_no_part_of_the_grace(
    start: StartServer, bundle: Path, workers: int
) -> None:
    options = ("--drain-delay", "1", "--grace", "0.5", "--workers", str(workers))
    server = start(bundle, *QUICK, *options)
    started = time.monotonic()
    assert server.stop(timeout=60) == 0
    assert time.monotonic() - started >= 1


def test_kill_leaves_no_held_port(start: StartServer, bundle: Path) -> None:
    server = start(bundle, *QUICK)
    held = http.client.HTTPConnection(server.address, timeout=60)
    held.request("GET", "/v2/health/live")
    held.getresponse().read()
    assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    wait_until(lambda: is_free(server.address))
    held.close()


# Reloads.


def wait_until_served(server: Any, version: str) -> None:
    """Until this version answers on every connection."""
    wait_until(lambda: {infer(server).json["model_version"] for _ in range(8)} == {version})


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_reload_under_load_loses_and_mixes_nothing(
    start: StartServer, folder: Path, make_bundle: WriteBundle, workers: int
) -> None:
    server = start(folder, *QUICK, "--poll", "0.05", "--workers", str(workers))
    letters = folder / "letters"
    known = {"1": expected(letters / "1" / "model.onnx")}
    is_over = threading.Event()

    def client() -> list[str]:
        """The versions that answered, in order. An answer is wholly that of one of them."""
        seen = []
        with contextlib.closing(http.client.HTTPConnection(server.address, timeout=60)) as one:
            while not is_over.is_set():
                one.request("POST", "/v2/models/letters/infer", BODY)
                answer = Answer(one.getresponse())
                assert answer.status == 200, answer.body
                version = answer.json["model_version"]
                np.testing.assert_allclose(answer.probabilities, known[version], atol=1e-5)
                seen.append(version)
        return seen

    with ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(client) for _ in range(8)]
        try:
            for version in ("2", "3", "4"):
                path = make_bundle(folder.parent / "new.onnx", seed=int(version))
                known[version] = expected(path)
                (letters / version).mkdir()
                path.rename(letters / version / "model.onnx")
                wait_until_served(server, version)
                broken = letters / "9" / "model.onnx"
                broken.parent.mkdir(exist_ok=True)
                broken.write_bytes((letters / version / "model.onnx").read_bytes()[:-50])
        finally:
            is_over.set()
        for item in clients:
            seen = item.result()
            assert seen == sorted(seen), "an old version answered after a new one"
            assert set(seen) <= set(known)
            assert seen[-1] == "4"
    index = {entry["version"]: entry for entry in ask(server, "POST", "/v2/repository/index").json}
    assert index["4"]["state"] == "READY"
    assert "cut off" in index["9"]["reason"]
    assert server.stop() == 0


# Workers.


@pytest.fixture(scope="module")
def pair(
    start: StartServer, make_bundle: WriteBundle, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """A server of two workers that serves `letters` and `boots`, with an access log."""
    place = tmp_path_factory.mktemp("pair")
    for name in ("letters", "boots"):
        make_bundle(place / "models" / name / "1" / "model.onnx")
    server = start(place / "models", *QUICK, "--workers", "2", "--access-log", place / "access.log")
    server.log = place / "access.log"
    return server


def everywhere(server: Any, ask_once: Callable[[Any], int]) -> set[int]:
    """What all workers answer: each of so many connections reaches any of them."""
    return {ask_once(server) for _ in range(24)}


def status_of(model: str) -> Callable[[Any], int]:
    return lambda server: infer(server, model).status


def test_all_workers_are_ready_when_it_says_so(pair: Any) -> None:
    assert len(children(pair.process.pid)) == 2
    assert sum("ready: " in line for line in pair.lines) == 1
    assert everywhere(pair, lambda server: get(server, "/v2/health/ready").status) == {200}


def test_metrics_are_those_of_all_workers(pair: Any) -> None:
    name = "lockstep_model_requests_total"
    before = sample(pair, name)
    for _ in range(40):
        assert infer(pair, "boots").status == 200
    wait_until(lambda: sample(pair, name) == before + 40)  # it counts what it has answered
    after = {sample(pair, name) for _ in range(12)}
    assert after == {before + 40}, "every worker tells of all requests"
    body = get(pair, "/metrics").body.decode()
    assert re.search(r'lockstep_model_loads_total{.*model="boots".*} 2\.0', body), body
    assert "pid=" not in body


def test_all_workers_load_and_unload(pair: Any) -> None:
    assert change(pair, "unload").status == 200
    assert everywhere(pair, status_of("letters")) == {404}
    assert everywhere(pair, status_of("boots")) == {200}
    assert change(pair, "unload").status == 404
    assert change(pair, "load").status == 200
    assert everywhere(pair, status_of("letters")) == {200}


def test_all_workers_refuse_what_they_cannot_load(pair: Any) -> None:
    answer = change(pair, "load", "sandals")
    assert answer.status == 404
    assert "unknown model 'sandals'" in answer.json["error"]
    # Long names, in the form that needs most bytes between the processes.
    long = change(pair, "load", "%01" * 10_000)
    assert long.status == 404
    assert len(long.body) < 2000
    assert change(pair, "load").status == 200


def test_who_gives_up_a_change_disturbs_nobody(pair: Any) -> None:
    host, port = pair.address.split(":")
    for action in ("load", "unload", "load") * 4:
        with socket.create_connection((host, int(port))) as impatient:
            impatient.sendall(
                f"POST /v2/repository/models/letters/{action} HTTP/1.1\r\n"
                "Host: x\r\nContent-Length: 2\r\n\r\n{}".encode()
            )
    for _ in range(12):
        assert change(pair, "load").status == 200
    assert everywhere(pair, status_of("letters")) == {200}


def test_changes_of_many_clients_end_alike_everywhere(pair: Any) -> None:
    with ThreadPoolExecutor(8) as pool:
        actions = ("unload", "load") * 20
        statuses = list(pool.map(lambda action: change(pair, action).status, actions))
    assert set(statuses) <= {200, 404}, "unloading what is not loaded is 404"
    assert change(pair, "load").status == 200
    assert everywhere(pair, status_of("letters")) == {200}


def test_lines_of_two_workers_stay_whole(pair: Any) -> None:
    """Each answer has one line, with the fields that it should have."""
    marks = [f"/v2/models/boots?mark={number:03}" for number in range(200)]
    with ThreadPoolExecutor(8) as pool:
        assert {answer.status for answer in pool.map(lambda mark: get(pair, mark), marks)} == {200}
    assert infer(pair, "boots").status == 200
    lines: list[dict[str, Any]] = []

    def is_written() -> bool:
        written, _, _ = pair.log.read_bytes().rpartition(b"\n")  # behind it, half a line
        lines[:] = [json.loads(line) for line in written.splitlines()]
        return set(marks) <= {line["path"] for line in lines}

    wait_until(is_written)
    assert sorted(line["path"] for line in lines if line["path"] in marks) == marks
    for line in lines:
        assert abs(line["time"] - time.time()) < 300
        assert line["peer"] == "127.0.0.1"
        assert line["ms"] >= 0
        assert {"method", "path", "status", "bytes_in", "bytes_out"} <= line.keys()
    inferred = [line for line in lines if line["method"] == "POST" and "images" in line]
    assert inferred
    for line in inferred:
        assert (line["model"], line["version"]) != ("", "")
        assert line["images"] == len(IMAGES)
        assert line["bytes_in"] == len(BODY)
        assert min(line["queue_ms"], line["compute_ms"], line["decode_ms"]) >= 0


def test_a_worker_that_died_is_replaced(start: StartServer, folder: Path) -> None:
    """The new one serves what the others serve, and not what was unloaded."""
    boots = folder / "boots" / "1" / "model.onnx"
    boots.parent.mkdir(parents=True)
    boots.write_bytes((folder / "letters" / "1" / "model.onnx").read_bytes())
    server = start(folder, *QUICK, "--workers", "2")
    assert change(server, "unload", "boots").status == 200
    before = sample(server, "lockstep_http_requests_total")
    first, second = children(server.process.pid)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: any("starting another" in line for line in server.lines))
    with pytest.raises(LockstepError, match="cannot listen"):
        bind("127.0.0.1", int(server.address.rpartition(":")[2]))
    assert infer(server).status == 200, "the other one goes on"
    assert change(server, "load", "letters").status == 200
    wait_until(lambda: len(children(server.process.pid)) == 2)
    (new,) = {*children(server.process.pid)} - {second}
    port = int(server.address.rpartition(":")[2])
    wait_until(lambda: listens(new, port))
    os.kill(second, signal.SIGSTOP)  # whoever answers now is the new one
    try:
        statuses = answers_of_a_free_worker(server, ("letters", "boots"))
    finally:
        os.kill(second, signal.SIGCONT)
    assert statuses == {"letters": 200, "boots": 404}
    assert sample(server, "lockstep_http_requests_total") > before, "counts outlive a worker"
    assert server.stop() == 0


def listens(pid: int, port: int) -> bool:
    """Whether a process has a listening socket on a port."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found = re.fullmatch(r"socket:\[(\d+)\]", str(link.readlink()))
            inodes |= {found[1]} if found else set()
    for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(f":{port:04X}") and fields[3] == "0A" and fields[9] in inodes:
            return True
    return False


def answers_of_a_free_worker(server: Any, models: tuple[str, ...]) -> dict[str, int]:
    """Status for each model on the first connection that is answered soon."""
    for _ in range(40):
        with contextlib.closing(http.client.HTTPConnection(server.address, timeout=1)) as one:
            try:
                statuses = {}
                for model in models:
                    one.request("POST", f"/v2/models/{model}/infer", BODY)
                    statuses[model] = Answer(one.getresponse()).status
                return statuses
            except TimeoutError:  # the kernel gave it to the one that stands still
                continue
    raise AssertionError("nobody answers")


@pytest.mark.slow
def test_a_worker_that_cannot_start_again_stops_nobody(
    start: StartServer, tmp_path: Path, make_bundle: WriteBundle
) -> None:
    path = make_bundle(tmp_path / "letters.onnx")
    content = path.read_bytes()
    server = start(path, *QUICK, "--workers", "2")
    path.write_bytes(content[:-50])
    os.kill(children(server.process.pid)[0], signal.SIGKILL)
    wait_until(lambda: sum("starting another" in line for line in server.lines) >= 2)
    assert server.process.poll() is None
    assert infer(server).status == 200
    path.write_bytes(content)
    port = int(server.address.rpartition(":")[2])
    wait_until(lambda: sum(listens(child, port) for child in children(server.process.pid)) == 2)
    assert server.stop() == 0


@pytest.mark.slow
def test_a_bad_model_ends_all_workers(tmp_path: Path, bundle: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(bundle.read_bytes()[:-50])
    done = command(broken, "--workers", "2", "--port", "0")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert all(line.startswith("error: ") for line in done.stderr.splitlines()), done.stderr


def metrics_folders() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("lockstep-metrics-*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_do_not_outlive_their_parent(start: StartServer, bundle: Path, number: int) -> None:
    before = metrics_folders()
    server = start(bundle, *QUICK, "--workers", "2")
    (made,) = metrics_folders() - before
    workers = children(server.process.pid)
    assert len(workers) == 2
    held = [http.client.HTTPConnection(server.address, timeout=60) for _ in range(6)]
    for connection in held:
        connection.request("GET", "/v2/health/live")
        assert connection.getresponse().read()
    code = server.stop(number)
    assert code == (0 if number == signal.SIGTERM else -signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, workers)))
    wait_until(lambda: not made.exists())
    # A process with threads is gone a moment before its sockets are.
    wait_until(lambda: is_free(server.address))
    for connection in held:
        connection.close()


def test_workers_finish_what_they_accepted(start: StartServer, bundle: Path) -> None:
    """Also when a service manager sends the signal to every process, as systemd does."""
    server = start(bundle, *QUICK, "--workers", "2")
    begun = [Admitted(server) for _ in range(8)]
    for pid in (*children(server.process.pid), server.process.pid):
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: sum("stopping" in line for line in server.lines) == 2)
    for item in begun:
        assert item.finish().status == 200
    assert server.process.wait(60) == 0


@pytest.mark.slow
def test_workers_that_cut_off_requests_say_so(start: StartServer, slow_bundle: Path) -> None:
    server = start(slow_bundle, *QUICK, "--workers", "2")
    with long_request(server):
        os.kill(server.process.pid, signal.SIGTERM)
        wait_until(lambda: sum("stopping" in line for line in server.lines) == 2)
        assert server.stop(timeout=60) == 1


@pytest.mark.slow
@pytest.mark.parametrize("wait", [0, 1.05, 1.2, 1.5, 1.8])
def test_a_signal_while_a_worker_is_replaced(start: StartServer, bundle: Path, wait: float) -> None:
    """Before the new one starts, while it imports, while it opens the model, after."""
    server = start(bundle, *QUICK, "--workers", "2")
    workers = children(server.process.pid)
    os.kill(workers[0], signal.SIGKILL)
    wait_until(lambda: any("starting another" in line for line in server.lines))
    time.sleep(wait)
    workers += children(server.process.pid)
    assert server.stop(timeout=60) == 0, server.lines
    assert not any(map(is_alive, workers))
    assert not any("Traceback" in line for line in server.lines), server.lines


@pytest.mark.slow
def test_a_port_is_kept_while_no_worker_has_it(start: StartServer, bundle: Path) -> None:
    server = start(bundle, *QUICK, "--workers", "2")
    for pid in children(server.process.pid):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not children(server.process.pid))
    with pytest.raises(LockstepError, match="cannot listen"):
        bind("127.0.0.1", int(server.address.rpartition(":")[2]))
    wait_until(lambda: sum("starting another" in line for line in server.lines) == 2)
    port = int(server.address.rpartition(":")[2])
    wait_until(lambda: sum(listens(child, port) for child in children(server.process.pid)) == 2)
    assert infer(server).status == 200
    assert server.stop() == 0


@pytest.mark.slow
def test_lines_of_two_workers_stay_whole_in_a_pipe(start: StartServer, bundle: Path) -> None:
    server = start(bundle, *QUICK, "--workers", "2", "--access-log", "-")
    with ThreadPoolExecutor(9) as pool:
        reading = pool.submit(server.process.stdout.readlines)
        paths = [f"/no/{number:03}/{'x' * (7 * number)}" for number in range(400)]
        statuses = list(pool.map(lambda path: get(server, path).status, paths))
        assert set(statuses) == {404}
        assert server.stop() == 0
        lines = [json.loads(line) for line in reading.result()]
    assert sorted(line["path"] for line in lines) == sorted(path[:1000] for path in paths)


# What it says.


def test_a_host_that_others_reach_is_warned_of(
    start: StartServer, bundle: Path, server: Any
) -> None:
    assert not any("WARNING" in line for line in server.lines)
    reachable = start(bundle, *QUICK, "--host", "0.0.0.0")
    (warning,) = [line for line in reachable.lines if "WARNING" in line]
    assert "--api-keys" in warning
    assert "--tls-cert" in warning
    assert reachable.stop() == 0


def test_an_access_log_that_cannot_be_written_stops_nothing(
    start: StartServer, bundle: Path
) -> None:
    """A full disk costs lines, not answers; and connections are looked after as before."""
    server = start(bundle, *QUICK, "--access-log", "/dev/full", "--idle-timeout", "0.5")
    with contextlib.closing(http.client.HTTPConnection(server.address, timeout=60)) as one:
        for _ in range(400):
            one.request("GET", "/v2/models/letters")
            assert Answer(one.getresponse()).status == 200
        wait_until(lambda: any("access log" in line for line in server.lines))
        assert one.sock.recv(1) == b"", "an idle connection is closed"
    assert infer(server).status == 200
    assert sum("access log" in line for line in server.lines) == 1
    assert server.stop() == 0


def test_the_access_log_on_stdout(start: StartServer, bundle: Path) -> None:
    server = start(bundle, *QUICK, "--access-log", "-")
    assert get(server, "/v2/health/live").status == 200
    assert get(server, "/no/such/path?x=%22%0A").status == 404
    request = json.dumps({**json.loads(BODY), "id": "mine"}).encode()
    assert ask(server, "POST", "/v2/models/letters/infer", request).status == 200
    assert server.stop() == 0
    lines = [json.loads(line) for line in server.process.stdout]
    assert [(line["path"], line["status"]) for line in lines] == [
        ("/v2/health/live", 200),
        ("/no/such/path?x=%22%0A", 404),
        ("/v2/models/letters/infer", 200),
    ]
    assert [line.get("id") for line in lines] == [None, None, "mine"]
    assert [line.get("images") for line in lines] == [None, None, len(IMAGES)]


def test_the_choice_of_batching_is_logged(server: Any) -> None:
    (line,) = [line for line in server.lines if "loaded letters version 1" in line]
    assert re.search(r"batch|no batching", line)
    assert "tried" in line


def test_pipelined_requests_are_all_answered_while_it_drains(
    start: StartServer, slow_bundle: Path
) -> None:
    server = start(slow_bundle, *QUICK)
    host, port = server.address.split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall((infer_head(len(BODY)) + BODY) * 3)
        wait_until(lambda: sample(server, "lockstep_queue_images") > 0)
        os.kill(server.process.pid, signal.SIGTERM)
        answers = b"".join(iter(lambda: connection.recv(2**16), b""))
    assert answers.count(b"HTTP/1.1 200 OK") == 3
    assert server.process.wait(60) == 0


def test_nobody_who_was_refused_holds_up_the_end(start: StartServer, bundle: Path) -> None:
    """A client that is told 503 and never sends its body."""
    server = start(bundle, *QUICK, "--grace", "300")
    begun = Admitted(server)
    os.kill(server.process.pid, signal.SIGTERM)
    wait_until(lambda: get(server, "/v2/health/ready").status == 503)
    host, port = server.address.split(":")
    with socket.create_connection((host, int(port)), timeout=60) as refused:
        refused.sendall(
            b"POST /v2/models/letters/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
        )
        wait_until(lambda: sample(server, "lockstep_connections") >= 2)
        assert begun.finish().status == 200
        assert server.process.wait(60) == 0


def test_an_access_log_that_nobody_reads_stops_nothing(start: StartServer, bundle: Path) -> None:
    """Its pipe is full after 64 KiB."""
    server = start(bundle, *QUICK, "--access-log", "-")
    path = "/v2/" + "x" * 900
    for _ in range(1500):
        assert get(server, path).status == 404
    wait_until(lambda: any("the access log loses lines" in line for line in server.lines))
    assert server.stop() == 0
