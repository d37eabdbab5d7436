"""The Open Inference Protocol v2, as the unmodified client of Triton Inference Server speaks it.

What the client cannot be made to send, or does not look at, goes over plain HTTP.
"""

import asyncio
import base64
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from numpy.typing import NDArray
from PIL import Image
from tritonclient.utils import InferenceServerException

import serve
from serve.classifier import Classifier
from serve.images import encode_png, read_image

CLOSE = 1e-6
SHAPE = (8, 8, 1)
LETTERS = tuple("abcdefghij")
ODD_NAME = "größe 1, 50%"

Pixels = NDArray[np.uint8]
Probabilities = NDArray[np.float32]
WriteBundle = Callable[..., Path]


# Servers and clients


@pytest.fixture(scope="module")
def classifier(bundle: Path) -> Classifier:
    return Classifier(bundle, threads=1)


@pytest.fixture(scope="module")
def client(server: Any) -> Iterator[Any]:
    with triton.InferenceServerClient(server.address, concurrency=16) as client:
        yield client


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_bundle: WriteBundle) -> Path:
    """Two models, one of them with two versions, and one that is broken."""
    folder = tmp_path_factory.mktemp("models")
    for version in (1, 12):
        make_bundle(folder / "letters" / str(version) / "model.onnx", seed=version)
    names = ("Käfer", "bee: a: fly", "")
    make_bundle(folder / "insects" / "3" / "model.onnx", shape=(5, 7, 3), names=names)
    broken = folder / "broken" / "1" / "model.onnx"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"half a model")
    return folder


@pytest.fixture(scope="module")
def many(start: Callable[..., Any], folder: Path, bundle: Path) -> Any:
    """A server of everything in `folder`, and of a model with a name that is hard to write."""
    return start(folder, f"{ODD_NAME}={bundle}", "--versions", "all", "--poll", "0")


@pytest.fixture
def many_client(many: Any) -> Iterator[Any]:
    with triton.InferenceServerClient(many.address) as client:
        yield client


def pixels(count: int, shape: tuple[int, int, int] = SHAPE, *, seed: int = 0) -> Pixels:
    return np.random.default_rng((seed, count)).integers(0, 256, (count, *shape), np.uint8)


def image_input(images: Pixels, *, binary: bool = True) -> Any:
    tensor = triton.InferInput("image", list(images.shape), "UINT8")
    return tensor.set_data_from_numpy(images, binary_data=binary)


def encoded_input(images: list[bytes], *, binary: bool = True, column: bool = False) -> Any:
    """Encoded images as BYTES; in JSON as base64."""
    items = images if binary else [base64.b64encode(item) for item in images]
    array = np.array(items, np.object_).reshape((-1, 1) if column else (-1,))
    tensor = triton.InferInput("image", list(array.shape), "BYTES")
    return tensor.set_data_from_numpy(array, binary_data=binary)


def wanted(*, binary: bool = True, classes: int = 0) -> list[Any]:
    return [triton.InferRequestedOutput("probabilities", binary_data=binary, class_count=classes)]


def infer(client: Any, tensor: Any, model: str = "letters", **options: Any) -> Probabilities:
    found: Probabilities = client.infer(model, [tensor], **options).as_numpy("probabilities")
    return found


def refusal(call: Callable[..., Any], *arguments: Any, **options: Any) -> tuple[str, str]:
    """Status and message of what a call raises."""
    with pytest.raises(InferenceServerException) as caught:
        call(*arguments, **options)
    return caught.value.status(), caught.value.message()


