"""A Keras model from elsewhere, made a bundle by the command as a user calls it."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

from export.bundle import main
from export.serving_function import ExportError, load_model
from serve.classifier import Classifier
from serve.command import LockstepError
from serve.images import read_image

LABELS = ("blue", "green", "red")
SIDE = 20


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy pictures of three colours, 24x30, in folders named after the labels."""
    folder = tmp_path_factory.mktemp("elsewhere") / "photos"
    generator = np.random.default_rng(0)
    for channel, name in ((2, "blue"), (1, "green"), (0, "red")):
        (folder / name).mkdir(parents=True)
        for number in range(9):
            noise = generator.integers(0, 200, (24, 30, 3), dtype=np.uint8)
            noise[..., channel] |= 128
            Image.fromarray(noise).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.txt"
    path.write_text("\n".join(LABELS) + "\n")
    return path


def colour_model(
    *,
    low: float = 0.0,
    high: float = 255.0,
    activation: str | None = "softmax",
    size: int | None = SIDE,
    extra: layers.Layer | None = None,
) -> keras.Model:
    """Tells the colours apart, given pixels in the range from `low` to `high`."""
    keras.utils.set_random_seed(1)
    x = inputs = keras.Input((size, size, 3))
    if extra is not None:
        x = extra(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Rescaling(1 / (high - low), -low / (high - low))(x)
    head = layers.Dense(3, activation=activation, name="head")
    model = keras.Model(inputs, head(x))
    kernel = 8 * np.fliplr(np.eye(3)).astype(np.float32)  # red is the last label
    head.set_weights([kernel, np.zeros(3, np.float32)])
    return model


def save(model: keras.Model, folder: Path) -> Path:
    path = folder / "model.keras"
    model.save(path)
    return path


@pytest.mark.parametrize("activation", ["softmax", None])
@pytest.mark.parametrize(
    ("low", "high", "options"),
    [
        (0, 255, []),
        (0, 1, ["--input-range", "0,1"]),
        (-1, 1, ["--input-range=-1,1"]),
        (-2, 2, ["--mean", "0.5,0.5,0.5", "--std", "0.25"]),
    ],
)
def test_ranges_and_endings(
    low: float, high: float, options: list[str], activation: str | None,
    photos: Path, labels: Path, tmp_path: Path,
) -> None:  # fmt: skip
    path = save(colour_model(low=low, high=high, activation=activation), tmp_path)
    output = tmp_path / "out" / "model.onnx"
    arguments = [path, "--labels", labels, "--images", photos, "--output", output, *options]
    assert main([*map(str, arguments)]) == 0
    classifier = Classifier(output)
    document = classifier.document
    assert document.class_names == LABELS
    assert document.image.shape == (SIDE, SIDE, 3)
    assert document.metrics == {"examples": 27, "accuracy": 1.0}
    assert document.task == "single-label"
    assert {item.status for item in document.verdict} <= {"good", "unknown"}
    assert set(document.parity) == {"onnx", "batch", "server"}
    for name in LABELS:
        image = read_image(photos / name / "0.png", document.image)
        probabilities = classifier.predict(image[None])[0]
        assert LABELS[int(probabilities.argmax())] == name
        assert probabilities.sum() == pytest.approx(1, abs=1e-5)
        assert probabilities.max() > 0.5


@pytest.mark.slow
def test_the_command_tells_what_it_did(
    run_module: Callable[..., subprocess.CompletedProcess[str]],
    photos: Path, labels: Path, tmp_path: Path,
) -> None:  # fmt: skip
    path = save(colour_model(size=None), tmp_path)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "broken.png").write_bytes(b"no image")
    (tmp_path / "more" / "good.png").write_bytes((photos / "red" / "0.png").read_bytes())
    done = run_module(
        "export.bundle", path, "--labels", labels, "--images", "more", "--image-size", "16,18",
        "--output", "m.onnx", folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "skipped more/broken.png: " in done.stdout
    assert "accuracy   not measured: the images lie in no folders named after" in done.stdout
    for step in ("load TensorFlow", "read 2 images", "export to ONNX", "prove server"):
        assert step in done.stderr
    assert "m.onnx" in done.stdout and "proven on 1 images" in done.stdout
    shown = run_module("serve.inspect", "m.onnx", "--json", folder=tmp_path)
    document = json.loads(shown.stdout)["document"]
    assert (document["image"]["height"], document["image"]["width"]) == (16, 18)
    assert document["metrics"] == {"examples": 1}  # no folder of it is a label
    labelled = run_module("serve.batch", "m.onnx", photos, "--quiet", folder=tmp_path)
    rows = labelled.stdout.splitlines()[1:]
    assert len(rows) == 27
    assert all(Path(row.split(",")[0]).parent.name == row.split(",")[1] for row in rows)


@pytest.mark.parametrize(
    ("application", "options"),
    [
        ("MobileNetV2", {"alpha": 0.35}),
        ("EfficientNetB0", {}),
        ("ConvNeXtTiny", {}),
    ],
)
@pytest.mark.slow
def test_keras_applications(
    application: str, options: dict[str, float], photos: Path, labels: Path, tmp_path: Path
) -> None:
    """Normalization layers, grouped convolutions, exact GELU: what whole networks are made of."""
    build = getattr(keras.applications, application)
    keras.utils.set_random_seed(0)
    model = build(weights=None, classes=3, input_shape=(64, 64, 3), **options)
    path, output = save(model, tmp_path), tmp_path / "m.onnx"
    arguments = [path, "--labels", labels, "--images", photos, "--output", output]
    if application == "MobileNetV2":  # the others scale pixels themselves
        arguments.append("--input-range=-1,1")
    assert main([*map(str, arguments)]) == 0
    assert Classifier(output).document.parity["onnx"]["max_difference"] <= 1e-4


def refused(model: keras.Model, labels: Path, photos: Path, *options: str) -> str:
    path = save(model, labels.parent)
    output = labels.parent / "m.onnx"
    arguments = [path, "--labels", labels, "--images", photos, "--output", output, *options]
    with pytest.raises(LockstepError) as caught:
        main([*map(str, arguments)])
    assert not output.exists()
    return str(caught.value)


@pytest.mark.parametrize("nested", [False, True])
def test_a_layer_that_cannot_be_exported_is_named(nested: bool, photos: Path, labels: Path) -> None:
    trap = layers.Resizing(9, 9, antialias=True, name="shrink")
    if nested:
        trap = keras.Sequential([keras.Input((SIDE, SIDE, 3)), trap], name="inner")
    reason = refused(colour_model(extra=trap), labels, photos, "--input-range", "0,255")
    assert "layer 'shrink' (Resizing) cannot be exported faithfully" in reason


def test_an_answer_that_depends_on_its_neighbours_fails_the_proof(
    photos: Path, labels: Path
) -> None:
    """Every single export is faithful; only the batch sizes give it away."""

    @keras.saving.register_keras_serializable("lockstep-tests")
    class MinusTheBatchMean(layers.Layer):
        def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
            return inputs - keras.ops.mean(inputs, axis=0, keepdims=True)

    reason = refused(
        colour_model(extra=MinusTheBatchMean()), labels, photos, "--input-range", "0,255"
    )
    assert "the proof failed (onnx: " in reason
    assert "nothing was written" in reason


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (lambda: colour_model(size=None), [], "images of any size: say --image-size"),
        (colour_model, ["--image-size", "32"], "the model takes 20x20, got 32x32"),
        (colour_model, ["--channels", "1"], "--channels: the model takes 3"),
        (colour_model, ["--mean", "1,2", "--std", "1"], "--mean: expected 1 or 3 numbers, got 2"),
        (colour_model, ["--input-range", "1,0"], "expected LOW,HIGH as in 0,1"),
        (
            lambda: keras.Sequential([keras.Input((8,)), layers.Dense(3)]),
            [],
            "expected one input [batch, height, width, channels]",
        ),
        (
            lambda: keras.Sequential([keras.Input((8, 8, 2)), layers.Flatten(), layers.Dense(3)]),
            [],
            "expected images with 1 or 3 channels last",
        ),
        (
            lambda: keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(3, 1)]),
            [],
            "expected one output [batch, classes]",
        ),
        (
            lambda: keras.Sequential([keras.Input((8, 8, 3)), layers.Flatten(), layers.Dense(4)]),
            [],
            "expected 4 labels, one for each output, got 3",
        ),
    ],
)
def test_what_does_not_fit_is_explained(
    build: Callable[[], keras.Model], options: list[str], message: str, photos: Path, labels: Path
) -> None:
    assert message in refused(build(), labels, photos, *options)


