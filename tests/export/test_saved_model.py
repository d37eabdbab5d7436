"""What the SavedModel answers and promises, and what happens when it cannot be written."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import models
from export.saved_model import SavedModel, export_saved_model
from export.serving_function import ExportError, predict_logits, probabilities_of
from models.options import LenetOptions

ROOT = Path(__file__).resolve().parents[2]

# A file size limit is a full disk that needs no privileges.
SCRIPT = """
import resource, signal, sys
from pathlib import Path
import models
from export.saved_model import export_saved_model
from models.options import LenetOptions

model = models.build(LenetOptions(), (28, 28, 1), 10, mean=[0.5], std=[0.25])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    export_saved_model(model, Path(sys.argv[1]))
except OSError as error:
    print(error.filename)
"""


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(5)
    return models.build(LenetOptions(), (12, 10, 3), 4, mean=[0.5] * 3, std=[0.25] * 3)


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_full_disk_is_an_operating_system_error_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run" / "saved_model"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(path)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("temperature", [1.0, 0.4, 2.5])
def test_the_answers_are_those_of_keras_at_the_temperature(
    temperature: float, model: keras.Model, tmp_path: Path
) -> None:
    images = np.random.default_rng(1).integers(0, 256, (7, 12, 10, 3)).astype(np.uint8)
    logits = predict_logits(model, images, np.arange(7))
    export_saved_model(model, tmp_path / "saved_model", temperature)
    answers = SavedModel(tmp_path / "saved_model").predict(images)
    np.testing.assert_allclose(answers, probabilities_of(logits, temperature), atol=2e-6)
    if temperature != 1:
        assert np.abs(answers - probabilities_of(logits)).max() > 1e-3


def test_the_signature_is_the_contract(model: keras.Model, tmp_path: Path) -> None:
    export_saved_model(model, tmp_path / "saved_model")
    loaded = tf.saved_model.load(str(tmp_path / "saved_model"))
    assert list(loaded.signatures) == ["serving_default"]
    function = loaded.signatures["serving_default"]
    _, inputs = function.structured_input_signature
    assert list(inputs) == ["image"]
    assert inputs["image"].dtype == tf.uint8
    assert inputs["image"].shape.as_list() == [None, 12, 10, 3]
    (output,) = function.structured_outputs.items()
    assert output[0] == "probabilities"
    assert output[1].dtype == tf.float32
    assert output[1].shape.as_list() == [None, 4]


def test_a_model_that_is_random_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    inputs = keras.Input((8, 8, 1), dtype="uint8")
    noisy = keras.layers.Lambda(lambda x: x + keras.random.uniform((8, 8, 1)))(
        keras.layers.Rescaling(1 / 255)(inputs)
    )
    logits = keras.layers.Dense(3)(keras.layers.Flatten()(noisy))
    with pytest.raises(ExportError, match="draws random numbers"):
        export_saved_model(keras.Model(inputs, logits), tmp_path / "run" / "saved_model")
    assert list(tmp_path.rglob("*")) == []


def test_an_earlier_one_is_replaced_as_a_whole(model: keras.Model, tmp_path: Path) -> None:
    path = tmp_path / "saved_model"
    path.mkdir()
    (path / "left over").write_text("of an earlier export")
    export_saved_model(model, path)
    assert not (path / "left over").exists()
    assert [item.name for item in tmp_path.iterdir()] == ["saved_model"]
    assert SavedModel(path).predict(np.zeros((1, 12, 10, 3), np.uint8)).shape == (1, 4)


@pytest.mark.parametrize("damage", ["missing", "empty", "a file"])
def test_what_is_no_saved_model_is_one_clear_error(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "saved_model"
    if damage == "empty":
        path.mkdir()
    elif damage == "a file":
        path.write_text("no folder")
    with pytest.raises(ExportError, match="not a loadable SavedModel"):
        SavedModel(path)


def test_a_saved_model_without_the_signature_is_one_clear_error(tmp_path: Path) -> None:
    tf.saved_model.save(tf.Module(), str(tmp_path / "saved_model"))
    with pytest.raises(ExportError, match="not a loadable SavedModel"):
        SavedModel(tmp_path / "saved_model")
