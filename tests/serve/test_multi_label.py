"""Multi-label answers: which labels an image has, and how the batch command writes them."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from serve import batch, inspect
from serve.bundle import BundleDocument, BundleError, bundle_document, seal
from serve.classifier import Classifier
from serve.command import LockstepError
from serve.image_spec import ImageSpec
from serve.images import encode_png, read_image
from serve.label_list import join_labels, split_labels
from serve.multi_label import for_each_label, has_labels, labels_of, with_thresholds

NAMES = ("cat", "dog|wolf", "back\\slash", "犬, big", "never")
THRESHOLDS = (0.5, 0.3, 0.7, 0.0, 1.0)
METRICS = {"examples": 40, "accuracy": 0.5, "f1_macro": 0.6, "average_precision_macro": 0.7,
           "loss": 0.2}  # fmt: skip

Run = Callable[..., tuple[int, str, str]]


def document(**changes: Any) -> BundleDocument:
    fields: dict[str, Any] = {
        "class_names": NAMES,
        "image": ImageSpec(4, 4, 1),
        "mean": (0.0,),
        "std": (1.0,),
        "dataset_fingerprint": "",
        "config_hash": "",
        "metrics": METRICS,
        "versions": {},
        "created": "",
        "task": "multi-label",
        "thresholds": THRESHOLDS,
    }
    return BundleDocument(**{**fields, **changes})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five sigmoids of one linear layer; read-only."""
    random = np.random.default_rng(3)
    nodes = [
        helper.make_node("Cast", ["image"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["numbers"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights", "biases"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["probabilities"]),
    ]
    constants = [
        numpy_helper.from_array(random.normal(0, 0.004, (16, 5)).astype(np.float32), "weights"),
        numpy_helper.from_array(random.normal(0, 1, 5).astype(np.float32), "biases"),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 4, 4, 1])
    answer = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 5])
    model = helper.make_model(
        helper.make_graph(nodes, "graph", [image], [answer], constants),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    path = tmp_path_factory.mktemp("multi-label") / "model.onnx"
    path.write_bytes(seal(model.SerializeToString(), document().to_json()))
    return path


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    """Twelve images and a file that is none."""
    random = np.random.default_rng(5)
    for index in range(12):
        pixels = random.integers(0, 256, (4, 4), dtype=np.uint8)
        (tmp_path / f"{index:02}.png").write_bytes(encode_png(pixels))
    (tmp_path / "12.png").write_bytes(b"no image")
    return [str(path) for path in sorted(tmp_path.glob("*.png"))]


@pytest.fixture
def run(bundle: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """The batch command on the bundle: exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = batch.main([str(bundle), "--threads", "1", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def expected(bundle: Path, photos: list[str]) -> NDArray[np.float32]:
    classifier = Classifier(bundle, threads=1)
    return classifier.predict(np.stack([read_image(photo, ImageSpec(4, 4, 1)) for photo in photos]))


def given(row: NDArray[np.float32], thresholds: tuple[float, ...] = THRESHOLDS) -> list[int]:
    """Numbers of the labels above their thresholds, most probable first, in other words."""
    above = [index for index in range(5) if row[index] >= np.float32(thresholds[index])]
    return sorted(above, key=lambda index: (-row[index], index))


# What is meant


def test_a_label_is_given_from_its_threshold_on() -> None:
    thresholds = (0.1, 0.5, 0.0, 1.0)
    exact = np.asarray(thresholds, np.float32)
    below = np.nextafter(exact, np.float32(-1))
    assert has_labels(exact, thresholds).all()
    assert not has_labels(below, thresholds).any()
    assert has_labels(np.stack([exact, below]), thresholds).shape == (2, 4)


def test_labels_come_most_probable_first_and_ties_in_order() -> None:
    row = np.array([0.6, 0.9, 0.6, 0.2, 0.9], np.float32)
    assert [name for name, _ in labels_of(row, "abcde", [0.5] * 5)] == ["b", "e", "a", "c"]
    assert labels_of(row, "abcde", [0.95] * 5) == []


@pytest.mark.parametrize(
    ("given", "each"), [((0.4,), (0.4,) * 3), ((0.1, 0.2, 0.3), (0.1, 0.2, 0.3))]
)
def test_one_threshold_counts_for_all(given: tuple[float, ...], each: tuple[float, ...]) -> None:
    assert for_each_label(given, 3) == each


@pytest.mark.parametrize("count", [0, 2, 4])
def test_another_number_of_thresholds_is_refused(count: int) -> None:
    with pytest.raises(LockstepError) as caught:
        for_each_label((0.5,) * count, 3)
    assert str(caught.value) == (
        f"--threshold: expected 1 or 3 numbers, one for each label, got {count}"
    )


def test_other_thresholds_take_the_figures_away_that_hold_no_more(bundle: Path) -> None:
    assert with_thresholds(document(), THRESHOLDS) == document()
    changed = Classifier(bundle, threads=1, thresholds=(0.25,)).document
    assert changed == document(
        thresholds=(0.25,) * 5,
        metrics={"examples": 40, "average_precision_macro": 0.7, "loss": 0.2},
    )


def test_thresholds_for_one_choice_are_refused(trained_run: Path) -> None:
    with pytest.raises(
        BundleError, match="--threshold: expected a multi-label model, got a single"
    ):
        Classifier(trained_run / "model.onnx", thresholds=(0.5,))


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["cat"], "cat"),
        (["cat", "dog"], "cat|dog"),
        (["dog|wolf", "cat"], r"dog\|wolf|cat"),
        (["a\\", "b"], r"a\\|b"),
        (["\\|", "|\\", "a,b;c"], r"\\\||\|\\|a,b;c"),
        (["größe\n犬", "b"], "größe\n犬|b"),
    ],
)
def test_names_in_one_field_are_read_back(names: list[str], text: str) -> None:
    assert join_labels(names) == text
    assert split_labels(text) == names


@pytest.mark.parametrize(
    ("text", "names"), [("a|", ["a", ""]), ("|", ["", ""]), (r"C:\new|b", [r"C:\new", "b"])]
)
def test_what_others_wrote_is_read_as_it_stands(text: str, names: list[str]) -> None:
    assert split_labels(text) == names


# Rows


def test_csv_has_all_labels_of_an_image(run: Run, bundle: Path, photos: list[str]) -> None:
    code, out, errors = run(*photos)
    assert code == 0
    assert "12 labelled, 1 unreadable" in errors
    rows = list(csv.DictReader(io.StringIO(out, newline="")))
    assert list(rows[0]) == ["path", "labels", "probabilities", "error"]
    assert [row["path"] for row in rows] == photos
    broken = rows.pop()
    assert broken["error"] and not broken["labels"] and not broken["probabilities"]
    sizes = set()
    for row, answer in zip(rows, expected(bundle, photos[:-1]), strict=True):
        wanted = given(answer)
        assert split_labels(row["labels"]) == [NAMES[index] for index in wanted]
        numbers = [np.float32(text) for text in row["probabilities"].split("|")]
        assert numbers == [answer[index] for index in wanted]
        assert row["error"] == ""
        sizes.add(len(wanted))
    assert len(sizes) > 2, "all images have as many labels"


@pytest.mark.parametrize("threshold", ["1", "0.6,0.9,0.9,1,1"])
def test_an_image_without_labels_has_an_empty_field(
    run: Run, photos: list[str], threshold: str
) -> None:
    _, out, _ = run(*photos[:-1], "--threshold", threshold)
    labels = [row["labels"] for row in csv.DictReader(io.StringIO(out, newline=""))]
    assert "" in labels


def test_csv_has_the_most_probable_and_all_probabilities_where_asked(
    run: Run, bundle: Path, photos: list[str]
) -> None:
    _, out, _ = run(*photos, "--top", 2, "--probabilities")
    rows = list(csv.DictReader(io.StringIO(out, newline="")))
    assert list(rows[0])[4:] == [
        "label_1", "probability_1", "label_2", "probability_2", *(f"p({name})" for name in NAMES),
    ]  # fmt: skip
    assert set(rows.pop().values()) - {photos[-1]} >= {""}
    for row, answer in zip(rows, expected(bundle, photos[:-1]), strict=True):
        assert [np.float32(row[f"p({name})"]) for name in NAMES] == list(answer)
        best = np.argsort(-answer, kind="stable")[:2]
        assert [row["label_1"], row["label_2"]] == [NAMES[index] for index in best]
        assert [np.float32(row[f"probability_{rank}"]) for rank in (1, 2)] == list(answer[best])


def test_json_lines_say_the_same(run: Run, bundle: Path, photos: list[str]) -> None:
    _, out, _ = run(*photos, "--format", "jsonl", "--top", 99, "--probabilities")
    rows = [json.loads(line) for line in out.splitlines()]
    broken = rows.pop()
    assert broken["labels"] == [] and broken["error"]
    for row, answer in zip(rows, expected(bundle, photos[:-1]), strict=True):
        assert set(row) == {"path", "labels", "error", "predictions", "probabilities"}
        listed = [(item["label"], np.float32(item["probability"])) for item in row["labels"]]
        assert listed == [(NAMES[index], answer[index]) for index in given(answer)]
        assert len(row["predictions"]) == 5
        assert [np.float32(row["probabilities"][name]) for name in NAMES] == list(answer)
        assert row["error"] is None
    _, out, _ = run(photos[0], "--format", "jsonl")
    assert set(json.loads(out)) == {"path", "labels", "error"}


@pytest.mark.parametrize("asked", ["0.5", "bundle"])
def test_no_answer_is_uncertain(run: Run, bundle: Path, photos: list[str], asked: str) -> None:
    with pytest.raises(LockstepError) as caught:
        run(*photos, "--uncertain-below", asked)
    assert str(caught.value) == (
        f"--uncertain-below: {bundle} is a multi-label model, whose answer is every label that is "
        "probable enough; say what is enough with --threshold"
    )


def test_inspect_says_the_task_and_the_thresholds(bundle: Path, tmp_path: Path) -> None:
    lines = inspect.for_people(bundle).splitlines()
    assert "task          multi-label: an image has every label from its threshold on" in lines
    assert r"thresholds    cat 0.5, dog|wolf 0.3, back\slash 0.7, 犬, big 0, never 1" in lines
    alike = tmp_path / "alike.onnx"
    content = bundle.read_bytes()
    assert bundle_document(content) == document()
    alike.write_bytes(seal(content, document(thresholds=(0.4,) * 5).to_json()))
    assert "thresholds    0.4 for every label" in inspect.for_people(alike).splitlines()
