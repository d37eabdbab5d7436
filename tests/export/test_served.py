"""The server that the proof starts, its client, and what it believes of the answers."""

import copy
import http.client
import json
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from export import served
from export.examples import Examples, PathError
from export.prepared_data import PreparedData
from export.served import BATCH, AnswerError, Server, serving
from export.server_path import probabilities_in
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
            patch.setattr(served, "PATIENCE", 1)
            with server.client() as client:
                client.label(files[0], 1)
        server.address = address


def good_answer() -> dict[str, Any]:
    top = [("dog", 0.7), ("cat", 0.2), ("owl", 0.1)]
    ranked = [{"label": label, "probability": probability} for label, probability in top]
    return {"results": [{"name": None, **ranked[0], "top": ranked, "uncertain": False}]}


def examples(threshold: float | None = None) -> Examples:
    """Nothing but the names of the classes, and a threshold."""
    nothing = np.empty((0, 3), np.float32)
    empty = np.empty((0, 8, 8, 1), np.uint8)
    rows = np.empty(0, np.int64)
    return Examples(empty, rows, None, [], nothing, ("cat", "dog", "owl"), threshold)


def test_an_answer_is_put_in_the_order_of_the_classes() -> None:
    found = probabilities_in(good_answer(), examples())
    assert found.dtype == np.float32
    assert found.tolist() == np.array([0.2, 0.7, 0.1], np.float32).tolist()


@pytest.mark.parametrize(("threshold", "uncertain"), [(0.69, False), (0.71, True)])
def test_an_answer_is_uncertain_below_the_threshold(threshold: float, uncertain: bool) -> None:
    answer = good_answer()
    answer["results"][0]["uncertain"] = uncertain
    probabilities_in(answer, examples(threshold))
    answer["results"][0]["uncertain"] = not uncertain
    message = f"uncertain is {not uncertain}, with a threshold of {threshold}"
    with pytest.raises(PathError, match=message):
        probabilities_in(answer, examples(threshold))


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda answer: answer.clear(), "knows no 'results'"),
        (lambda answer: answer["results"].clear(), "is not as it should be"),
        (lambda answer: answer["results"].append({}), "is not as it should be"),
        (lambda answer: answer.update(results=None), "is not as it should be"),
        (lambda answer: answer["results"][0].update(top=7), "is not as it should be"),
        (lambda answer: answer["results"][0]["top"].pop(), "knows no 'owl'"),
        (lambda answer: answer["results"][0]["top"][2].update(label="elk"), "knows no 'owl'"),
        (
            lambda answer: answer["results"][0]["top"].append({"label": "elk", "probability": 0.0}),
            "named 4 labels, expected 3",
        ),
        (lambda answer: answer["results"][0]["top"].reverse(), "not ordered by probability"),
        (lambda answer: answer["results"][0].update(label="cat"), "cat 0.7 contradicts"),
        (lambda answer: answer["results"][0].update(probability=0.6), "dog 0.6 contradicts"),
        (
            lambda answer: answer["results"][0]["top"][1].update(probability="much"),
            "is not as it should be",
        ),
    ],
)
def test_an_answer_that_is_not_as_it_should_be(change: Change, message: str) -> None:
    answer = copy.deepcopy(good_answer())
    change(answer)
    with pytest.raises(PathError, match=message):
        probabilities_in(answer, examples())
