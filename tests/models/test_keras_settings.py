"""What a user set for Keras elsewhere changes nothing here."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FILE = {
    "backend": "jax",
    "floatx": "float16",
    "epsilon": 0.01,
    "image_data_format": "channels_first",
}
VARIABLES = {
    "KERAS_BACKEND": "torch",
    "KERAS_MAX_EPOCHS": "1",
    "KERAS_MAX_STEPS_PER_EPOCH": "1",
    "KERAS_NNX_ENABLED": "1",
    "TF_USE_LEGACY_KERAS": "1",
}

TRAINED_AND_BUNDLED = """
import sys
from pathlib import Path
from export.run_directory import RunDirectory
from pipeline.data.prepare import prepare
from pipeline.recipe import resolve
from pipeline.training.train import train

run = RunDirectory(Path("run"))
config = resolve({}, {
    "model.filters": [8], "model.convolutions": 1, "train.epochs": 2, "train.batch_size": 256
})
prepare(config, run)
train(config, run)

from PIL import Image
from export.prepared_data import PreparedData
images = Path("images")
data = PreparedData.open(run.data)
for index in range(40):
    place = images / data.manifest.class_names[data.labels[index]] / f"{index}.png"
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(data.images[index, ..., 0]).save(place)
Path("labels.txt").write_text("\\n".join(data.manifest.class_names) + "\\n")
from export.bundle import main
main(["run/model.keras", "--labels", "labels.txt", "--images", "images", "--output", "m.onnx",
      "--outputs", "logits"])
"""


def started(
    code: str, folder: Path, file: dict[str, object] | None, variables: dict[str, str]
) -> "subprocess.Popen[str]":
    """A process in an empty folder, whose home holds such a keras.json."""
    home = folder / "home"
    (home / ".keras").mkdir(parents=True)
    if file is not None:
        (home / ".keras" / "keras.json").write_text(json.dumps(file))
    mine = {key: value for key, value in os.environ.items() if not key.startswith("KERAS")}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**mine, "HOME": str(home), "PYTHONPATH": str(ROOT), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: "subprocess.Popen[str]") -> str:
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return output


def weights_of(run: Path) -> str:
    import keras

    digest = hashlib.sha256()
    for array in keras.saving.load_model(run / "model.keras", compile=False).get_weights():
        digest.update(array.dtype.str.encode() + array.tobytes())
    return digest.hexdigest()


@pytest.mark.slow
def test_training_and_bundle_are_those_of_a_user_without_settings(tmp_path: Path) -> None:
    plain = started(TRAINED_AND_BUNDLED, tmp_path / "plain", None, {})
    other = started(TRAINED_AND_BUNDLED, tmp_path / "other", FILE, VARIABLES)
    last_line = ended(plain).splitlines()[-1].replace("plain", "other")
    assert ended(other).splitlines()[-1] == last_line
    assert weights_of(tmp_path / "other" / "run") == weights_of(tmp_path / "plain" / "run")
    kept = tmp_path / "other" / "home" / ".keras" / "keras.json"
    assert json.loads(kept.read_text()) == FILE, "the user's file was changed"
    assert (tmp_path / "other" / "m.onnx").is_file()


SETTINGS_SHOWN = """
import json
import {module}
import keras
names = ("backend", "floatx", "epsilon", "image_data_format", "max_epochs", "max_steps_per_epoch")
print(json.dumps([
    *(getattr(keras.config, name)() for name in names),
    keras.config.dtype_policy().name,
    keras.utils.get_file("there.h5", "http://127.0.0.1:9/there.h5", cache_subdir="models"),
]))
"""


@pytest.mark.parametrize(
    "module",
    [
        "models.cnn",
        pytest.param("export.serving_function", marks=pytest.mark.slow),
        pytest.param("pipeline.input.mix", marks=pytest.mark.slow),
    ],
)
def test_whoever_imports_keras_first_gets_its_defaults(module: str, tmp_path: Path) -> None:
    """And finds the weights that the user has."""
    process = started(SETTINGS_SHOWN.format(module=module), tmp_path / "of", FILE, VARIABLES)
    weights = tmp_path / "of" / "home" / ".keras" / "models" / "there.h5"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    assert json.loads(ended(process)) == [
        *("tensorflow", "float32", 1e-7, "channels_last", None, None, "float32", str(weights))
    ]


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ("keras.config.set_floatx('float16')", "with floatx float16, expected float32"),
        ("keras.config.set_epsilon(1e-3)", "with epsilon 0.001, expected 1e-07"),
        ("keras.config.backend = lambda: 'jax'", "with backend jax, expected tensorflow"),
    ],
)
def test_keras_that_is_there_with_other_settings_is_refused(
    before: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    from models.keras_settings import KerasSettingsError, isolate_keras

    isolate_keras()
    floatx, epsilon = keras.config.floatx(), keras.config.epsilon()
    monkeypatch.setattr(keras.config, "backend", keras.config.backend)
    exec(before, {"keras": keras})
    try:
        with pytest.raises(KerasSettingsError, match=f"Keras was imported {message}; import"):
            isolate_keras()
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_epsilon(epsilon)


def test_settings_that_keras_refuses_are_one_line(tmp_path: Path) -> None:
    code = """
from export.quiet_tensorflow import import_tensorflow
from serve.command import run_command
run_command(lambda _: import_tensorflow())
"""
    process = started(code, tmp_path / "of", {"floatx": "float99"}, {})
    output, errors = process.communicate()
    assert (process.returncode, output) == (2, "")
    assert errors.startswith("error: Keras refuses its settings: Invalid `floatx` configuration.")
    assert errors.count("\n") == 1
