"""A multi-label model on the server: what people, programs and the protocol get of it."""

import json
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import jsonschema_rs
import numpy as np
import pytest
import tritonclient.http as triton
from numpy.typing import NDArray

from serve.classifier import Classifier
from serve.images import encode_png, read_image

NAMES = tuple("abcdefghij")
THRESHOLDS = (0.5, 0.2, 0.9, 0.5, 0.0, 1.0, 0.35, 0.5, 0.5, 0.5)
SHAPE = (8, 8, 1)

WriteBundle = Callable[..., Path]
Start = Callable[..., Any]


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory, make_bundle: WriteBundle) -> Path:
    """A multi-label bundle; read-only."""
    return make_bundle(tmp_path_factory.mktemp("several") / "several.onnx", thresholds=THRESHOLDS)


@pytest.fixture(scope="module")
def classifier(several: Path) -> Classifier:
    return Classifier(several, threads=1)


@pytest.fixture(scope="module")
def server(start: Start, several: Path) -> Any:
    return start(several)


def get(server: Any, path: str) -> Any:
    connection = HTTPConnection(server.address, timeout=30)
    try:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def predicted(server: Any, image: bytes, query: str = "") -> dict[str, Any]:
    connection = HTTPConnection(server.address, timeout=30)
    try:
        connection.request("POST", f"/predict{query}", image)
        response = connection.getresponse()
        answer = json.loads(response.read())
        assert response.status == 200, answer
        (result,) = answer["results"]
        validator(server, "Prediction").validate(answer)
        return dict(result)
    finally:
        connection.close()


def validator(server: Any, name: str) -> Any:
    """Holds JSON to what the server says of it."""
    described = get(server, "/openapi.json")
    schema = {**described, "$ref": f"#/components/schemas/{name}"}
    return jsonschema_rs.Draft202012Validator(schema)


def images(count: int) -> list[bytes]:
    random = np.random.default_rng(count)
    return [encode_png(random.integers(0, 256, (8, 8), dtype=np.uint8)) for _ in range(count)]


def expected(classifier: Classifier, image: bytes) -> NDArray[np.float32]:
    pixels = read_image(image, classifier.document.image)
    probabilities: NDArray[np.float32] = classifier.predict(pixels[None])[0]
    return probabilities


def test_predict_gives_every_label_that_reaches_its_threshold(
    server: Any, classifier: Classifier
) -> None:
    sizes = set()
    for image in images(20):
        result = predicted(server, image)
        wanted = expected(classifier, image)
        order = [int(index) for index in np.argsort(-wanted, kind="stable")]
        given = [index for index in order if wanted[index] >= np.float32(THRESHOLDS[index])]
        for found, indices in ((result["labels"], given), (result["top"], order[:5])):
            assert [item["label"] for item in found] == [NAMES[index] for index in indices]
            assert [item["threshold"] for item in found] == [THRESHOLDS[i] for i in indices]
            np.testing.assert_allclose(
                [item["probability"] for item in found], wanted[indices], atol=1e-6
            )
        assert set(result) == {"name", "labels", "top"}
        sizes.add(len(given))
    assert len(sizes) > 2, "all images have as many labels"


def test_an_image_may_have_no_label(start: Start, several: Path) -> None:
    server = start(several, "--threshold", "1")
    result = predicted(server, images(1)[0], "?top=2")
    assert result["labels"] == []
    assert len(result["top"]) == 2


def test_a_form_has_errors_beside_answers(server: Any) -> None:
    named = '--b\r\nContent-Disposition: form-data; name="i"; filename="{}"\r\n\r\n'
    parts = [
        named.format(name).encode() + content + b"\r\n"
        for name, content in (("notes.txt", b"no image"), ("a.png", images(1)[0]))
    ]
    connection = HTTPConnection(server.address, timeout=30)
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    connection.request("POST", "/predict", b"".join([*parts, b"--b--\r\n"]), kind)
    response = connection.getresponse()
    broken, read = json.loads(response.read())["results"]
    connection.close()
    assert response.status == 200
    assert set(broken) == {"name", "error"}
    assert "labels" in read


