"""A Keras model with a sigmoid for each label, made a bundle by the command, and measured."""

import csv
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image
from sklearn.metrics import average_precision_score

from export.bundle import main
from serve.bundle import bundle_document
from serve.classifier import Classifier
from serve.command import LockstepError
from serve.images import read_image

LABELS = ("blue", "green", "red")
SIDE, IMAGES = 12, 40


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures in which each colour is bright or not; truth.csv beside them says which."""
    folder = tmp_path_factory.mktemp("several") / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    rows = []
    for number in range(IMAGES):
        has = random.random(3) < 0.5  # blue, green, red
        noise = random.integers(0, 110, (16, 14, 3), dtype=np.uint8)
        noise[..., [2, 1, 0]] += (120 * has).astype(np.uint8)
        Image.fromarray(noise).save(folder / f"{number:02}.png")
        rows.append([f"{number:02}.png", *has.astype(int)])
    with open(folder.parent / "truth.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([["path", *LABELS], *rows])
    (folder.parent / "labels.txt").write_text("\n".join(LABELS))
    return folder


def save(folder: Path, activation: str | None = "sigmoid", *, order: int = -1) -> Path:
    """A model that tells which colours are bright, of pixels from 0 to 1."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((SIDE, SIDE, 3))
    head = layers.Dense(3, activation=activation)
    model = keras.Model(inputs, head(layers.GlobalAveragePooling2D()(inputs)))
    kernel = 20 * np.eye(3, dtype=np.float32)[:, ::order]  # red is the last label
    head.set_weights([kernel, np.full(3, -9, np.float32)])
    path = folder / "model.keras"
    model.save(path)
    return path


def command(model: Path, photos: Path, *options: object) -> tuple[int, Path]:
    output = model.with_suffix(".onnx")
    said = ["--labels", photos.parent / "labels.txt", "--images", photos, "--output", output]
    return main([str(word) for word in (model, *said, *options)]), output


def truth_of(photos: Path) -> np.ndarray:
    with open(photos.parent / "truth.csv") as stream:
        return np.array([row[1:] for row in csv.reader(stream)][1:]).astype(int) == 1


@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_a_model_with_sigmoids_is_proven_and_measured(
    photos: Path, tmp_path: Path, activation: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path, activation)
    thresholds = ("--threshold", "0.5,0.4,0.6")
    truth = ("--truth", photos.parent / "truth.csv", "--input-range", "0,1")
    code, output = command(path, photos, "--outputs", "sigmoid", *thresholds, *truth)
    assert code == 0
    document = bundle_document(output.read_bytes())
    assert (document.task, document.thresholds) == ("multi-label", (0.5, 0.4, 0.6))
    classifier = Classifier(output)
    pixels = np.stack([read_image(path, document.image) for path in sorted(photos.iterdir())])
    answers = classifier.predict(pixels)
    expected = truth_of(photos)
    given = answers >= np.array([0.5, 0.4, 0.6], np.float32)
    metrics = document.metrics
    assert metrics["examples"] == IMAGES
    assert metrics["accuracy"] == pytest.approx((given == expected).all(axis=1).mean())
    assert metrics["average_precision_macro"] == pytest.approx(
        average_precision_score(expected, answers)
    )
    for path in ("onnx", "batch", "server"):
        assert document.parity[path]["label_agreement"] == 1
        assert document.parity[path]["accuracy"] == pytest.approx(metrics["accuracy"])
    assert [finding.name for finding in document.verdict] == [
        "better than guessing", "more than one answer", "every label is found",
        "enough test images",
    ]  # fmt: skip
    assert document.verdict[0].status == "good"
    told = capsys.readouterr().out
    for finding in document.verdict:
        assert finding.text in told
    assert f"of {IMAGES} images get exactly the labels of --truth" in told
    (line,) = [line for line in told.splitlines() if line.startswith("green ")]
    assert line.split()[1:3] == [str(expected[:, 1].sum()), "0.4"]


@pytest.mark.slow
def test_without_a_truth_it_says_why_nothing_was_measured(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, output = command(save(tmp_path), photos, "--input-range", "0,1")
    assert code == 0
    document = bundle_document(output.read_bytes())
    assert document.metrics == {"examples": IMAGES}
    assert document.thresholds == (0.5,) * 3
    assert "accuracy" not in json.dumps(document.parity)
    told = capsys.readouterr().out
    assert "not measured: say which image has which labels with --truth FILE.csv" in told


@pytest.mark.slow
def test_labels_in_another_order_are_warned_of(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = ("--truth", photos.parent / "truth.csv", "--input-range", "0,1")
    code, _ = command(save(tmp_path, order=1), photos, *truth)
    assert code == 0
    told = capsys.readouterr().out
    assert "WARNING    the labels look reversed (better: red, green, blue)" in told
    assert "the mean average precision would be 1.00 instead of 0.79" in told


def test_a_range_that_nobody_said_is_looked_for_with_the_truth(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(LockstepError) as caught:
        command(save(tmp_path), photos, "--truth", photos.parent / "truth.csv")
    assert "neither the model nor you say which numbers stand for black" in str(caught.value)
    rows = {line[:9].strip(): line.split() for line in capsys.readouterr().out.splitlines()}
    assert rows["0 to 1"][3] == "1.00~" and float(rows["0 to 255"][3]) < 0.5


def test_a_truth_for_a_model_of_one_choice_is_refused(photos: Path, tmp_path: Path) -> None:
    truth = ("--truth", photos.parent / "truth.csv", "--input-range", "0,1")
    with pytest.raises(LockstepError, match="--truth: the model is single-label"):
        command(save(tmp_path, "softmax"), photos, *truth)
