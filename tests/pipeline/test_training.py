"""Callbacks, and whole trainings."""

import csv
import json
import zlib
from pathlib import Path

import keras
import numpy as np
import pytest

from export.run_directory import RunDirectory
from export.serving_function import load_model
from pipeline.config import Config
from pipeline.history import HISTORY_COLUMNS
from pipeline.recipe import ConfigError, load_recipe, resolve
from pipeline.training.callbacks import LearningRate
from pipeline.training.train import train


def test_the_learning_rate_callback_follows_the_optimizers_count() -> None:
    """A run that continues at step 7 gets the rate of step 7."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1.0), "mse")
    callback = LearningRate(lambda step: 1 / (step + 1))
    callback.set_model(model)
    model.optimizer.iterations.assign(7)
    callback.on_train_batch_begin(0)
    assert float(model.optimizer.learning_rate.numpy()) == pytest.approx(1 / 8)


SHORT = {
    "train.epochs": 2,
    "train.batch_size": 128,
    "train.schedule": {"name": "cosine", "warmup_epochs": 1},
    "model.filters": [8, 8],
    "model.convolutions": 1,
}


def digits_config(**more: object) -> Config:
    return resolve(load_recipe("digits"), {**SHORT, **more})


def train_in(folder: Path, prepared: Path, **more: object) -> RunDirectory:
    folder.mkdir()
    (folder / "data").symlink_to(prepared)
    run = RunDirectory(folder)
    train(digits_config(**more), run)
    return run


def history_of(run: RunDirectory) -> list[dict[str, str]]:
    with open(run.history, newline="") as stream:
        return list(csv.DictReader(stream))


def test_same_seed_gives_bit_identical_weights(prepared: Path, tmp_path: Path) -> None:
    runs = [
        train_in(tmp_path / name, prepared, seed=seed, **{"model.dropout": 0.2})
        for name, seed in (("one", 5), ("two", 5), ("three", 6))
    ]
    one, two, three = ([np.asarray(w) for w in load_model(run.model).get_weights()] for run in runs)
    for weight, same in zip(one, two, strict=True):
        np.testing.assert_array_equal(weight, same)
    assert any(not np.array_equal(weight, other) for weight, other in zip(one, three, strict=True))
    timings = ("seconds", "images_per_second")
    histories = [
        [{key: row[key] for key in row if key not in timings} for row in history_of(run)]
        for run in runs
    ]
    assert histories[0] == histories[1]


def test_what_a_training_leaves_behind(prepared: Path, tmp_path: Path) -> None:
    run = train_in(tmp_path / "run", prepared)
    history = history_of(run)
    assert tuple(history[0]) == HISTORY_COLUMNS
    assert [row["epoch"] for row in history] == ["1", "2"]
    assert [row["step"] for row in history] == ["11", "22"]  # 1,295 images in batches of 128
    assert float(history[-1]["learning_rate"]) == pytest.approx(0.05 * 0.01, rel=1e-5)
    assert all(float(row["images_per_second"]) > 0 for row in history)
    training = json.loads(run.training.read_bytes())
    assert training["device"].startswith(("CPU", "GPU"))
    assert training["epochs"] == 2
    assert training["parameters"] == load_model(run.model).count_params()
    assert list(run.logs.rglob("events.out.tfevents.*"))


def test_the_selected_model_is_that_of_the_best_epoch(prepared: Path, tmp_path: Path) -> None:
    """A rate so high that later epochs get worse; the figures of the best one must come back."""
    from export.prepared_data import PreparedData
    from pipeline.input.batches import Examples, evaluation_batches
    from pipeline.training.build import compile_model

    more = {
        "train.epochs": 4,
        "train.monitor": "val_loss",
        "train.optimizer.learning_rate": 2.0,
        "train.schedule": {"name": "constant"},
    }
    run = train_in(tmp_path / "run", prepared, **more)
    losses = [float(row["val_loss"]) for row in history_of(run)]
    training = json.loads(run.training.read_bytes())
    assert training["best_epoch"] == losses.index(min(losses)) + 1
    data = PreparedData.open(run.data)
    model = load_model(run.model)
    compile_model(model, digits_config(**more), data)
    validation = Examples(data.images, data.labels, data.indices("validation"), 10)
    loss, _ = model.evaluate(evaluation_batches(validation, batch_size=256), verbose=0)
    assert loss == pytest.approx(min(losses), rel=1e-4)


def test_early_stopping(prepared: Path, tmp_path: Path) -> None:
    more = {
        "train.epochs": 30,
        "train.early_stopping": 1,
        "train.optimizer.learning_rate": 5.0,
        "train.schedule": {"name": "constant"},
    }
    run = train_in(tmp_path / "run", prepared, **more)
    assert len(history_of(run)) < 30


def test_a_loss_that_is_no_number_stops_with_a_reason(prepared: Path, tmp_path: Path) -> None:
    more = {"train.optimizer.learning_rate": 1e30, "model.batch_normalization": False}
    with pytest.raises(ConfigError, match="the loss is no longer a finite number"):
        train_in(tmp_path / "run", prepared, **more)
    assert not RunDirectory(tmp_path / "run").model.exists()


@pytest.mark.parametrize("name", ["sgd", "momentum", "adagrad", "rmsprop", "adam", "adamw"])
def test_every_optimizer_trains(name: str, prepared: Path, tmp_path: Path) -> None:
    more = {"train.optimizer.name": name, "train.loss.label_smoothing": 0.1, "train.epochs": 3}
    run = train_in(tmp_path / "run", prepared, **more)
    losses = [float(row["loss"]) for row in history_of(run)]
    assert losses[-1] < losses[0]


def test_images_too_small_for_the_model(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no pixel left after stage 4"):
        train_in(tmp_path / "run", prepared, **{"model.filters": [8, 8, 8, 8]})


def test_keras_gets_every_step_of_the_run_once_and_in_order(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the first epoch over and over, as `fit` would show it from a reset iterator."""
    import tensorflow as tf

    from pipeline.training import build as module

    seen: list[int] = []

    def recorded(*args: object, **kwargs: object) -> tf.data.Dataset:
        dataset = batches(*args, **kwargs)  # type: ignore[arg-type]
        expected.extend(zlib.crc32(images.tobytes()) for images, _ in dataset.as_numpy_iterator())

        def note(images: np.ndarray) -> np.ndarray:
            seen.append(zlib.crc32(images.tobytes()))
            return images

        def through(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            noted = tf.numpy_function(note, [images], tf.uint8)
            noted.set_shape(images.shape)
            return noted, labels

        return dataset.map(through)

    expected: list[int] = []
    batches = module.training_batches
    monkeypatch.setattr(module, "training_batches", recorded)
    train_in(tmp_path / "run", prepared, **{"train.epochs": 3})
    assert len(expected) == 33
    assert len(set(expected)) == 33
    assert seen == expected