def test_the_protocol_gives_the_probabilities_as_they_are(
    server: Any, classifier: Classifier
) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (9, *SHAPE), dtype=np.uint8)
    tensor = triton.InferInput("image", list(pixels.shape), "UINT8").set_data_from_numpy(pixels)
    with triton.InferenceServerClient(server.address) as client:
        got = client.infer("several", [tensor]).as_numpy("probabilities")
        best = triton.InferRequestedOutput("probabilities", class_count=3)
        ranked = client.infer("several", [tensor], outputs=[best]).as_numpy("probabilities")
        config = client.get_model_config("several")
    wanted = classifier.predict(pixels)
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    assert (np.abs(got.sum(axis=1) - 1) > 0.1).any(), "it might as well be a softmax"
    for row, answer in zip(ranked, wanted, strict=True):
        indices = [int(text.split(b":")[1]) for text in row]
        assert indices == [int(index) for index in np.argsort(-answer, kind="stable")[:3]]
    assert config["parameters"]["task"] == {"string_value": "multi-label"}
    thresholds = config["parameters"]["thresholds"]["string_value"]
    assert tuple(map(float, thresholds.split(","))) == THRESHOLDS


def test_what_the_model_says_of_itself_is_described(server: Any) -> None:
    models = get(server, "/models")
    validator(server, "Models").validate(models)
    (model,) = models["models"]
    assert model["document"]["task"] == "multi-label"
    assert tuple(model["document"]["thresholds"]) == THRESHOLDS
    validator(server, "ModelConfig").validate(get(server, "/v2/models/several/config"))


def test_thresholds_can_be_set_for_the_server(start: Start, several: Path) -> None:
    server = start(several, "--threshold", "0.25")
    (model,) = get(server, "/models")["models"]
    assert model["document"]["thresholds"] == [0.25] * 10
    assert model["document"]["metrics"] == {"examples": 359}, "figures at other thresholds"
    for image in images(5):
        assert all(item["probability"] >= 0.25 for item in predicted(server, image)["labels"])


def test_a_model_from_elsewhere_is_served_by_its_description(
    start: Start, tmp_path: Path, make_bundle: WriteBundle, classifier: Classifier
) -> None:
    path = make_bundle(tmp_path / "elsewhere.onnx", thresholds=THRESHOLDS, described=False)
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(NAMES))
    said = ("--labels", labels, "--outputs", "sigmoid")
    server = start(path, *said, "--threshold", ",".join(map(str, THRESHOLDS)))
    image = images(1)[0]
    np.testing.assert_allclose(
        [item["probability"] for item in predicted(server, image, "?top=10")["top"]],
        np.sort(expected(classifier, image))[::-1],
        atol=1e-6,
    )
    unsaid = start(path, *said[:2], wait=False)
    assert unsaid.process.wait(60) == 2
    unsaid.stop()
    assert any("--outputs sigmoid if each label" in line for line in unsaid.lines)


def test_a_threshold_for_a_model_of_one_choice_is_refused(start: Start, bundle: Path) -> None:
    server = start(bundle, "--threshold", "0.5", wait=False)
    assert server.process.wait(60) == 2
    server.stop()
    assert any("--threshold: expected a multi-label model" in line for line in server.lines)


def test_a_multi_label_model_without_probabilities_is_not_served(
    start: Start, tmp_path: Path, make_bundle: WriteBundle
) -> None:
    """Logits, for instance: the graph lost its sigmoid."""
    from onnx import load_model_from_string

    from serve.bundle import bundle_document, seal

    path = make_bundle(tmp_path / "logits.onnx", thresholds=THRESHOLDS)
    document = bundle_document(path.read_bytes()).to_json()
    model = load_model_from_string(path.read_bytes())
    model.graph.node[-1].op_type = "Identity"
    path.write_bytes(seal(model.SerializeToString(), document))
    server = start(path, wait=False)
    assert server.process.wait(60) == 2
    server.stop()
    assert any("expected probabilities between 0 and 1" in line for line in server.lines)
