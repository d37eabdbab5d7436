"""What Prometheus and the protocol's statistics are told, against requests that are known."""

import contextlib
import http.client
import io
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

WriteBundle = Callable[..., Path]
StartServer = Callable[..., Any]
Pixels = NDArray[np.uint8]

QUICK = ("--batching", "off", "--threads", "1")
GREY = np.full((1, 8, 8, 1), 90, np.uint8)
WHITE = np.full((1, 8, 8, 1), 255, np.uint8)


class Numbers:
    """The samples of one reading of /metrics."""

    def __init__(self, server: Any) -> None:
        status, headers, body = ask(server, "GET", "/metrics")
        assert status == 200
        assert headers["Content-Type"].startswith("text/plain")
        self.families = {
            family.name: family for family in text_string_to_metric_families(body.decode())
        }
        self.samples = [sample for family in self.families.values() for sample in family.samples]

    def find(self, name: str, **labels: str) -> list[Sample]:
        return [
            sample
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of the samples with a name and labels."""
        return sum(sample.value for sample in self.find(name, **labels))


def ask(server: Any, method: str, path: str, body: bytes | None = None) -> tuple[int, Any, bytes]:
    with contextlib.closing(http.client.HTTPConnection(server.address, timeout=60)) as connection:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.headers, response.read()


def infer(
    server: Any, images: Pixels = GREY, *, path: str = "/v2/models/letters", **parameters: Any
) -> int:
    """The status of an inference."""
    tensor = {"name": "image", "datatype": "UINT8", "shape": images.shape}
    request = {
        "inputs": [{**tensor, "data": images.ravel().tolist()}],
        "parameters": parameters,
    }
    return ask(server, "POST", f"{path}/infer", json.dumps(request).encode())[0]


def statistics(server: Any, path: str = "/v2/models/letters") -> list[dict[str, Any]]:
    status, _, body = ask(server, "GET", f"{path}/stats")
    assert status == 200
    return list(json.loads(body)["model_stats"])


def png(level: int = 90) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((12, 9), level, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def folder(make_bundle: WriteBundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions of `letters`, of which 2 fails on white images, and a broken one."""
    folder = tmp_path_factory.mktemp("models")
    make_bundle(folder / "letters" / "1" / "model.onnx")
    make_bundle(folder / "letters" / "2" / "model.onnx", white="error")
    broken = make_bundle(folder / "broken" / "1" / "model.onnx")
    broken.write_bytes(broken.read_bytes()[:-20])
    return folder


@pytest.fixture(scope="module")
def server(start: StartServer, folder: Path) -> Any:
    return start(folder, *QUICK, "--versions", "all")


@pytest.fixture(scope="module")
def slow(
    start: StartServer, make_bundle: WriteBundle, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """A server whose model needs some 0.1 s for an image, takes four together, and queues 12."""
    path = make_bundle(tmp_path_factory.mktemp("slow") / "letters.onnx", work=50)
    return start(path, "--batching", "4", "--threads", "2", "--max-queue", "12")


def test_every_family_has_its_type_and_help(server: Any) -> None:
    infer(server)
    families = Numbers(server).families
    expected = {
        "lockstep_http_requests": "counter",
        "lockstep_http_request_seconds": "histogram",
        "lockstep_model_requests": "counter",
        "lockstep_images": "counter",
        "lockstep_stage_seconds": "histogram",
        "lockstep_batch_images": "histogram",
        "lockstep_queue_images": "gauge",
        "lockstep_model_loads": "counter",
        "lockstep_connections": "gauge",
        "lockstep_held_bytes": "gauge",
        "lockstep_start_time_seconds": "gauge",
    }
    assert {name: families[name].type for name in expected} == expected
    for name in expected:
        assert families[name].documentation


def test_buckets_grow_up_to_the_count(server: Any) -> None:
    infer(server)
    numbers = Numbers(server)
    for name in ("lockstep_stage_seconds", "lockstep_batch_images"):
        for counted in numbers.find(f"{name}_count"):
            buckets = numbers.find(f"{name}_bucket", **counted.labels)
            values = [bucket.value for bucket in buckets]
            assert values == sorted(values)
            assert buckets[-1].labels["le"] == "+Inf"
            assert values[-1] == counted.value


def test_requests_are_counted_by_version_and_outcome(server: Any) -> None:
    before = Numbers(server)
    assert infer(server) == 200
    assert infer(server, path="/v2/models/letters/versions/1") == 200
    assert infer(server, path="/v2/models/letters/versions/1") == 200
    assert infer(server, GREY[:, :7]) == 400
    assert infer(server, WHITE) == 500
    assert ask(server, "POST", "/predict?model=letters", b"no image")[0] == 422
    assert infer(server, path="/v2/models/none") == 404
    after = Numbers(server)

    def more(**labels: str) -> float:
        name = "lockstep_model_requests_total"
        return after(name, **labels) - before(name, **labels)

    assert more(model="letters", version="2", outcome="ok") == 1
    assert more(model="letters", version="1", outcome="ok") == 2
    assert more(model="letters", version="2", outcome="invalid") == 2
    assert more(model="letters", version="2", outcome="failed") == 1
    assert more() == 6, "a model that is not there has no numbers"
    assert not after.find("lockstep_model_requests_total", model="none")
    images = "lockstep_images_total"
    assert after(images, version="1") - before(images, version="1") == 2


def test_paths_that_clients_choose_are_no_labels(server: Any) -> None:
    """Else a client could fill the memory with them."""
    for number in range(20):
        ask(server, "GET", f"/no/such/path/{number}")
        ask(server, "GET", f"/v2/models/none{number}")
        ask(server, "GET", f"/v2/models/letters/versions/{number + 70}")
    numbers = Numbers(server)
    paths = {sample.labels["path"] for sample in numbers.find("lockstep_http_requests_total")}
    assert not [path for path in paths if any(digit in path.replace("v2", "") for digit in "0179")]
    assert numbers("lockstep_http_requests_total", path="", method="GET", status="404") >= 20
    name = "/v2/models/{model}"
    assert numbers("lockstep_http_requests_total", path=name, method="GET", status="404") >= 20


def test_stages_are_those_that_a_request_went_through(server: Any) -> None:
    def counts() -> dict[str, float]:
        numbers = Numbers(server)
        return {
            stage: numbers("lockstep_stage_seconds_count", version="2", stage=stage)
            for stage in ("decode", "queue", "compute")
        }

    before = counts()
    assert infer(server) == 200  # pixels: nothing to decode
    middle = counts()
    assert middle == {**before, "queue": before["queue"] + 1, "compute": before["compute"] + 1}
    assert ask(server, "POST", "/predict?model=letters", png())[0] == 200
    assert counts() == {stage: count + 1 for stage, count in middle.items()}


def test_times_are_those_that_were_spent(slow: Any) -> None:
    before = Numbers(slow)
    started = time.perf_counter()
    assert infer(slow) == 200
    spent = time.perf_counter() - started
    after = Numbers(slow)

    def more(name: str, **labels: str) -> float:
        return after(name, **labels) - before(name, **labels)

    compute = more("lockstep_stage_seconds_sum", stage="compute")
    whole = more("lockstep_http_request_seconds_sum", path="/v2/models/{model}/infer")
    assert 0.002 < compute < whole < spent


def test_loads_are_counted(server: Any) -> None:
    numbers = Numbers(server)
    name = "lockstep_model_loads_total"
    assert numbers(name, model="letters", version="1", outcome="loaded") == 1
    assert numbers(name, model="broken", version="1", outcome="refused") == 1
    assert not numbers.find(name, model="broken", outcome="loaded")


def test_the_queue_shows_what_waits_and_what_was_refused(slow: Any) -> None:
    """Twelve images fill the queue; a batch takes four of them."""
    before = Numbers(slow)
    with ThreadPoolExecutor(40) as pool:
        waiting = [pool.submit(infer, slow) for _ in range(40)]
        wait_until(lambda: Numbers(slow)("lockstep_queue_images", model="letters") >= 5)
        statuses = [item.result() for item in waiting]
    wait_until(lambda: Numbers(slow)("lockstep_queue_images") == 0)
    after = Numbers(slow)
    assert set(statuses) == {200, 429}
    assert statuses.count(200) >= 12

    def more(name: str, **labels: str) -> float:
        return after(name, **labels) - before(name, **labels)

    requests = "lockstep_model_requests_total"
    assert more(requests, outcome="ok") == statuses.count(200)
    assert more(requests, outcome="refused") == statuses.count(429)
    assert more("lockstep_batch_images_sum") == statuses.count(200)
    calls = more("lockstep_batch_images_count")
    assert statuses.count(200) / 4 <= calls < statuses.count(200)
    assert more("lockstep_batch_images_bucket", le="4.0") == calls
    assert more("lockstep_batch_images_bucket", le="2.0") < calls, "some were computed together"
    assert after("lockstep_held_bytes") == 0


def test_who_expires_or_gives_up_is_counted_so(slow: Any) -> None:
    """Neither is computed, if it had to wait."""
    before = Numbers(slow)
    host, port = slow.address.split(":")
    with ThreadPoolExecutor(8) as pool:
        others = [pool.submit(infer, slow, np.repeat(GREY, 8, axis=0))]
        wait_until(lambda: Numbers(slow)("lockstep_queue_images") >= 8)
        assert infer(slow, timeout=1000) == 504
        impatient = http.client.HTTPConnection(host, int(port), timeout=30)
        impatient.request("POST", "/predict", png())
        wait_until(lambda: Numbers(slow)("lockstep_queue_images") >= 9)
        impatient.close()
        requests = "lockstep_model_requests_total"

        def more(outcome: str) -> float:
            return Numbers(slow)(requests, outcome=outcome) - before(requests, outcome=outcome)

        wait_until(lambda: more("gave up") == 1)
        assert more("expired") == 1
        assert [item.result() for item in others] == [200]
    images = "lockstep_images_total"
    assert Numbers(slow)(images) - before(images) == 8


def test_connections_are_counted(server: Any) -> None:
    open_ones = [http.client.HTTPConnection(server.address, timeout=30) for _ in range(5)]
    for connection in open_ones:
        connection.request("GET", "/v2")
        connection.getresponse().read()
    wait_until(lambda: Numbers(server)("lockstep_connections") >= 5)
    for connection in open_ones:
        connection.close()
    wait_until(lambda: Numbers(server)("lockstep_connections") <= 1)


def test_the_start_is_told(server: Any) -> None:
    (started,) = Numbers(server).find("lockstep_start_time_seconds")
    assert 0 < time.time() - started.value < 300


def test_statistics_of_the_protocol(server: Any) -> None:
    path = "/v2/models/letters/versions/1"
    (before,) = statistics(server, path)
    assert infer(server, np.repeat(GREY, 3, axis=0), path=path) == 200
    assert infer(server, path=path) == 200
    assert ask(server, "POST", "/predict?model=letters&version=1", png())[0] == 200
    assert infer(server, GREY[:, :7], path=path) == 400
    (after,) = statistics(server, path)
    assert (after["name"], after["version"]) == ("letters", "1")
    assert after["inference_count"] - before["inference_count"] == 5
    assert after["execution_count"] - before["execution_count"] == 3
    assert abs(after["last_inference"] / 1000 - time.time()) < 60
    for stage, count in {"success": 3, "fail": 1, "queue": 3, "compute_infer": 3}.items():
        one, two = before["inference_stats"][stage], after["inference_stats"][stage]
        assert two["count"] - one["count"] == count, stage
        assert two["ns"] > one["ns"], stage

    def calls(document: dict[str, Any], size: int) -> int:
        return sum(
            int(batch["compute_infer"]["count"])
            for batch in document["batch_stats"]
            if batch["batch_size"] == size
        )

    assert calls(after, 1) - calls(before, 1) == 2
    assert calls(after, 3) - calls(before, 3) == 1


def test_statistics_of_all_models(server: Any) -> None:
    every = [(item["name"], item["version"]) for item in statistics(server, "/v2/models")]
    assert every == [("letters", "1"), ("letters", "2")]
    versions = [item["version"] for item in statistics(server)]
    assert versions == ["1", "2"]
    assert ask(server, "GET", "/v2/models/none/stats")[0] == 404
    assert ask(server, "GET", "/v2/models/letters/versions/9/stats")[0] == 404


def test_a_version_that_goes_leaves_its_counts_and_no_queue(
    start: StartServer, make_bundle: WriteBundle, tmp_path: Path
) -> None:
    """It goes while a request of it waits; its gauge must not stand still at that."""
    make_bundle(tmp_path / "letters" / "1" / "model.onnx", work=50)
    server = start(tmp_path, *QUICK, "--poll", "0")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(infer, server, np.repeat(GREY, 24, axis=0))
        wait_until(lambda: Numbers(server)("lockstep_queue_images", version="1") == 24)
        make_bundle(tmp_path / "letters" / "2" / "model.onnx")
        assert ask(server, "POST", "/v2/repository/models/letters/load", b"")[0] == 200
        assert infer(server, path="/v2/models/letters/versions/2") == 200
        assert waiting.result() == 200
    wait_until(lambda: Numbers(server)("lockstep_queue_images", version="1") == 0, 10)
    assert Numbers(server)("lockstep_model_requests_total", version="1", outcome="ok") == 1
    assert server.stop() == 0


def test_who_is_refused_by_predict_is_counted_for_the_model(slow: Any) -> None:
    before = Numbers(slow)
    with ThreadPoolExecutor(2) as pool:
        filling = pool.submit(infer, slow, np.repeat(GREY, 12, axis=0))
        wait_until(lambda: Numbers(slow)("lockstep_queue_images") >= 12)
        assert ask(slow, "POST", "/predict", png())[0] == 429
        assert filling.result() == 200
    requests = "lockstep_model_requests_total"
    after = Numbers(slow)
    assert after(requests, outcome="refused") - before(requests, outcome="refused") == 1