def test_a_model_with_code_in_it_is_refused(photos: Path, labels: Path) -> None:
    reason = refused(colour_model(extra=layers.Lambda(lambda x: x * 2)), labels, photos)
    assert "not a readable Keras model" in reason


def test_no_images_no_proof(labels: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "expected images to prove the model on" in refused(
        colour_model(), labels, tmp_path / "empty"
    )
    assert "no such folder" in refused(colour_model(), labels, tmp_path / "nowhere")


def test_an_export_error_is_a_bad_result_not_bad_input() -> None:
    assert ExportError.exit_code == 1


def test_of_branches_the_bad_one_is_named(photos: Path, labels: Path) -> None:
    inputs = keras.Input((SIDE, SIDE, 3))
    bad = layers.Resizing(9, 9, antialias=True, name="shrink")(inputs)
    bad = layers.Flatten()(layers.Conv2D(2, 3, name="after_it")(bad))
    good = layers.Dense(4, name="beside_it")(layers.GlobalAveragePooling2D()(inputs))
    model = keras.Model(inputs, layers.Dense(3)(layers.Concatenate()([good, bad])))
    reason = refused(model, labels, photos, "--input-range", "0,255")
    assert "layer 'shrink' (Resizing) cannot be exported" in reason


def test_an_operation_that_is_no_layer_is_named(photos: Path, labels: Path) -> None:
    inputs = keras.Input((SIDE, SIDE, 3))
    x = keras.ops.erfinv(layers.GlobalAveragePooling2D()(inputs) / 300)
    reason = refused(keras.Model(inputs, layers.Dense(3, name="out")(x)), labels, photos)
    assert "(Erfinv) cannot be exported" in reason


def test_a_mixed_precision_model_within_a_model_is_rebuilt(
    photos: Path, labels: Path, tmp_path: Path
) -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        inner = keras.Sequential([keras.Input((SIDE, SIDE, 3)), layers.Conv2D(4, 3)], name="inner")
    finally:
        keras.config.set_dtype_policy("float32")
    inputs = keras.Input((SIDE, SIDE, 3))
    x = layers.GlobalAveragePooling2D()(inner(layers.Rescaling(1 / 255)(inputs)))
    path = save(keras.Model(inputs, layers.Dense(3)(x)), tmp_path)
    output = tmp_path / "m.onnx"
    arguments = [path, "--labels", labels, "--images", photos, "--output", output]
    assert main([*map(str, arguments), "--max-examples", "5"]) == 0
    assert Classifier(output).document.metrics["examples"] == 5


def test_a_size_that_the_model_cannot_take_is_explained(photos: Path, labels: Path) -> None:
    inputs = keras.Input((None, None, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(3, 5)(inputs))
    reason = refused(
        keras.Model(inputs, x), labels, photos, "--image-size", "3", "--input-range", "0,1"
    )
    assert "the model does not take images of 3x3" in reason


def test_every_damaged_file_is_one_error(tmp_path: Path) -> None:
    """Bit flips and truncations by seed: refused, or still readable, and never a traceback."""
    content = save(colour_model(), tmp_path).read_bytes()
    generator = np.random.default_rng(0)
    refusals = 0
    for number in range(60):
        damaged = bytearray(content)
        if number % 3 == 0:
            del damaged[int(generator.integers(len(damaged))) :]
        else:
            for place in generator.integers(len(damaged), size=1 + number % 4):
                damaged[place] ^= 1 << generator.integers(8)
        path = tmp_path / "damaged.keras"
        path.write_bytes(damaged)
        try:
            load_model(path)
        except LockstepError as error:
            refusals += 1
            assert str(error).startswith(f"{path}: not a readable Keras model: ")
    assert refusals > 30
