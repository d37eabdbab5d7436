"""Same bytes, same pixels, same answers: every kind of image file through training and serving.

The files in `images/` show digits; `make_images.py` made them and stored, in `expected.json`, what
two small bundles answered. The bundles are solved in closed form, so every run makes the same ones.
"""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from export.prepared_data import PreparedData
from export.run_directory import RunDirectory
from export.serving_function import serving_function
from export.to_onnx import export_onnx, tool_versions
from pipeline.data.prepare import prepare
from pipeline.recipe import resolve
from serve.bundle import BundleDocument
from serve.classifier import Classifier
from serve.image_formats import EXTENSIONS
from serve.image_spec import ImageSpec
from serve.images import read_image

Pixels = NDArray[np.uint8]

IMAGES = Path(__file__).parent / "images"
FILES = sorted(path for path in IMAGES.iterdir() if path.suffix in EXTENSIONS)
SPECS = {"rgb": ImageSpec(8, 8, 3), "grey": ImageSpec(12, 8, 1)}
TOLERANCE = 2e-3
"""Of a probability; another libjpeg may differ by a grey step here and there."""

MISSED = 10 * TOLERANCE

INK = np.array([250.0, 220.0, 60.0])
GROUND = np.array([[40.0, 80.0, 150.0], [60.0, -50.0, 30.0], [-35.0, 40.0, 60.0]])
"""RGB in the middle of a picture, and by how much it changes from side to side and downwards."""

RIDGE = 50.0
TEMPERATURE = 0.1


# The pictures and the bundles; make_images.py uses them too


def ink_of(scan: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """How much ink of a digit's scan lies on each pixel: 0 to 1, `[height, width]`.

    The scan, 8x8 of 0 to 16, fills the largest square in the middle.
    """
    side = min(height, width)

    def weights(count: int) -> NDArray[np.float64]:
        """Of each of 8 samples at each of `count` places: linear interpolation."""
        places = (np.arange(count) + 0.5 - count / 2) / side * 8 + 3.5
        return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(8)))

    return np.asarray(weights(height) @ (scan / 16) @ weights(width).T)


def draw(scan: NDArray[np.float64], height: int, width: int) -> Pixels:
    """A digit in colour over a gradient: uint8 `[height, width, 3]`, nowhere symmetrical."""
    down, right = (
        (np.arange(count) + 0.5 - count / 2) / min(height, width) for count in (height, width)
    )
    ground = GROUND[0] + right[None, :, None] * GROUND[1] + down[:, None, None] * GROUND[2]
    ink = ink_of(scan, height, width)[..., None]
    return np.round(ground * (1 - ink) + INK * ink).clip(0, 255).astype(np.uint8)


def luma(pixels: Pixels) -> Pixels:
    """Grey `[..., 1]` of RGB by ITU-R 601-2."""
    return np.round(pixels @ np.array([0.299, 0.587, 0.114]))[..., None].astype(np.uint8)


def make_bundle(spec: ImageSpec, path: Path) -> Classifier:
    """Ridge regression of the digits on pixels, exported as a run exports its model."""
    digits = load_digits()
    pictures = np.stack([draw(scan, spec.height, spec.width) for scan in digits.images])
    grey = luma(pictures)
    if spec.channels == 1:
        images, labels = grey, digits.target
    else:
        images = np.concatenate([pictures, np.repeat(grey, 3, axis=3)])
        labels = np.concatenate([digits.target] * 2)

    inputs = keras.Input(spec.shape, dtype="uint8")
    flat = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(10)(flat))
    model.set_weights(ridge_regression(images.reshape(len(images), -1) / 255, np.eye(10)[labels]))
    document = BundleDocument(
        class_names=tuple("0123456789"),
        image=spec,
        mean=(0.0,) * spec.channels,
        std=(1.0,) * spec.channels,
        dataset_fingerprint="0" * 64,
        config_hash="1" * 64,
        metrics={},
        versions=tool_versions(),
        created="2025-01-01T00:00:00+00:00",
        temperature=TEMPERATURE,
    )
    export_onnx(serving_function(model, TEMPERATURE), document, path)
    return Classifier(path)


def ridge_regression(
    inputs: NDArray[np.float64], targets: NDArray[np.float64]
) -> list[NDArray[np.float64]]:
    """Weights `[inputs, targets]` and biases `[targets]`."""
    center, offset = inputs.mean(axis=0), targets.mean(axis=0)
    shifted = inputs - center
    gram = shifted.T @ shifted + RIDGE * np.eye(shifted.shape[1])
    weights = np.linalg.solve(gram, shifted.T @ (targets - offset))
    return [weights, offset - center @ weights]


# The tests


@dataclasses.dataclass(frozen=True)
class Bundle:
    """One of the two, and what the batch command answered to all files with it."""

    kind: str
    classifier: Classifier
    answers: dict[str, NDArray[np.float32]]

    @property
    def spec(self) -> ImageSpec:
        return self.classifier.document.image

    def predict(self, file: Path, spec: ImageSpec | None = None) -> NDArray[np.float32]:
        return self.classifier.predict(read_image(file, spec or self.spec)[None])[0]


@pytest.fixture(scope="module", params=SPECS)
def bundle(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    run_module: Callable[..., CompletedProcess[str]],
) -> Bundle:
    folder = tmp_path_factory.mktemp("bundle")
    path = folder / "model.onnx"
    classifier = make_bundle(SPECS[request.param], path)
    options = ("--format", "jsonl", "--probabilities", "--quiet", "--batch-size", "1")
    process = run_module("serve.batch", path, IMAGES, *options, folder=folder)
    assert (process.returncode, process.stderr) == (0, "")
    rows = [json.loads(line) for line in process.stdout.splitlines()]
    assert [row["path"] for row in rows] == [str(file) for file in FILES]
    answers = {
        Path(row["path"]).name: np.array(list(row["probabilities"].values()), np.float32)
        for row in rows
    }
    return Bundle(request.param, classifier, answers)


