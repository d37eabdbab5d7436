"""Warm starts, frozen epochs, contrastive pretraining, and trainings that are cut short."""

import csv
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from export.run_directory import RunDirectory
from export.serving_function import load_model
from pipeline.config import Config
from pipeline.options.training import TrainOptions
from pipeline.recipe import ConfigError, load_recipe, resolve
from pipeline.training.checkpoints import read_by_training
from pipeline.training.contrastive import SupervisedContrastive
from pipeline.training.train import train

SMALL = {
    "train.epochs": 2,
    "train.batch_size": 128,
    "train.optimizer.learning_rate": 0.2,
    "train.schedule": {"name": "constant"},
    "model.filters": [8, 8],
    "model.convolutions": 1,
}


def config_of(**more: object) -> Config:
    return resolve(load_recipe("digits"), {**SMALL, **more})


@pytest.fixture
def train_as(prepared: Path, tmp_path: Path) -> Callable[..., RunDirectory]:
    def train_as(name: str, **more: object) -> RunDirectory:
        (tmp_path / name).mkdir()
        (tmp_path / name / "data").symlink_to(prepared)
        run = RunDirectory(tmp_path / name)
        train(config_of(**more), run)
        return run

    return train_as


@pytest.fixture(scope="module")
def earlier(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """Treat it as read-only."""
    path = tmp_path_factory.mktemp("earlier")
    (path / "data").symlink_to(prepared)
    train(config_of(), RunDirectory(path))
    return RunDirectory(path)


def weights_of(run: RunDirectory) -> dict[str, list[NDArray[np.float32]]]:
    core = load_model(run.model).get_layer("core")
    return {layer.name: layer.get_weights() for layer in core.layers if layer.weights}


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def changed(one: RunDirectory, other: RunDirectory) -> set[str]:
    """Names of the layers whose weights differ."""
    weights, others = weights_of(one), weights_of(other)
    return {
        name
        for name in weights
        if any(not np.array_equal(*pair) for pair in zip(weights[name], others[name], strict=True))
    }


# Frozen epochs


def test_frozen_epochs_train_the_last_layer_alone(
    train_as: Callable[..., RunDirectory], earlier: RunDirectory
) -> None:
    """Batch normalization keeps its statistics, too."""
    start = {"model.init_from": str(earlier.path), "train.monitor": "loss"}
    frozen = train_as("frozen", **start, **{"train.frozen_epochs": 2})
    assert changed(frozen, earlier) == {"logits"}
    thawed = train_as("thawed", **start, **{"train.frozen_epochs": 1})
    assert changed(thawed, earlier) == set(weights_of(earlier))


def test_frozen_epochs_have_their_own_rate_and_the_schedule_begins_behind_them(
    train_as: Callable[..., RunDirectory],
) -> None:
    run = train_as(
        "run",
        **{
            "train.epochs": 4,
            "train.frozen_epochs": 2,
            "train.frozen_learning_rate": 0.03,
            "train.schedule": {"name": "step", "every_epochs": 1, "factor": 0.5},
        },
    )
    rows = rows_of(run.history)
    rates = [float(row["learning_rate"]) for row in rows]
    assert rates == pytest.approx([0.03, 0.03, 0.2, 0.1])
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert [row["step"] for row in rows] == ["11", "22", "33", "44"]


@pytest.mark.parametrize("decaying", ["kernels", "all"])
def test_the_kernels_alone_decay_in_every_phase(
    train_as: Callable[..., RunDirectory], decaying: str
) -> None:
    """At a rate so low and a decay so strong that nothing but the decay moves a weight."""
    more = {
        "train.pretraining": {"name": "contrastive", "epochs": 2},
        "train.frozen_epochs": 1,
        "train.optimizer.learning_rate": 1e-6,
        "train.optimizer.weight_decay": 1e5,
        "train.optimizer.weight_decay_on": decaying,
    }
    run = train_as("run", **more)
    for layer in load_model(run.model).get_layer("core").layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            assert (np.abs(layer.gamma - 1) < 1e-3).all() == (decaying == "kernels")
            assert (np.asarray(layer.gamma) < 0.5).all() == (decaying == "all")
        elif isinstance(layer, keras.layers.Conv2D):
            deviation = (2 / np.prod(layer.kernel.shape[:3])) ** 0.5  # as it began, he_normal
            assert np.std(layer.kernel) < 0.5 * deviation


# A warm start


def test_a_warm_start_takes_what_fits_and_says_what_does_not(
    train_as: Callable[..., RunDirectory],
    earlier: RunDirectory,
    capsys: pytest.CaptureFixture[str],
) -> None:
    train_as("run", **{"model.init_from": str(earlier.model), "model.filters": [8, 12]})
    said = capsys.readouterr().out
    assert f"starts from {earlier.model}: 2 of 5 layers with weights; not: " in said
    assert "core/stage2_conv1 (3x3x8x8 there, 3x3x8x12 here)" in said
    assert "core/logits (8x10 + 10 there, 12x10 + 10 here)" in said


def test_without_a_layer_that_fits_there_is_no_warm_start(
    train_as: Callable[..., RunDirectory], earlier: RunDirectory
) -> None:
    with pytest.raises(ConfigError, match=r"init_from: no layer of .*model\.keras has the name"):
        train_as("run", **{"model.init_from": str(earlier.path), "model.filters": [9, 7]})


@pytest.mark.parametrize("origin", ["nowhere", "."])
def test_a_warm_start_from_nowhere_is_refused(
    train_as: Callable[..., RunDirectory], origin: str
) -> None:
    with pytest.raises(ConfigError, match="expected a run directory with a trained model"):
        train_as("run", **{"model.init_from": origin})


def test_another_model_at_the_same_place_is_another_training(
    earlier: RunDirectory, tmp_path: Path
) -> None:
    file = tmp_path / "model.keras"
    file.write_bytes(earlier.model.read_bytes())
    config = config_of(**{"model.init_from": str(file)})
    before = read_by_training(config)
    assert before == read_by_training(config)
    file.write_bytes(b"another")
    assert before != read_by_training(config)


# Contrastive pretraining


def test_the_contrastive_loss_is_that_of_the_paper() -> None:
    generator = np.random.default_rng(3)
    points = generator.normal(size=(7, 4))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    labels, temperature = [0, 1, 0, 2, 1, 0, 3], 0.3
    expected = []
    for i in range(7):
        others = [a for a in range(7) if a != i]
        total = sum(np.exp(points[i] @ points[a] / temperature) for a in others)
        logs = [
            np.log(np.exp(points[i] @ points[p] / temperature) / total)
            for p in others
            if labels[p] == labels[i]
        ]
        expected.append(-np.mean(logs) if logs else 0.0)
    targets = np.eye(4, dtype=np.float32)[labels]
    losses = SupervisedContrastive(temperature).call(targets, points.astype(np.float32))
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_features_learned_by_contrast_serve_the_last_layer(
    train_as: Callable[..., RunDirectory],
) -> None:
    """Against features that nobody trained."""
    more = {"train.frozen_epochs": 2, "model.filters": [16, 32], "train.monitor": "val_accuracy"}
    untrained = train_as("untrained", **more)
    contrastive = {"name": "contrastive", "epochs": 6, "learning_rate": 0.5}
    run = train_as("run", **more, **{"train.pretraining": contrastive})
    rows = rows_of(run.pretraining)
    assert list(rows[0]) == [
        *("epoch", "step", "learning_rate", "loss", "val_loss", "seconds", "images_per_second")
    ]
    losses = [float(row["loss"]) for row in rows]
    assert len(losses) == 6 and losses[-1] < losses[0] - 0.3
    best, other = (
        max(float(row["val_accuracy"]) for row in rows_of(item.history))
        for item in (run, untrained)
    )
    assert best > other + 0.2
    assert not untrained.pretraining.exists()
    names = {layer.name for layer in load_model(run.model).get_layer("core").layers}
    assert not any("projection" in name for name in names)


# Cut short


def test_a_training_of_so_many_steps_ends_in_the_middle_of_an_epoch(
    train_as: Callable[..., RunDirectory],
) -> None:
    run = train_as(
        "run",
        **{
            "train.epochs": 5,
            "train.max_steps": 26,
            "train.schedule": {"name": "cosine", "warmup_epochs": 0, "floor": 0.25},
        },
    )
    rows = rows_of(run.history)
    assert [row["step"] for row in rows] == ["11", "22", "26"]
    assert float(rows[-1]["learning_rate"]) == pytest.approx(0.05), "the schedule ends with it"
    assert run.model.is_file()


def test_of_so_many_steps_the_frozen_epochs_may_take_all(
    train_as: Callable[..., RunDirectory],
) -> None:
    run = train_as("run", **{"train.frozen_epochs": 1, "train.max_steps": 11})
    assert [row["step"] for row in rows_of(run.history)] == ["11"]


def test_one_sample_at_a_time(train_as: Callable[..., RunDirectory]) -> None:
    run = train_as(
        "run",
        **{"train.batch_size": 1, "train.max_steps": 40, "train.optimizer.learning_rate": 0.01},
    )
    assert [row["step"] for row in rows_of(run.history)] == ["40"]


@pytest.mark.parametrize("part_size", [None, 500])
def test_the_full_batch_is_one_step(
    train_as: Callable[..., RunDirectory], part_size: int | None
) -> None:
    run = train_as("run", **{"train.batch_size": "full", "train.part_size": part_size})
    rows = rows_of(run.history)
    assert [row["step"] for row in rows] == ["1", "2"]
    assert float(rows[1]["loss"]) < float(rows[0]["loss"])


def test_time_that_is_over_leaves_a_model(
    train_as: Callable[..., RunDirectory], capsys: pytest.CaptureFixture[str]
) -> None:
    run = train_as("run", **{"train.max_minutes": 1e-6, "train.frozen_epochs": 1})
    assert [row["step"] for row in rows_of(run.history)] == ["1"]
    assert "ends after epoch 1: 1e-06 minutes are over" in capsys.readouterr().out
    assert run.model.is_file()


# What does not fit


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"train.schedule.warmup_epochs": 2.5},
            "train.schedule.warmup_epochs: expected at most 2, the epochs of the run, got 2.5; "
            "give a share of the run instead, as warmup: 0.05",
        ),
        (
            {"train.schedule.warmup_epochs": 1.5, "train.frozen_epochs": 1},
            "train.schedule.warmup_epochs: expected at most 1, the epochs after the frozen ones, "
            "got 1.5",
        ),
        (
            {"train.schedule": {"name": "step", "every_epochs": 3}},
            "train.schedule.every_epochs: expected at most 2, the epochs of the run, got 3",
        ),
        (
            {"train.schedule": {"name": "cosine-restarts", "cycle_epochs": 2}, "train.epochs": 9},
            "a cycle to end after 9, the epochs of the run; got ends after 6 or 14; give cycles: 3",
        ),
        (
            {"train.schedule": {"name": "cosine-restarts", "cycle_epochs": 3}},
            "end after 2, the epochs of the run; got ends after 3",
        ),
        (
            {"train.schedule": {"name": "adaptive-cosine", "cycle_epochs": 4}, "train.epochs": 10},
            "end after 10, the epochs of the run; got ends after 8 or 12",
        ),
        ({"train.frozen_epochs": 3}, "train.frozen_epochs: expected at most 2"),
        ({"train.batch_size": 1, "augment.mixup": 0.2}, "expected a train.batch_size of 2 or more"),
        (
            {"train.pretraining": {"name": "contrastive"}, "train.batch_size": "full"},
            "compares all images of a batch at once",
        ),
        (
            {"train.pretraining": {"name": "contrastive"}, "augment": {"mixup": 0.2}},
            "expected some augmentation of single images",
        ),
        ({"train.batch_size": "half"}, "train.batch_size"),
        ({"train.batch_size": 0}, "train.batch_size"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    overrides: dict[str, object], message: str
) -> None:
    base = {"data": "digits", "train": {"epochs": 2, "schedule": {"name": "cosine"}}}
    with pytest.raises(ConfigError) as caught:
        resolve(base, overrides)
    assert message in str(caught.value)
    assert str(caught.value).startswith(("train", "augment"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("schedule", "epochs"),
    [
        ({"name": "cosine-restarts", "cycle_epochs": 2}, 14),
        ({"name": "cosine-restarts", "cycle_epochs": 2, "multiplier": 1.0}, 8),
        ({"name": "adaptive-cosine", "cycle_epochs": 5}, 10),
        ({"name": "cosine", "warmup_epochs": 1.0}, 1),
        ({"name": "step", "every_epochs": 3}, 3),
    ],
)
def test_what_fits_is_not(schedule: dict[str, object], epochs: int) -> None:
    assert TrainOptions.model_validate({"epochs": epochs, "schedule": schedule}).epochs == epochs


def test_freezing_keeps_the_order_of_the_weights() -> None:
    """The best epoch's weights may be those of a frozen one."""
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3), keras.layers.BatchNormalization()]
    )
    before = [weight.path for weight in model.weights]
    variables = [variable.path for variable in model.variables]
    model.layers[0].trainable = model.layers[1].trainable = False
    assert [weight.path for weight in model.weights] == before
    assert [variable.path for variable in model.variables] == variables
