"""The classifier: it answers as the trained model does, and refuses what is no sound bundle."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from serve.bundle import METADATA_KEY, BundleError, seal
from serve.classifier import Classifier
from serve.onnx_file import outline, with_entry, without_entry

CHANGED = (
    "its content does not match the digest in its document: it was damaged or changed after it "
    "was exported; copy it again, or export it again"
)


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


def document_of(bundle: Path) -> dict[str, Any]:
    """The document as it stands in the file, with its digest."""
    return dict(json.loads(outline(bundle.read_bytes()).metadata[METADATA_KEY]))


def edit_document(bundle: Path, **changes: Any) -> None:
    """Change fields of the document inside an ONNX file and seal it again; the graph stays."""
    document = {**document_of(bundle), **changes}
    bundle.write_bytes(seal(bundle.read_bytes(), document))


def edit_graph(bundle: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    """Change the model and seal it again; the document stays."""
    model, document = onnx.load(bundle), document_of(bundle)
    change(model)
    bundle.write_bytes(seal(model.SerializeToString(), document))


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


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "expected an ONNX file of 1 to 2,147,483,647 bytes, got 0 bytes"),
        (b"text\n", "not an ONNX model: its bytes do not parse"),
        (b"\x89PNG\r\n\x1a\n", "cut off in the middle of a number"),
        (b"\0" * 5000, "not an ONNX model: its bytes do not parse"),
        (b"\x08\x07", "not an ONNX model: it holds no graph"),
    ],
)
def test_what_is_not_onnx_is_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(content)
    assert refusal(file) == f"{file}: {reason}"


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.9, 0.999])
def test_a_truncated_bundle_is_refused(
    share: float, bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = bundle.read_bytes()
    bundle.write_bytes(data[: int(len(data) * share)])
    assert refusal(bundle).startswith(f"{bundle}: cut off: ")
    assert capfd.readouterr().out == ""


def test_a_bundle_without_its_last_field_is_refused(bundle: Path) -> None:
    bundle.write_bytes(without_entry(bundle.read_bytes(), METADATA_KEY))
    assert refusal(bundle).startswith(f"{bundle}: no bundle: its metadata has no entry ")


def replace_once(bundle: Path, old: bytes) -> None:
    """Put bytes that are no UTF-8 in the place of `old`."""
    data = bundle.read_bytes()
    assert data.count(old) == 1
    bundle.write_bytes(data.replace(old, b"\xff" * len(old)))


def test_metadata_that_is_no_text_is_refused(bundle: Path) -> None:
    replace_once(bundle, b'"class_names"')
    assert refusal(bundle) == f"{bundle}: damaged: expected metadata to be text"


def rename_first_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "NoSuchOperator"


def test_an_operator_whose_name_is_no_text_is_refused_in_silence(
    bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    edit_graph(bundle, rename_first_operator)
    replace_once(bundle, b"NoSuchOperator")
    assert refusal(bundle) == f"{bundle}: damaged: expected op_type to be text"
    assert capfd.readouterr().out == ""


def test_a_sound_file_that_onnxruntime_cannot_open_is_refused_in_silence(
    bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    edit_graph(bundle, rename_first_operator)
    assert refusal(bundle).startswith(f"{bundle}: onnxruntime cannot open it: ")
    assert capfd.readouterr().out == ""


def test_onnx_without_a_document_is_refused(bundle: Path) -> None:
    model = onnx.load(bundle)
    del model.metadata_props[:]
    onnx.save(model, bundle)
    assert refusal(bundle) == (
        f"{bundle}: no bundle: its metadata has no entry 'lockstep.bundle'; export it with "
        "Lockstep, or give --labels to use it as it is"
    )


def test_an_unfinished_document_is_refused(bundle: Path) -> None:
    edit_document(bundle, mean="grey")
    assert "expected mean to be a list of numbers" in refusal(bundle)


def test_a_bundle_of_another_format_is_refused(bundle: Path) -> None:
    edit_document(bundle, format=3)
    assert refusal(bundle).startswith(f"{bundle}: expected a bundle of format 1 or 2, got 3; ")


@pytest.mark.parametrize(
    ("field", "value", "changes"),
    [("height", 9, {}), ("width", 7, {}), ("channels", 3, {"mean": [0] * 3, "std": [1] * 3})],
)
def test_another_image_than_the_graphs_is_refused(
    field: str, value: int, changes: dict[str, Any], bundle: Path
) -> None:
    image = Classifier(bundle).document.image.to_json()
    edit_document(bundle, image={**image, field: value}, **changes)
    reason = refusal(bundle)
    assert reason.startswith(f"{bundle}: the graph contradicts the document: expected ")
    assert "[batch, 8, 8, 1]" in reason


@pytest.mark.parametrize("count", [1, 9, 11])
def test_another_number_of_classes_than_the_graphs_is_refused(count: int, bundle: Path) -> None:
    edit_document(bundle, class_names=[f"class {index}" for index in range(count)])
    reason = refusal(bundle)
    assert reason.startswith(f"{bundle}: the graph contradicts the document: expected ")
    assert f"[batch, {count}]" in reason


def rename_input(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.input[:] = ["picture" if name == "image" else name for name in node.input]
    model.graph.input[0].name = "picture"


def change_input_type(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT


def add_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(model.graph.output[0])


def add_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(
        onnx.helper.make_tensor_value_info("more", onnx.TensorProto.FLOAT, [1])
    )


def take_outputs_away(model: onnx.ModelProto) -> None:
    del model.graph.output[:]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (rename_input, "got picture uint8 [batch, 8, 8, 1] -> "),
        (change_input_type, "got image float32 [batch, 8, 8, 1] -> "),
        (add_output, "-> probabilities float32 [batch, 10], probabilities float32 [batch, 10]"),
        (add_input, "got image uint8 [batch, 8, 8, 1], more float32 [batch, ] -> "),
        (take_outputs_away, "got image uint8 [batch, 8, 8, 1] -> nothing"),
    ],
)
def test_another_graph_than_the_documents_is_refused(
    bundle: Path, change: Callable[[onnx.ModelProto], None], found: str
) -> None:
    edit_graph(bundle, change)
    reason = refusal(bundle)
    assert reason.startswith(
        f"{bundle}: the graph contradicts the document: expected image uint8 [batch, 8, 8, 1] -> "
        "probabilities float32 [batch, 10], "
    )
    assert found in reason


def test_the_document_may_say_more_about_the_same_graph(bundle: Path) -> None:
    names = [f"Ziffer „{digit}“" for digit in range(10)]
    edit_document(bundle, class_names=names)
    assert Classifier(bundle).document.class_names == tuple(names)


# The digest


@pytest.mark.parametrize("field", ["class_names", "temperature", "metrics", "sha256"])
def test_a_document_that_is_changed_without_a_new_seal_is_refused(bundle: Path, field: str) -> None:
    document = document_of(bundle)
    changes = {"class_names": document["class_names"][::-1], "temperature": 3.5, "metrics": {},
               "sha256": "0" * 64}  # fmt: skip
    text = json.dumps({**document, field: changes[field]})
    rest = without_entry(bundle.read_bytes(), METADATA_KEY)
    bundle.write_bytes(with_entry(rest, METADATA_KEY, text))
    assert refusal(bundle) == f"{bundle}: {CHANGED}"


def test_a_changed_weight_is_refused(bundle: Path) -> None:
    model = onnx.load(bundle)
    weights = next(item for item in model.graph.initializer if len(item.raw_data) > 1000)
    raw = bytes(weights.raw_data)
    content = bundle.read_bytes()
    assert content.count(raw) == 1
    bundle.write_bytes(content.replace(raw, raw[:-1] + bytes([raw[-1] ^ 1])))
    assert refusal(bundle) == f"{bundle}: {CHANGED}"


def test_another_metadata_entry_is_refused(bundle: Path) -> None:
    model = onnx.load(bundle)
    model.metadata_props.add(key="author", value="someone")
    onnx.save(model, bundle)
    assert refusal(bundle) == f"{bundle}: {CHANGED}"


@pytest.mark.parametrize("more", [b"\x32\x01x", b"\x08\x08", b"\x98\x06\x01"])
def test_appended_bytes_are_refused(bundle: Path, more: bytes) -> None:
    with bundle.open("ab") as file:
        file.write(more)
    assert refusal(bundle) == f"{bundle}: {CHANGED}"


def test_what_is_sealed_again_is_a_bundle_again(bundle: Path, classifier: Classifier) -> None:
    with bundle.open("ab") as file:
        file.write(with_entry(b"", "author", "someone"))
    edit_document(bundle, created="2026-01-01T00:00:00+00:00")
    again = Classifier(bundle, threads=1)
    assert again.document.created == "2026-01-01T00:00:00+00:00"
    np.testing.assert_array_equal(again.predict(images(3)), classifier.predict(images(3)))


def test_two_documents_are_refused(bundle: Path) -> None:
    text = outline(bundle.read_bytes()).metadata[METADATA_KEY]
    bundle.write_bytes(with_entry(bundle.read_bytes(), METADATA_KEY, text))
    assert refusal(bundle) == f"{bundle}: damaged: metadata entry 'lockstep.bundle' occurs twice"


def test_the_int8_bundle_answers_nearly_as_the_other(
    trained_run: Path, classifier: Classifier
) -> None:
    path = trained_run / "model.int8.onnx"
    if not path.exists():
        pytest.skip("this run has no such file")
    int8 = Classifier(path, threads=1)
    assert int8.document.precision == "int8"
    assert classifier.document.precision == "float32"
    assert int8.document.class_names == classifier.document.class_names
    np.testing.assert_allclose(int8.predict(images(20)).sum(axis=1), 1, atol=1e-5)


def test_a_graph_that_fails_while_it_runs_is_one_line(bundle: Path) -> None:
    def cut_short(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            node.output[:] = ["whole" if name == "probabilities" else name for name in node.output]
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(np.array([3, 7], np.int64), "shape")
        )
        model.graph.node.append(
            onnx.helper.make_node("Reshape", ["whole", "shape"], ["probabilities"])
        )
        del model.graph.value_info[:]

    edit_graph(bundle, cut_short)
    broken = Classifier(bundle, threads=1)
    with pytest.raises(BundleError) as caught:
        broken.predict(images(2))
    assert str(caught.value).startswith(f"{bundle}: onnxruntime cannot run it: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("operator", ["RandomNormal", "Loop", "StringConcat"])
def test_operators_that_no_classifier_needs_are_refused(operator: str, bundle: Path) -> None:
    edit_graph(bundle, lambda model: model.graph.node.add(op_type=operator, output=["extra"]))
    assert refusal(bundle) == f"{bundle}: no image classifier needs the operators {operator}"
