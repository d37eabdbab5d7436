"""The classifier: it answers as the trained model does, and refuses what is no sound bundle."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from serve.bundle import METADATA_KEY, BundleError
from serve.classifier import Classifier


@pytest.fixture(scope="module")
def classifier(trained_run: Path) -> Classifier:
    return Classifier(trained_run / "model.onnx", threads=1)


@pytest.fixture
def bundle(trained_run: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, to break."""
    copy = tmp_path / "model.onnx"
    copy.write_bytes((trained_run / "model.onnx").read_bytes())
    return copy


def images(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)


def edit_document(bundle: Path, **changes: Any) -> None:
    """Change fields of the document inside an ONNX file; the graph stays."""
    model = onnx.load(bundle)
    (entry,) = [entry for entry in model.metadata_props if entry.key == METADATA_KEY]
    entry.value = json.dumps({**json.loads(entry.value), **changes})
    onnx.save(model, bundle)


def refusal(path: Path) -> str:
    """Why `path` is no bundle: one line."""
    with pytest.raises(BundleError) as caught:
        Classifier(path)
    reason = str(caught.value)
    assert reason and "\n" not in reason
    return reason


@pytest.mark.parametrize("count", [0, 1, 5, 300])
def test_one_row_of_probabilities_per_image(classifier: Classifier, count: int) -> None:
    probabilities = classifier.predict(images(count))
    assert probabilities.dtype == np.float32
    assert probabilities.shape == (count, 10)
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_the_answers_are_those_of_the_trained_model(
    classifier: Classifier, trained_run: Path
) -> None:
    manifest = json.loads((trained_run / "data" / "manifest.json").read_text("utf-8"))
    pixels = np.load(trained_run / "data" / "images.npy")[manifest["splits"]["test"]]
    expected = np.load(trained_run / "test_probabilities.npy")
    np.testing.assert_allclose(classifier.predict(pixels), expected, atol=1e-5)


def test_the_document_tells_the_classes_and_the_image(classifier: Classifier) -> None:
    assert classifier.document.class_names == tuple("0123456789")
    assert classifier.document.image.shape == (8, 8, 1)


def test_an_answer_does_not_depend_on_its_neighbours(classifier: Classifier) -> None:
    batch = images(9)
    alone = np.concatenate([classifier.predict(image[None]) for image in batch])
    np.testing.assert_allclose(classifier.predict(batch), alone, atol=1e-6)
    assert np.abs(np.diff(alone, axis=0)).max() > 0.01  # different images, different answers


def test_answers_in_threads_equal_single_answers(classifier: Classifier) -> None:
    batches = [images(3, seed) for seed in range(24)]
    expected = [classifier.predict(batch) for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(classifier.predict, batches))
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_the_number_of_threads_does_not_change_the_answer(
    classifier: Classifier, trained_run: Path, threads: int
) -> None:
    other = Classifier(str(trained_run / "model.onnx"), threads=threads)
    np.testing.assert_allclose(other.predict(images(4)), classifier.predict(images(4)), atol=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((1, 8, 8, 1), np.float32),
        np.zeros((1, 8, 8, 1), np.int8),
        np.zeros((8, 8, 1), np.uint8),
        np.zeros((1, 8, 8), np.uint8),
        np.zeros((1, 8, 8, 3), np.uint8),
        np.zeros((1, 9, 8, 1), np.uint8),
        np.zeros((1, 1, 8, 8, 1), np.uint8),
    ],
    ids=lambda wrong: f"{wrong.dtype}-{wrong.shape}",
)
def test_other_arrays_are_refused(classifier: Classifier, wrong: NDArray[np.generic]) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 images of shape \[batch, 8, 8, 1\]") as e:
        classifier.predict(wrong)
    assert f"got {wrong.dtype} of shape {list(wrong.shape)}" in str(e.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    reason = refusal(tmp_path / "model.onnx")
    assert reason == f"{tmp_path / 'model.onnx'}: no such bundle; expected a path to a model.onnx"
    assert "no such bundle" in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"text\n", b"\x89PNG\r\n\x1a\n", b"\0" * 5000])
def test_what_is_not_onnx_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(content)
    assert refusal(file).startswith(f"{file}: onnxruntime cannot open it: ")


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.9, 0.999])
def test_a_truncated_bundle_is_refused(
    share: float, bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = bundle.read_bytes()
    bundle.write_bytes(data[: int(len(data) * share)])
    assert refusal(bundle).startswith(f"{bundle}: onnxruntime cannot open it: ")
    assert capfd.readouterr().out == ""


def replace_once(bundle: Path, old: bytes) -> None:
    """Put bytes that are no UTF-8 in the place of `old`."""
    data = bundle.read_bytes()
    assert data.count(old) == 1
    bundle.write_bytes(data.replace(old, b"\xff" * len(old)))


def test_metadata_that_is_no_text_is_refused(bundle: Path) -> None:
    replace_once(bundle, b'"class_names"')
    assert refusal(bundle).startswith(f"{bundle}: onnxruntime cannot open it: 'utf-8' codec")


def test_an_operator_whose_name_is_no_text_is_refused_in_silence(
    bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = onnx.load(bundle)
    model.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(model, bundle)
    replace_once(bundle, b"NoSuchOperator")
    assert refusal(bundle).startswith(f"{bundle}: onnxruntime cannot open it: 'utf-8' codec")
    assert capfd.readouterr().out == ""


def test_onnx_without_a_document_is_refused(bundle: Path) -> None:
    model = onnx.load(bundle)
    del model.metadata_props[:]
    onnx.save(model, bundle)
    assert refusal(bundle).startswith(f"{bundle}: no bundle: its metadata has no entry ")


def test_an_unfinished_document_is_refused(bundle: Path) -> None:
    edit_document(bundle, mean="grey")
    assert "expected mean to be a list of numbers" in refusal(bundle)


def test_a_bundle_of_another_format_is_refused(bundle: Path) -> None:
    edit_document(bundle, format=2)
    assert refusal(bundle).startswith(f"{bundle}: expected a bundle of format 1, got 2; ")


@pytest.mark.parametrize(("field", "value"), [("height", 9), ("width", 7), ("channels", 3)])
def test_another_image_than_the_graphs_is_refused(field: str, value: int, bundle: Path) -> None:
    image = Classifier(bundle).document.image.to_json()
    edit_document(bundle, image={**image, field: value})
    reason = refusal(bundle)
    assert reason.startswith(f"{bundle}: the graph contradicts the document: expected ")
    assert "[8, 8, 1]" in reason


@pytest.mark.parametrize("count", [1, 9, 11])
def test_another_number_of_classes_than_the_graphs_is_refused(count: int, bundle: Path) -> None:
    edit_document(bundle, class_names=[f"class {index}" for index in range(count)])
    reason = refusal(bundle)
    assert reason.startswith(f"{bundle}: the graph contradicts the document: expected ")
    assert f"[{count}]" in reason


def test_a_graph_with_other_names_is_refused(bundle: Path) -> None:
    model = onnx.load(bundle)
    for node in model.graph.node:
        node.input[:] = ["picture" if name == "image" else name for name in node.input]
    model.graph.input[0].name = "picture"
    onnx.save(model, bundle)
    assert "the graph contradicts the document" in refusal(bundle)


def test_the_document_may_say_more_about_the_same_graph(bundle: Path) -> None:
    names = [f"Ziffer „{digit}“" for digit in range(10)]
    edit_document(bundle, class_names=names)
    assert Classifier(bundle).document.class_names == tuple(names)
