"""A client of the server that the proof asks: the protocol's two forms, and `/predict`."""

import contextlib
import json
from collections.abc import Callable, Sequence
from http.client import HTTPConnection, HTTPException
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.examples import PathError
from serve.bundle import INPUT, OUTPUT
from serve.http.protocol import HEADER_LENGTH, write_bytes_tensor

MODEL = "proof"
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


class Client(contextlib.AbstractContextManager["Client"]):
    """One caller, on a connection that it keeps.

    Args:
        address: host and port.
        explain: makes what is raised of the error with which the connection broke off.
    """

    def __init__(self, address: str, explain: Callable[[Exception], PathError]) -> None:
        self._connection = HTTPConnection(address, timeout=PATIENCE)
        self._explain = explain

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
            raise self._explain(error) from error
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
