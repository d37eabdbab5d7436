"""The server that the proof starts, and its client."""

import http.client
import json
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from export import server_client
from export.examples import PathError
from export.prepared_data import PreparedData
from export.processes import environment
from export.server_client import AnswerError
from export.server_process import BATCH, Server, serving
from serve.classifier import Classifier
from serve.images import read_image


@pytest.fixture(scope="module")
def bundle(trained_run: Path) -> Path:
    return trained_run / "model.onnx"


@pytest.fixture(scope="module")
def files(trained_run: Path) -> list[bytes]:
    """Twenty encoded digits."""
    data = PreparedData.open(trained_run / "data")
    return [data.proof_path(file).read_bytes() for file in data.manifest.proof_files[:20]]


@pytest.fixture(scope="module")
def pixels(bundle: Path, files: list[bytes]) -> NDArray[np.uint8]:
    spec = Classifier(bundle).document.image
    return np.stack([read_image(file, spec) for file in files])


def test_every_form_gets_the_same_answers(
    bundle: Path, files: list[bytes], pixels: NDArray[np.uint8]
) -> None:
    classifier = Classifier(bundle)
    expected = classifier.predict(pixels)
    with serving(bundle, largest=2**20) as server, server.client() as client:
        for found in (
            client.infer(pixels),
            client.infer(pixels, binary=False),
            client.infer(files),
        ):
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, expected, atol=1e-6)
        answer = client.label(files[0], 10)
        names = classifier.document.class_names
        assert answer["results"][0]["label"] == names[int(expected[0].argmax())]
        assert [item["label"] for item in answer["results"][0]["top"]] == [
            names[index] for index in np.argsort(-expected[0], kind="stable")
        ]


def test_requests_of_several_callers_are_computed_together(
    bundle: Path, files: list[bytes]
) -> None:
    """Else the proof would say nothing of it."""

    def call(server: Server) -> None:
        with server.client() as client:
            for file in files:
                client.label(file, 1)

    with serving(bundle, largest=2**20) as server:
        with ThreadPoolExecutor(BATCH) as pool:
            list(pool.map(call, [server] * BATCH))
        connection = http.client.HTTPConnection(server.address, timeout=60)
        connection.request("GET", "/v2/models/proof/stats")
        answer = json.loads(connection.getresponse().read())
        connection.close()
    (statistics,) = answer["model_stats"]
    calls = {
        item["batch_size"]: item["compute_infer"]["count"] for item in statistics["batch_stats"]
    }
    assert sum(size * count for size, count in calls.items()) == BATCH * len(files)
    assert calls[BATCH] >= len(files) // 2


def test_a_refusal_is_told_and_the_connection_goes_on(
    bundle: Path, files: list[bytes], pixels: NDArray[np.uint8]
) -> None:
    with serving(bundle, largest=2**20) as server, server.client() as client:
        for ask, status, message in (
            (lambda: client.infer([files[0], b"no image"]), 422, "image 1: "),
            (lambda: client.label(b"no image", 1), 422, "the server answered 422: {"),
            (lambda: client.infer(pixels[:, :4]), 400, "expected UINT8 of shape"),
            (lambda: client.infer(pixels[:, :4], binary=False), 400, "expected UINT8 of shape"),
            (lambda: client.label(files[0], 0), 400, "top: expected a whole number"),
        ):
            with pytest.raises(AnswerError, match=message) as caught:
                ask()
            assert caught.value.status == status
            assert client.infer(files[:2]).shape == (2, 10)


def test_a_request_larger_than_was_said_is_refused(bundle: Path, pixels: NDArray[np.uint8]) -> None:
    """The limits are those of the proof, so that images of any size can be proven."""
    many = np.repeat(pixels, 20, axis=0)
    with (
        serving(bundle, largest=many.nbytes) as server,
        server.client() as client,
        pytest.raises(PathError, match=r"the server answered 413|gave no answer"),
    ):
        client.infer(many)


def test_the_server_is_gone_after_the_block(bundle: Path) -> None:
    addresses = []
    with serving(bundle, largest=2**20) as server:
        addresses.append(server.address)
    with pytest.raises(ZeroDivisionError), serving(bundle, largest=2**20) as server:
        addresses.append(server.address)
        raise ZeroDivisionError
    for address in addresses:
        with pytest.raises(ConnectionRefusedError):
            http.client.HTTPConnection(address, timeout=10).connect()


STARTER = """
import sys, time
from pathlib import Path
from export.server_process import serving

with serving(Path(sys.argv[1]), largest=2**20) as server:
    print(server.address, flush=True)
    time.sleep(600)
"""


def test_the_server_is_gone_when_who_started_it_is_killed(bundle: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, str(bundle)],
        env=environment(), stdout=subprocess.PIPE, text=True,
    ) as starter:  # fmt: skip
        assert starter.stdout
        host, _, port = starter.stdout.readline().strip().partition(":")
        socket.create_connection((host, int(port))).close()
        starter.kill()
    end = time.monotonic() + 30
    with pytest.raises(ConnectionRefusedError):
        while time.monotonic() < end:
            socket.create_connection((host, int(port))).close()
            time.sleep(0.05)


def test_a_bundle_that_cannot_be_served_is_told(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with (
        pytest.raises(PathError, match=r"the server did not start: error: .*model\.onnx"),
        serving(tmp_path / "model.onnx", largest=2**20),
    ):
        pass


def test_a_server_that_hangs_is_given_up(
    bundle: Path, files: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its port is open, and nobody answers."""
    with serving(bundle, largest=2**20) as server, socket.create_server(("127.0.0.1", 0)) as deaf:
        address = server.address
        server.address = "{}:{}".format(*deaf.getsockname())
        with (
            monkeypatch.context() as patch,
            pytest.raises(PathError, match="the server gave no answer: timed out"),
        ):
            patch.setattr(server_client, "PATIENCE", 1)
            with server.client() as client:
                client.label(files[0], 1)
        server.address = address
