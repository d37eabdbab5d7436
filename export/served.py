"""The server as a process of its own, and a client of it: the protocol's two forms, and `/predict`.

with serving(bundle, largest=2**20) as server, server.client() as client:
    probabilities = client.infer(pixels)
"""

import contextlib
import json
import queue
import re
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.examples import PathError
from export.processes import command, environment
from serve.bundle import INPUT, OUTPUT
from serve.http.protocol import HEADER_LENGTH, write_bytes_tensor
from serve.image_spec import MOST_PIXELS

BATCH = 4
"""Images of different requests that the server computes together."""

MODEL = "proof"
MAX_DELAY = 5
"""Milliseconds that the server waits for so many to come."""

TIMEOUT = 240
"""Seconds that the server gives a request; it says so where that is too little."""

PATIENCE = 300
"""Seconds after which a server that neither starts, answers nor ends has failed."""


class AnswerError(PathError):
    """The server answered with an error.

    Attributes:
        status: that of the answer.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


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
        "max-pixels": MOST_PIXELS,
        "max-queue": 10_000,
        "timeout": TIMEOUT,
    }
    arguments = [f"--{name}={value}" for name, value in options.items()]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            command("serve.http", f"{MODEL}={bundle.resolve()}", *arguments),
            cwd=folder,
            env=environment(),
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

    def client(self) -> "Client":
        return Client(self)

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

    def lost(self, error: Exception) -> PathError:
        """What a connection that broke off says of the server."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(2)  # its connections end a little before it does
        if self._process.returncode is None:
            return PathError(f"the server gave no answer: {error or type(error).__name__}")
        return PathError(
            f"the server ended with code {self._process.returncode}: {self._last_words()}"
        )

    def wait_for_last_words(self) -> None:
        """Until all that it wrote is read."""
        self._reader.join()

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


class Client(contextlib.AbstractContextManager["Client"]):
    """One caller, on a connection that it keeps."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connection = HTTPConnection(server.address, timeout=PATIENCE)

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def infer(
        self, images: NDArray[np.uint8] | Sequence[bytes], *, binary: bool = True
    ) -> NDArray[np.float32]:
        """Probabilities by the Open Inference Protocol.

        Args:
            images: uint8 `[batch, height, width, channels]`, or encoded files.
            binary: send and ask for tensors in binary form, not as JSON; needed for files.

        Raises:
            AnswerError: the server refuses, or fails.
            PathError: its answer breaks the protocol, or it gives none.
        """
        if isinstance(images, np.ndarray):
            datatype, shape, tensor = "UINT8", list(images.shape), images.tobytes()
        else:
            datatype, shape, tensor = "BYTES", [len(images)], write_bytes_tensor(images)
        described: dict[str, Any] = {"name": INPUT, "datatype": datatype, "shape": shape}
        if binary:
            described["parameters"] = {"binary_data_size": len(tensor)}
        else:
            described["data"] = list(tensor)
        parameters = {"binary_data_output": binary}
        head = json.dumps({"inputs": [described], "parameters": parameters}).encode()
        body, length = self._post(
            f"/v2/models/{MODEL}/infer",
            head + tensor if binary else head,
            {HEADER_LENGTH: str(len(head))} if binary else {},
        )
        try:
            return _read_tensor(body, length)
        except (ValueError, LookupError, TypeError) as error:
            raise PathError(f"the server's answer breaks the protocol: {error}") from error

    def label(self, file: bytes, top: int) -> dict[str, Any]:
        """The `top` best labels of an encoded file by `POST /predict`; the answer as it is.

        Raises:
            AnswerError: the server refuses, or fails.
            PathError: its answer is no JSON object, or it gives none.
        """
        body, _ = self._post(f"/predict?top={top}", file, {})
        try:
            answer = json.loads(body)
        except ValueError as error:
            raise PathError(f"the server answered with what is no JSON: {error}") from error
        if not isinstance(answer, dict):
            raise PathError(f"the server answered with {answer!r:.80}, expected a JSON object")
        return answer

    def _post(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[bytes, int | None]:
        """The body of a good answer, and the length of its JSON part if it says one."""
        try:
            self._connection.request("POST", path, body, headers)
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, HTTPException) as error:
            raise self._server.lost(error) from error
        if response.status != 200:
            said = " ".join(content[:500].decode("utf-8", "replace").split())
            raise AnswerError(response.status, f"the server answered {response.status}: {said}")
        length = response.headers[HEADER_LENGTH]
        return content, int(length) if length else None


def _read_tensor(body: bytes, length: int | None) -> NDArray[np.float32]:
    """The output in an answer; ValueError, LookupError or TypeError if there is none in it."""
    answer = json.loads(body[:length])
    (output,) = answer["outputs"]
    found = (answer["model_name"], output["name"], output["datatype"])
    if found != (MODEL, OUTPUT, "FP32"):
        raise ValueError(f"expected {OUTPUT} of {MODEL} as FP32, got {found}")
    if length is None:
        return np.asarray(output["data"], np.float32).reshape(output["shape"])
    if output["parameters"]["binary_data_size"] != len(body) - length:
        raise ValueError(f"expected {output['parameters']}, got {len(body) - length} bytes")
    return np.frombuffer(body, "<f4", offset=length).reshape(output["shape"])