def request(
    server: Any,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers by lower-case name, and body."""
    connection = HTTPConnection(server.address, timeout=30)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        names = {name.lower(): value for name, value in response.getheaders()}
        return response.status, names, response.read()
    finally:
        connection.close()


def assert_close(found: Any, expected: Probabilities) -> None:
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=CLOSE)


# Health and metadata


def test_server_and_model_are_alive_and_ready(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("letters")
    assert client.is_model_ready("letters", "1")
    assert not client.is_model_ready("letters", "2")
    assert not client.is_model_ready("numbers")
    assert not client.is_model_ready("../letters")


def test_the_server_says_who_it_is(client: Any) -> None:
    found = client.get_server_metadata()
    assert (found["name"], found["version"]) == ("lockstep", serve.__version__)
    assert {"binary_tensor_data", "classification", "model_repository", "statistics",
            "model_configuration", "schedule_policy"} <= set(found["extensions"])  # fmt: skip
    assert set(found) == {"name", "version", "extensions"}


@pytest.mark.parametrize("version", ["", "1"])
def test_a_model_says_what_it_takes_and_gives(client: Any, version: str) -> None:
    assert client.get_model_metadata("letters", version) == {
        "name": "letters",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, 8, 8, 1]}],
        "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]}],
    }


@pytest.mark.parametrize("version", ["", "1"])
def test_a_model_has_a_configuration(client: Any, version: str) -> None:
    found = client.get_model_config("letters", version)
    assert found["name"] == "letters"
    assert found["backend"] == "onnxruntime"
    assert found["max_batch_size"] == 1024
    (taken,), (given,) = found["input"], found["output"]
    assert (taken["name"], taken["data_type"], taken["dims"]) == ("image", "TYPE_UINT8", [8, 8, 1])
    assert (given["name"], given["data_type"], given["dims"]) == (
        "probabilities", "TYPE_FP32", [10]
    )  # fmt: skip
    batching = found["dynamic_batching"]
    assert 1 <= batching["default_priority_level"] <= batching["priority_levels"]
    assert batching["default_queue_policy"]["default_timeout_microseconds"] == 30_000_000
    assert found["instance_group"][0]["count"] >= 1


def test_what_the_server_does_not_have_is_said_in_words(client: Any) -> None:
    for call in (client.get_model_metadata, client.get_model_config,
                 client.get_inference_statistics):  # fmt: skip
        status, text = refusal(call, "numbers")
        assert status == "404"
        assert "unknown model 'numbers'; served are: letters" in text
        status, text = refusal(call, "letters", "7")
        assert status == "404"
        assert "unknown version '7' of model letters; served are: 1" in text
    for extension in ("trace_settings", "log_settings", "system_shared_memory_status",
                      "cuda_shared_memory_status"):  # fmt: skip
        status, text = refusal(getattr(client, f"get_{extension}"))
        assert status == "404"
        assert "no such path" in text


# Inference


@pytest.mark.parametrize("count", [1, 7, 64])
def test_answers_are_those_of_the_classifier_in_every_form(
    client: Any, classifier: Classifier, count: int
) -> None:
    images = pixels(count)
    expected = classifier.predict(images)
    answers = [
        infer(client, image_input(images, binary=given), outputs=wanted(binary=taken))
        for given in (True, False)
        for taken in (True, False)
    ]
    answers.append(infer(client, image_input(images)))
    answers.append(infer(client, image_input(images), model_version="1"))
    for found in answers:
        assert_close(found, expected)
        assert found.tobytes() == answers[0].tobytes()


def test_colours_and_heights_are_not_mixed_up(many_client: Any, folder: Path) -> None:
    classifier = Classifier(folder / "insects" / "3" / "model.onnx")
    images = pixels(9, (5, 7, 3))
    for binary in (True, False):
        found = infer(many_client, image_input(images, binary=binary), "insects")
        assert_close(found, classifier.predict(images))


def test_without_outputs_the_client_gets_all_in_binary_form(client: Any) -> None:
    result = client.infer("letters", [image_input(pixels(3))])
    (output,) = result.get_response()["outputs"]
    assert output == {
        "name": "probabilities",
        "datatype": "FP32",
        "shape": [3, 10],
        "parameters": {"binary_data_size": 120},
    }
    assert result.get_output("probabilities") == output
    assert result.get_output("logits") is None


def test_an_answer_names_its_request_and_model(client: Any) -> None:
    for request_id in ("", "1", 'Ä ✓ " \\ /', "x" * 5000):
        result = client.infer("letters", [image_input(pixels(1))], request_id=request_id)
        found = result.get_response()
        assert (found["model_name"], found["model_version"]) == ("letters", "1")
        assert found.get("id", "") == request_id


@pytest.mark.parametrize("outputs", [["logits"], ["probabilities", "logits"],
                                     ["probabilities", "probabilities"]])  # fmt: skip
def test_outputs_that_are_not_there_are_refused(client: Any, outputs: list[str]) -> None:
    asked = [triton.InferRequestedOutput(name) for name in outputs]
    status, text = refusal(client.infer, "letters", [image_input(pixels(1))], outputs=asked)
    assert status == "400"
    assert "expected one output, 'probabilities'" in text


def test_inputs_that_are_not_there_are_refused(client: Any) -> None:
    other = triton.InferInput("pixels", [1, *SHAPE], "UINT8").set_data_from_numpy(pixels(1))
    floats = triton.InferInput("image", [1, *SHAPE], "FP32")
    floats.set_data_from_numpy(pixels(1).astype(np.float32))
    for tensors, expected in (
        ([other], "expected one input, 'image'"),
        ([image_input(pixels(1)), other], "expected one input, 'image'"),
        ([image_input(pixels(1))] * 2, "expected one input, 'image'"),
        ([floats], "expected datatype UINT8 (pixels) or BYTES (encoded images), got 'FP32'"),
        ([image_input(pixels(1, (8, 8, 3)))], "expected UINT8 of shape [batch, 8, 8, 1]"),
        ([image_input(pixels(1)[0])], "expected UINT8 of shape [batch, 8, 8, 1]"),
        ([image_input(pixels(0))], "expected 1 to 1024 images"),
        ([image_input(pixels(1025))], "expected 1 to 1024 images"),
    ):
        status, text = refusal(client.infer, "letters", tensors)
        assert status == "400"
        assert expected in text
    shared = triton.InferInput("image", [1, *SHAPE], "UINT8").set_shared_memory("region", 64)
    assert refusal(client.infer, "letters", [shared])[0] == "400"
    output = triton.InferRequestedOutput("probabilities")
    output.set_shared_memory("region", 40)
    status, text = refusal(client.infer, "letters", [image_input(pixels(1))], outputs=[output])
    assert status == "400"
    assert "shared memory" in text


def test_priority_timeout_and_foreign_parameters_change_no_answer(
    client: Any, classifier: Classifier
) -> None:
    images = pixels(2)
    options: tuple[dict[str, Any], ...] = (
        {"priority": 1},
        {"priority": 9},
        {"timeout": 5_000_000},
        {"parameters": {"team": "blue", "share": 0.5, "urgent": True}},
        {"sequence_id": 5, "sequence_start": True},
        {"headers": {"X-Request": "1"}, "query_params": {"test": 1}},
    )
    for chosen in options:
        assert_close(infer(client, image_input(images), **chosen), classifier.predict(images))
    for wrong, expected in (
        ({"priority": 10}, "priority: expected 1 (first) to 9"),
        ({"timeout": -1}, "timeout: expected microseconds"),
        ({"timeout": 0.5}, "timeout: expected microseconds"),
    ):
        status, text = refusal(client.infer, "letters", [image_input(images)], **wrong)
        assert status == "400"
        assert expected in text


def test_a_request_is_over_when_its_timeout_is(
    start: Callable[..., Any], make_bundle: WriteBundle, tmp_path: Path
) -> None:
    slow = start(make_bundle(tmp_path / "slow.onnx", work=60), "--batching", "off")
    with triton.InferenceServerClient(slow.address) as client:
        for tensor in (image_input(pixels(1)), encoded_input([encode_png(pixels(1)[0])])):
            status, text = refusal(client.infer, "slow", [tensor], timeout=2000)
            assert status == "504"
            assert "time was over" in text
            assert infer(client, tensor, "slow", timeout=30_000_000).shape == (1, 10)
    slow.stop()


# Encoded images


def photo(form: str, *, seed: int = 0, size: tuple[int, int] = (37, 23)) -> bytes:
    generator = np.random.default_rng(seed)
    smooth = Image.fromarray(generator.integers(0, 256, (4, 5, 3), np.uint8)).resize(size)
    buffer = io.BytesIO()
    smooth.save(buffer, form)
    return buffer.getvalue()


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("column", [True, False])
def test_encoded_images_are_read_as_the_reader_reads_them(
    client: Any, classifier: Classifier, binary: bool, column: bool
) -> None:
    forms = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
    images = [photo(form, seed=number) for number, form in enumerate(forms)]
    read = np.stack([read_image(image, classifier.document.image) for image in images])
    found = infer(client, encoded_input(images, binary=binary, column=column))
    assert_close(found, classifier.predict(read))
    assert len({row.tobytes() for row in found}) == len(forms)


@pytest.mark.parametrize("count", [1, 7, 64])
def test_encoded_pixels_and_plain_pixels_have_the_same_answers(client: Any, count: int) -> None:
    images = pixels(count)
    encoded = [encode_png(image) for image in images]
    expected = infer(client, image_input(images))
    for binary in (True, False):
        found = infer(client, encoded_input(encoded, binary=binary))
        assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("binary", [True, False])
def test_one_unreadable_image_is_named(client: Any, binary: bool) -> None:
    good = photo("PNG")
    status, text = refusal(
        client.infer, "letters", [encoded_input([good, b"words", good], binary=binary)]
    )
    assert (status, text[:23]) == ("422", "image 1: not an image: ")
    status, text = refusal(client.infer, "letters", [encoded_input([good[:90]], binary=binary)])
    assert status == "422"
    assert text.startswith("corrupt image")
    status, text = refusal(client.infer, "letters", [encoded_input([b""], binary=binary)])
    assert (status, text) == ("422", "empty: 0 bytes")


# Classification


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("classes", [1, 3, 10, 1000])
def test_classes_are_those_of_the_probabilities(
    client: Any, classifier: Classifier, binary: bool, classes: int
) -> None:
    images = pixels(7)
    asked = wanted(binary=binary, classes=classes)
    found = infer(client, image_input(images), outputs=asked)
    probabilities = infer(client, image_input(images))
    expected = classifier.predict(images)
    most = min(classes, 10)
    assert found.shape == (7, most)
    for row, exact, near in zip(found, probabilities, expected, strict=True):
        texts = [item.decode() if isinstance(item, bytes) else item for item in row]
        parts = [text.split(":", 2) for text in texts]
        indices = [int(index) for _, index, _ in parts]
        assert indices == np.argsort(-near, kind="stable")[:most].tolist()
        assert [label for *_, label in parts] == [LETTERS[index] for index in indices]
        values = np.array([value for value, _, _ in parts], np.float32)
        assert values.tobytes() == exact[indices].tobytes()


@pytest.mark.parametrize("binary", [True, False])
def test_labels_may_hold_anything(many_client: Any, binary: bool) -> None:
    images = pixels(1, (5, 7, 3))
    found = infer(
        many_client, image_input(images), "insects", outputs=wanted(binary=binary, classes=3)
    )
    texts = [item.decode() if isinstance(item, bytes) else item for item in found[0]]
    labels = {text.split(":", 2)[2] for text in texts}
    assert labels == {"Käfer", "bee: a: fly", ""}


# Compression


@pytest.mark.parametrize("sent", [None, "gzip", "deflate"])
@pytest.mark.parametrize("taken", [None, "gzip", "deflate"])
def test_bodies_may_be_packed_both_ways(
    client: Any, classifier: Classifier, sent: str | None, taken: str | None
) -> None:
    for count in (1, 64):  # an answer too short to be packed, and one that is worth it
        images = pixels(count)
        for binary in (True, False):
            found = infer(
                client,
                image_input(images, binary=binary),
                outputs=wanted(binary=binary),
                request_compression_algorithm=sent,
                response_compression_algorithm=taken,
            )
            assert_close(found, classifier.predict(images))


def test_a_packed_answer_is_smaller(server: Any) -> None:
    body, length = request_body(pixels(64), binary_output=False)
    headers = {"Inference-Header-Content-Length": str(length)}
    _, plain_headers, plain = request(server, "POST", "/v2/models/letters/infer", body, headers)
    headers["Accept-Encoding"] = "gzip"
    _, packed_headers, packed = request(server, "POST", "/v2/models/letters/infer", body, headers)
    assert "content-encoding" not in plain_headers
    assert packed_headers["content-encoding"] == "gzip"
    assert packed_headers["vary"] == "Accept-Encoding"
    assert len(packed) < len(plain)
    assert json.loads(gzip.decompress(packed))["outputs"] == json.loads(plain)["outputs"]


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_the_length_of_the_json_part_is_that_before_packing(
    server: Any, classifier: Classifier, pack: Callable[[bytes], bytes]
) -> None:
    images = pixels(64)
    body, length = request_body(images)
    packed = pack(body)
    assert length > 0
    status, _, answer = request(
        server,
        "POST",
        "/v2/models/letters/infer",
        packed,
        {
            "Inference-Header-Content-Length": str(length),
            "Content-Encoding": "gzip" if pack is gzip.compress else "deflate",
        },
    )
    assert status == 200
    data = np.array(json.loads(answer)["outputs"][0]["data"], np.float32)
    assert_close(data.reshape(64, 10), classifier.predict(images))


# Many at once


def test_many_asynchronous_requests_get_their_own_answers(
    client: Any, classifier: Classifier
) -> None:
    batches = [pixels(1 + number % 9, seed=number) for number in range(150)]
    pending = [
        client.async_infer(
            "letters",
            [image_input(images, binary=bool(number % 2))],
            request_id=str(number),
            outputs=wanted(binary=number % 3 > 0),
            priority=1 + number % 9,
        )
        for number, images in enumerate(batches)
    ]
    for number, (images, item) in enumerate(zip(batches, pending, strict=True)):
        result = item.get_result(timeout=60)
        assert result.get_response()["id"] == str(number)
        assert_close(result.as_numpy("probabilities"), classifier.predict(images))


def test_clients_in_several_threads_get_their_own_answers(
    server: Any, classifier: Classifier
) -> None:
    def ask(seed: int) -> None:
        with triton.InferenceServerClient(server.address) as client:
            for count in (1, 7, 64) * 5:
                images = pixels(count, seed=seed)
                assert_close(infer(client, image_input(images)), classifier.predict(images))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(4)))


def test_an_error_costs_the_requests_beside_it_nothing(client: Any, classifier: Classifier) -> None:
    images, good = pixels(3), photo("JPEG")
    pending = []
    for number in range(60):
        tensor = (image_input(images), encoded_input([good, b"no image"]), encoded_input([good]))
        pending.append((number % 3, client.async_infer("letters", [tensor[number % 3]])))
    read = read_image(good, classifier.document.image)
    for kind, item in pending:
        if kind == 1:
            assert refusal(item.get_result, timeout=60)[0] == "422"
        else:
            expected = classifier.predict(images if kind == 0 else read[None])
            assert_close(item.get_result(timeout=60).as_numpy("probabilities"), expected)


# The asyncio client


def test_the_asyncio_client_infers(server: Any, classifier: Classifier) -> None:
    batches = [pixels(1 + number % 64, seed=number) for number in range(60)]

    async def ask() -> list[Any]:
        async with triton_aio.InferenceServerClient(server.address, conn_limit=16) as client:
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready("letters", "1")
            assert not await client.is_model_ready("numbers")
            assert (await client.get_server_metadata())["name"] == "lockstep"
            assert (await client.get_model_metadata("letters"))["versions"] == ["1"]
            return await asyncio.gather(
                *(
                    client.infer(
                        "letters",
                        [image_input(images, binary=bool(number % 2))],
                        outputs=wanted(binary=number % 3 > 0),
                        response_compression_algorithm=(None, "gzip")[number % 2],
                    )
                    for number, images in enumerate(batches)
                )
            )

    for images, result in zip(batches, asyncio.run(ask()), strict=True):
        assert_close(result.as_numpy("probabilities"), classifier.predict(images))


@pytest.mark.parametrize("packing", ["gzip", "deflate"])
def test_many_packed_requests_are_taken_at_once(
    server: Any, classifier: Classifier, packing: str
) -> None:
    """They hold the memory that they need, and not the most that any could need."""
    images = pixels(7)

    async def ask() -> list[Any]:
        async with triton_aio.InferenceServerClient(server.address) as client:
            return await asyncio.gather(
                *(
                    client.infer(
                        "letters", [image_input(images)], request_compression_algorithm=packing
                    )
                    for _ in range(64)
                )
            )

    for result in asyncio.run(ask()):
        assert_close(result.as_numpy("probabilities"), classifier.predict(images))


def test_the_asyncio_client_looks_after_models(many: Any) -> None:
    """It offers to take packed answers whether it wants to or not, and unpacks only inferences."""

    async def ask() -> None:
        async with triton_aio.InferenceServerClient(many.address) as client:
            assert (await client.get_model_config("letters"))["name"] == "letters"
            assert len(await client.get_model_repository_index()) == 5
            for count in (1, 2, 3, 5, 8, 13, 21, 31):  # so that there is much to say
                await client.infer("letters", [image_input(pixels(count))])
            stats = await client.get_inference_statistics()
            assert len(stats["model_stats"]) == 4
            assert len(json.dumps(stats)) > 2000
            await client.unload_model("insects")
            assert not await client.is_model_ready("insects")
            await client.load_model("insects")
            assert await client.is_model_ready("insects")
            with pytest.raises(InferenceServerException, match="unknown model"):
                await client.get_model_metadata("numbers" * 300)

    asyncio.run(ask())


# Models and versions


def test_versions_are_asked_by_number(many_client: Any, folder: Path) -> None:
    images = pixels(3)
    answers = {}
    for version in ("1", "12"):
        classifier = Classifier(folder / "letters" / version / "model.onnx")
        answers[version] = classifier.predict(images)
        result = many_client.infer("letters", [image_input(images)], model_version=version)
        assert result.get_response()["model_version"] == version
        assert_close(result.as_numpy("probabilities"), answers[version])
        assert many_client.is_model_ready("letters", version)
    newest = many_client.infer("letters", [image_input(images)])
    assert newest.get_response()["model_version"] == "12"  # and not "2" or "1": they are numbers
    assert np.abs(answers["1"] - answers["12"]).max() > 0.01
    for version in ("2", "0", "01", "-1", "1.0", "latest"):
        status, text = refusal(
            many_client.infer, "letters", [image_input(images)], model_version=version
        )
        assert status == "404"
        assert "served are: 1, 12" in text
    assert many_client.get_model_metadata("letters")["versions"] == ["1", "12"]
    assert many_client.get_model_metadata("insects")["versions"] == ["3"]


def test_a_name_may_need_quotation(many_client: Any, classifier: Classifier) -> None:
    images = pixels(2)
    assert many_client.is_model_ready(ODD_NAME)
    assert many_client.get_model_metadata(ODD_NAME, "1")["name"] == ODD_NAME
    result = many_client.infer(ODD_NAME, [image_input(images)])
    assert result.get_response()["model_name"] == ODD_NAME
    assert_close(result.as_numpy("probabilities"), classifier.predict(images))


def test_the_index_lists_what_is_served_and_what_is_not(many: Any, many_client: Any) -> None:
    entries = {(item["name"], item["version"]): item for item in
               many_client.get_model_repository_index()}  # fmt: skip
    assert set(entries) == {
        ("letters", "1"), ("letters", "12"), ("insects", "3"), ("broken", "1"), (ODD_NAME, "1")
    }  # fmt: skip
    broken = entries.pop(("broken", "1"))
    assert broken["state"] == "UNAVAILABLE"
    assert "model.onnx" in broken["reason"]
    for item in entries.values():
        assert (item["state"], item["reason"]) == ("READY", "")
    _, _, body = request(many, "POST", "/v2/repository/index", b'{"ready": true}')
    assert {(item["name"], item["version"]) for item in json.loads(body)} == set(entries)


def test_models_are_unloaded_and_loaded(many_client: Any) -> None:
    assert not many_client.is_model_ready("broken")
    many_client.unload_model("letters", unload_dependents=True)
    assert not many_client.is_model_ready("letters")
    assert refusal(many_client.infer, "letters", [image_input(pixels(1))])[0] == "404"
    assert refusal(many_client.unload_model, "letters")[0] == "404"
    states = {
        (item["name"], item["state"], item["reason"])
        for item in many_client.get_model_repository_index()
        if item["name"] == "letters"
    }
    assert states == {("letters", "UNAVAILABLE", "unloaded")}
    assert many_client.is_model_ready("insects")
    many_client.load_model("letters")
    assert many_client.is_model_ready("letters", "12")
    assert infer(many_client, image_input(pixels(1))).shape == (1, 10)
    many_client.load_model("letters")  # a second time changes nothing


def test_models_that_cannot_be_loaded_are_refused(many_client: Any) -> None:
    status, text = refusal(many_client.load_model, "numbers")
    assert status == "404"
    assert "unknown model 'numbers'" in text
    status, text = refusal(many_client.load_model, "broken")
    assert status == "400"
    assert "model.onnx" in text
    for name in ("../letters", "letters/1", "..", "%2e%2e"):
        assert refusal(many_client.load_model, name)[0] == "404"
        assert refusal(many_client.unload_model, name)[0] == "404"
    status, text = refusal(many_client.load_model, "letters", config='{"max_batch_size": 1}')
    assert status == "400"
    assert "no configuration" in text
    assert many_client.is_model_ready("letters")


def test_statistics_count_what_was_asked(many_client: Any) -> None:
    def statistics() -> Any:
        (found,) = many_client.get_inference_statistics("insects")["model_stats"]
        assert (found["name"], found["version"]) == ("insects", "3")
        return found

    before = statistics()
    images = pixels(5, (5, 7, 3))
    for _ in range(4):
        many_client.infer("insects", [image_input(images)])
    many_client.infer("insects", [encoded_input([photo("PNG")])])
    refusal(many_client.infer, "insects", [image_input(pixels(1))])
    after = statistics()
    assert after["inference_count"] - before["inference_count"] == 21
    assert after["execution_count"] - before["execution_count"] == 5
    assert after["last_inference"] > before["last_inference"]
    changes = {
        name: after["inference_stats"][name]["count"] - before["inference_stats"][name]["count"]
        for name in after["inference_stats"]
    }
    assert (changes["success"], changes["fail"]) == (5, 1)
    assert (changes["queue"], changes["compute_infer"]) == (5, 5)
    for name in ("success", "compute_infer"):
        assert after["inference_stats"][name]["ns"] > before["inference_stats"][name]["ns"]
    sizes = {item["batch_size"]: item["compute_infer"]["count"] for item in after["batch_stats"]}
    assert sizes[5] >= 4
    every = many_client.get_inference_statistics()["model_stats"]
    assert {(item["name"], item["version"]) for item in every} == {
        ("letters", "1"), ("letters", "12"), ("insects", "3"), (ODD_NAME, "1")
    }  # fmt: skip
    (one,) = many_client.get_inference_statistics("letters", "12")["model_stats"]
    assert one["version"] == "12"


# On the wire


def request_body(images: Pixels, *, binary_output: bool = False) -> tuple[bytes, int]:
    """A request as the client writes it, and the length of its JSON part."""
    body, length = triton.InferenceServerClient.generate_request_body(
        [image_input(images)], outputs=wanted(binary=binary_output)
    )
    assert length
    return body, length


def test_a_binary_answer_says_where_its_tensors_begin(server: Any, classifier: Classifier) -> None:
    images = pixels(2)
    body, length = request_body(images, binary_output=True)
    status, headers, answer = request(
        server,
        "POST",
        "/v2/models/letters/versions/1/infer",
        body,
        {"inference-header-content-length": str(length)},
    )
    assert status == 200
    assert headers["content-type"] == "application/octet-stream"
    begin = int(headers["inference-header-content-length"])
    assert json.loads(answer[:begin])["outputs"][0]["parameters"] == {
        "binary_data_size": len(answer) - begin
    }
    found = np.frombuffer(answer, "<f4", offset=begin).reshape(2, 10)
    assert_close(found, classifier.predict(images))
    parsed = triton.InferenceServerClient.parse_response_body(answer, header_length=begin)
    assert parsed.as_numpy("probabilities").tobytes() == found.tobytes()


def test_an_answer_in_json_is_plain_json(server: Any) -> None:
    body, length = request_body(pixels(1))
    status, headers, answer = request(
        server,
        "POST",
        "/v2/models/letters/infer",
        body,
        {"Inference-Header-Content-Length": str(length), "Content-Type": "text/plain"},
    )
    assert status == 200
    assert headers["content-type"] == "application/json"
    assert "inference-header-content-length" not in headers
    assert json.loads(answer)["outputs"][0]["shape"] == [1, 10]


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("POST", "/v2/models/letters/infer", b"", 400),
        ("POST", "/v2/models/letters/infer", b"{", 400),
        ("POST", "/v2/models/letters/infer", b"{}", 400),
        ("POST", "/v2/models/numbers/infer", b"{}", 404),
        ("POST", "/v2/models/letters/versions/2/infer", b"{}", 404),
        ("POST", "/v2/models/letters/versions//infer", b"{}", 404),
        ("POST", "/v2/models/..%2fletters/infer", b"{}", 404),
        ("POST", "/v2/models//infer", b"{}", 404),
        ("POST", "/v2/models/%ff/infer", b"{}", 404),
        ("GET", "/v2/models/letters/infer", None, 405),
        ("POST", "/v2/health/live", b"", 405),
        ("DELETE", "/v2/models/letters", None, 405),
        ("GET", "/v2/repository/index", None, 405),
        ("GET", "/v2/", None, 404),
        ("GET", "/v2/models", None, 404),
        ("GET", "/v2/models/letters/metadata", None, 404),
        ("POST", "/v2/repository/index", b"[]", 400),
        ("POST", "/v2/repository/index", b'{"ready": 1}', 400),
        ("POST", "/v2/repository/index", b'{"prepared": true}', 400),
        ("POST", "/v2/repository/models/letters/load", b"[1]", 400),
        ("POST", "/v2/repository/models/letters/load", b'{"parameters": {"config": "{}"}}', 400),
        ("POST", "/v2/repository/models/letters/unload", b'{"parameters": []}', 400),
        ("POST", "/v2/repository/models/letters/unload", b'{"parameters": {"all": true}}', 400),
        ("POST", "/v2/repository/models/numbers/unload", b"", 404),
    ],
)
def test_every_error_is_one_sentence_in_json(
    server: Any, method: str, path: str, body: bytes | None, expected: int
) -> None:
    status, headers, answer = request(server, method, path, body)
    assert status == expected
    assert headers["content-type"] == "application/json"
    document = json.loads(answer)
    assert list(document) == ["error"]
    assert 0 < len(document["error"]) < 600
    assert "Traceback" not in document["error"]
    if status == 405:
        assert headers["allow"]


def test_names_that_are_hard_to_write_do_not_break_errors(server: Any) -> None:
    for name in ("%00", "%0d%0aX-Evil:%201", "%F0%9F%98%80", "%22%5c", "a" * 20_000):
        status, headers, answer = request(server, "GET", f"/v2/models/{name}")
        assert status == 404
        assert "x-evil" not in headers
        assert len(json.loads(answer)["error"]) < 600


def test_health_and_metadata_are_json(server: Any) -> None:
    for path, expected in (
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/letters/ready", {"name": "letters", "ready": True}),
    ):
        status, headers, answer = request(server, "GET", path)
        assert (status, headers["content-type"]) == (200, "application/json")
        assert json.loads(answer) == expected