@pytest.fixture(scope="module")
def expected() -> dict[str, SimpleNamespace]:
    """By file: the scan that it shows and the stored answers of both bundles."""
    stored = json.loads((IMAGES / "expected.json").read_text(encoding="utf-8"))
    return {name: SimpleNamespace(**entry) for name, entry in stored.items()}


def answer_to(stored: SimpleNamespace, bundle: Bundle) -> NDArray[np.float64]:
    return np.array(getattr(stored, bundle.kind))


def distance(answer: NDArray[np.float32], other: NDArray[np.floating]) -> float:
    return float(np.abs(answer - other).max())


def names(*patterns: str) -> list[str]:
    return [file.name for file in FILES if any(map(file.match, patterns))]


def test_every_file_has_a_stored_answer(expected: dict[str, SimpleNamespace]) -> None:
    assert list(expected) == [file.name for file in FILES]
    assert {file.suffix for file in FILES} == EXTENSIONS


@pytest.mark.parametrize("name", [file.name for file in FILES])
def test_the_command_gives_the_stored_answer(
    name: str, bundle: Bundle, expected: dict[str, SimpleNamespace]
) -> None:
    assert distance(bundle.answers[name], answer_to(expected[name], bundle)) <= TOLERANCE


def test_the_command_reads_every_digit_right(
    bundle: Bundle, expected: dict[str, SimpleNamespace]
) -> None:
    digits = load_digits().target
    wrong = [
        name
        for name, answer in bundle.answers.items()
        if answer.argmax() != digits[expected[name].scan]
    ]
    assert not wrong


def test_the_command_prints_exactly_what_the_classifier_answers(bundle: Bundle) -> None:
    for file in FILES:
        np.testing.assert_array_equal(bundle.answers[file.name], bundle.predict(file))


def test_training_stores_the_pixels_that_serving_reads(bundle: Bundle, tmp_path: Path) -> None:
    classes = [tmp_path / "photos" / name for name in ("copies", "originals")]
    for folder in classes:
        shutil.copytree(IMAGES, folder, ignore=shutil.ignore_patterns("expected.json"))
    spec = bundle.spec
    config = resolve(
        {},
        {
            "data": f"folder:{tmp_path / 'photos'}",
            "prepare.image_size": [spec.height, spec.width],
            "prepare.channels": spec.channels,
        },
    )
    run = RunDirectory(tmp_path / "run")
    prepare(config, run)
    data = PreparedData.open(run.data)
    assert data.manifest.image_spec() == spec
    assert data.manifest.rejected == []
    expected = [read_image(folder / file.name, spec) for folder in classes for file in FILES]
    np.testing.assert_array_equal(data.images, expected)


LOSSLESS = names("bmp-24-bit.bmp", "png-rgb-8*", "png-rgb-16*", "webp-lossless.webp")


@pytest.mark.parametrize("name", [name for name in LOSSLESS if "transparent" not in name])
def test_lossless_colour_is_the_very_picture(
    name: str, expected: dict[str, SimpleNamespace]
) -> None:
    picture = draw(load_digits().images[expected[name].scan], 38, 26)
    np.testing.assert_array_equal(read_image(IMAGES / name, ImageSpec(38, 26, 3)), picture)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_turned_picture_is_the_upright_one(orientation: int, bundle: Bundle) -> None:
    upright, turned = (
        read_image(IMAGES / f"jpeg-orientation-{number}.jpg", bundle.spec).astype(int)
        for number in (1, orientation)
    )
    assert np.abs(turned - upright).max() <= 4
    assert np.abs(turned - upright).mean() < 0.7


# Proof that these tests can fail: a reader with a fault gives other answers


@pytest.mark.parametrize(
    "name", names("jpeg-orientation-[2-8].jpg", "jpeg-large-orientation-8.jpg")
)
def test_without_orientation_the_stored_answer_is_missed(
    name: str,
    bundle: Bundle,
    expected: dict[str, SimpleNamespace],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("serve.images._TURNS", {})
    assert distance(bundle.predict(IMAGES / name), answer_to(expected[name], bundle)) > MISSED


@pytest.mark.parametrize("name", names("*transparent*", "*alpha*", "*rgba*"))
def test_over_another_background_the_stored_answer_is_missed(
    name: str, bundle: Bundle, expected: dict[str, SimpleNamespace]
) -> None:
    black = dataclasses.replace(bundle.spec, background=0)
    answer = bundle.predict(IMAGES / name, black)
    assert distance(answer, answer_to(expected[name], bundle)) > MISSED


@pytest.mark.parametrize("bundle", ["rgb"], indirect=True)
@pytest.mark.parametrize(
    "name",
    ["bmp-24-bit.bmp", "jpeg-cmyk.jpg", "png-palette-8.png", "webp-lossy.webp", "gif-plain.gif"],
)
def test_with_red_and_blue_swapped_the_stored_answer_is_missed(
    name: str, bundle: Bundle, expected: dict[str, SimpleNamespace]
) -> None:
    swapped = read_image(IMAGES / name, bundle.spec)[..., ::-1]
    answer = bundle.classifier.predict(swapped[None])[0]
    assert distance(answer, answer_to(expected[name], bundle)) > MISSED
