"""Which epoch is kept: the best figure, and among equal accuracies the lowest loss."""

import json
import math
from typing import Any

import keras
import numpy as np
import pytest

from pipeline.options.training import MONITORS, TIES
from pipeline.training.callbacks import Best


@pytest.fixture(scope="module")
def model() -> keras.Model:
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.stop_training = False
    return model


def watch(model: keras.Model, monitor: str, patience: int | None = None) -> Best:
    best = Best(monitor, MONITORS[monitor], patience)
    best.judged = model
    best.set_model(model)
    return best


def after(best: Best, model: keras.Model, epochs: list[dict[str, float]], first: int = 0) -> int:
    """The epoch that is kept, whose weights must be those that it ended with."""
    for epoch, figures in enumerate(epochs, first):
        model.set_weights([np.array([[epoch]], np.float32)])
        best.on_epoch_end(epoch, figures)
    best.take(model)
    assert model.get_weights()[0].item() == best.epoch
    return best.epoch


def epochs(accuracies: list[float], losses: list[float]) -> list[dict[str, float]]:
    return [
        {"val_accuracy": accuracy, "val_loss": loss, "accuracy": accuracy, "loss": loss}
        for accuracy, loss in zip(accuracies, losses, strict=True)
    ]


@pytest.mark.parametrize("monitor", ["val_accuracy", "accuracy"])
@pytest.mark.parametrize(
    ("accuracies", "losses", "kept"),
    [
        ([0.9, 0.9, 0.9], [0.5, 0.3, 0.4], 1),
        ([0.9, 0.9, 0.9], [0.5, 0.5, 0.5], 0),
        ([0.8, 0.9, 0.9, 0.7], [0.1, 0.6, 0.5, 0.05], 2),
        ([0.9, 0.8, 0.9], [0.3, 0.1, 0.4], 0),
        ([1.0, 1.0, 1.0, 1.0], [0.9, 0.4, math.nan, 0.3], 3),
    ],
    ids=["tie", "equal in both", "later tie", "worse tie", "nan"],
)
def test_of_equal_accuracies_the_lowest_loss_is_kept(
    model: keras.Model, monitor: str, accuracies: list[float], losses: list[float], kept: int
) -> None:
    assert after(watch(model, monitor), model, epochs(accuracies, losses)) == kept


@pytest.mark.parametrize("monitor", ["val_loss", "loss"])
def test_a_loss_needs_no_second_figure(model: keras.Model, monitor: str) -> None:
    assert monitor not in TIES
    assert after(watch(model, monitor), model, epochs([0.1, 0.9, 0.5], [0.3, 0.3, 0.2])) == 2


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_the_tie_is_remembered_through_a_stop(model: keras.Model, stop_after: int) -> None:
    all_epochs = epochs([0.9, 0.9, 0.9, 0.9], [0.5, 0.3, 0.4, 0.35])
    first = watch(model, "val_accuracy")
    after(first, model, all_epochs[:stop_after])
    state: Any = json.loads(json.dumps(first.state()))
    second = watch(model, "val_accuracy")
    second.restore(state, first.arrays())
    assert after(second, model, all_epochs[stop_after:], stop_after) == 1


def test_patience_counts_epochs_that_are_better_in_neither(model: keras.Model) -> None:
    best = watch(model, "val_accuracy", patience=2)
    model.stop_training = False
    falling = epochs([0.9] * 4, [0.5, 0.4, 0.3, 0.2])
    after(best, model, falling)
    assert not model.stop_training
    after(best, model, epochs([0.9, 0.9], [0.2, 0.3]), first=4)
    assert (best.epoch, model.stop_training) == (3, True)
