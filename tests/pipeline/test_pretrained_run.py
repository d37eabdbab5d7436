"""A run with a backbone: from a file of weights to a bundle that says what its graph does."""

import json
from pathlib import Path

import keras
import pytest

from export.serving_function import load_model
from models.options import PretrainedOptions
from pipeline.config import Config
from pipeline.run import main
from pipeline.training.checkpoints import read_by_training
from serve.bundle import bundle_document


def config_of(weights: str | Path) -> Config:
    return Config(model=PretrainedOptions(backbone="MobileNet", weights=str(weights)))


def test_a_file_of_weights_is_known_by_its_content(tmp_path: Path) -> None:
    one, same, other = (tmp_path / f"{name}.weights.h5" for name in ("one", "same", "other"))
    one.write_bytes(b"some weights")
    same.write_bytes(b"some weights")
    other.write_bytes(b"other weights")
    assert read_by_training(config_of(one)) == read_by_training(config_of(same))
    assert read_by_training(config_of(one)) != read_by_training(config_of(other))
    gone = read_by_training(config_of(tmp_path / "gone.weights.h5"))
    assert gone["model"]["weights"] == str(tmp_path / "gone.weights.h5")
    assert read_by_training(config_of("none"))["model"]["weights"] == "none"


@pytest.mark.slow
def test_a_whole_run(make_photos, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos, run = make_photos({"cat": 40, "dog": 40}), tmp_path / "run"
    weights = tmp_path / "mobilenet.weights.h5"
    network = keras.applications.MobileNet(weights=None, include_top=False, pooling="avg")
    network.save_weights(weights)
    arguments = [
        "--data", f"folder:{photos}", "--run-dir", str(run), "--prepare.image_size", "[32, 32]",
        "--train.epochs", "2", "--train.batch_size", "16", "--train.optimizer.learning_rate",
        "0.000001", "--quantize.enabled", "false", "--model.name", "pretrained",
        "--model.backbone", "MobileNet", "--model.weights", str(weights),
    ]  # fmt: skip
    assert main(arguments) == 0
    assert json.loads((run / "parity.json").read_bytes())["passed"]
    document = bundle_document((run / "model.onnx").read_bytes())
    assert (document.mean, document.std) == ((0.0,) * 3, (1 / 255,) * 3)
    core = load_model(run / "model.keras").get_layer("core")
    for found, before in zip(
        core.get_layer("backbone").trainable_variables, network.trainable_variables, strict=True
    ):
        change = keras.ops.max(keras.ops.abs(found - before))
        assert 0 < change < 1e-2, "the weights of the file are where the training began"

    capsys.readouterr()
    assert main(arguments) == 0
    assert "train      skipped: unchanged" in capsys.readouterr().out
