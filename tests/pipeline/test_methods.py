"""Every method is in the table, has a source, and trains."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from export.run_directory import RunDirectory
from export.serving_function import load_model
from models.options import Initializer
from pipeline.config import Config
from pipeline.data.prepare import prepare
from pipeline.methods import OWN, markdown, methods
from pipeline.recipe import leaves, load_recipe, option_forms, resolve
from pipeline.training.train import train

ROOT = Path(__file__).resolve().parents[2]
MADE_HERE = {"train.schedule.name: adaptive-cosine"}


def test_the_document_is_what_the_code_says() -> None:
    assert (ROOT / "docs" / "methods.md").read_text("utf-8") == markdown()


def names() -> set[str]:
    return {row.name for rows in methods().values() for row in rows}


def choices() -> Iterator[str]:
    """Every form of every choice in the config tree."""
    for section, key in (("train", "optimizer"), ("train", "schedule"), ("train", "loss"),
                         ("train", "pretraining"), ("", "model")):  # fmt: skip
        options = Config.model_fields[section].annotation if section else Config
        for form in option_forms(options.model_fields[key]):
            name = form.model_fields["name"].default
            if name != "none":
                yield f"{section}.{key}.name: {name}".removeprefix(".")


def test_no_method_is_missing() -> None:
    assert set(choices()) <= names()
    assert {f"model.initializer: {name}" for name in get_args(Initializer)} <= names()
    assert {key for key, _ in leaves() if key.startswith("augment.")} <= names()


def test_every_method_has_a_source() -> None:
    rows = [row for rows in methods().values() for row in rows]
    assert {row.name for row in rows if row.source == OWN} == MADE_HERE
    assert all(row.text and len(row.text) < 200 for row in rows)


# Each one trains

TELLING: dict[str, Any] = {
    "train.optimizer.clip_value": 0.5,
    "train.optimizer.clip_norm": 0.5,
    "train.optimizer.clip_global_norm": 0.5,
    "model.l1": 1e-4,
    "model.l2": 1e-4,
    "model.dropout": 0.2,
    "model.spatial_dropout": True,
    "model.stem": "haar",
    "model.batch_normalization": False,
    "model.stochastic_depth": 0.3,
    "train.optimizer.weight_decay": 0.01,
    "train.loss.label_smoothing": 0.1,
    "train.weight_average": 0.9,
    "train.early_stopping": 2,
    "augment.crop_padding": 1,
    "augment.horizontal_flip": True,
    "augment.vertical_flip": True,
    "augment.rotation": 10,
    "augment.trivial": True,
    "augment.noise": 8.0,
}
"""A value for each option that is no name; 0.2 for the other augmentations."""

ALSO: dict[str, dict[str, Any]] = {
    "model.spatial_dropout": {"model.dropout": 0.2},
    "model.stochastic_depth": {"model.name": "resnet", "model.depth": 8},
    "model.name: resnet": {"model.depth": 8},
    "model.name: wide-resnet": {"model.depth": 10, "model.widening": 1},
    "model.name: fast": {"model.widths": [16, 32, 32]},
    "model.name: pretrained": {
        "model.weights": "none",
        "train.optimizer.learning_rate": 0.01,
    },
    **{
        f"train.optimizer.name: {name}": {"train.optimizer.learning_rate": 0.01}
        for name in ("rmsprop", "adam", "adamw", "keras")
    },
    "train.pretraining.name: contrastive": {
        "train.pretraining.epochs": 1,
        "augment.rotation": 10,
    },
    "train.schedule.name: cosine-restarts": {"train.schedule.cycle_epochs": 2},
    "train.schedule.name: adaptive-cosine": {"train.schedule.cycle_epochs": 1},
    "train.schedule.name: step": {"train.schedule.every_epochs": 1},
    "train.loss.name: squared-error": {"train.optimizer.learning_rate": 1.0},
}


def overrides_of(method: str) -> dict[str, Any]:
    key, _, name = method.partition(": ")
    value = name or TELLING.get(method, 0.2)
    return {key: value, **ALSO.get(method, {})}


@pytest.fixture(scope="module")
def enlarged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits of 32x32, for models that take nothing smaller."""
    path = tmp_path_factory.mktemp("enlarged")
    prepare(resolve(load_recipe("digits"), {"prepare.image_size": [32, 32]}), RunDirectory(path))
    return path / "data"


@pytest.mark.slow
@pytest.mark.parametrize("method", sorted(names()))
def test_every_method_trains_for_a_few_steps(
    method: str, prepared: Path, enlarged: Path, tmp_path: Path
) -> None:
    is_large = method.startswith("model.name")
    overrides = overrides_of(method)
    small = {} if "model.name" in overrides else {"model.filters": [8], "model.convolutions": 1}
    config = resolve(
        {"data": "digits", "train": {"schedule": {"name": "constant"}}},
        {"train.epochs": 2, "train.max_steps": 30, "train.batch_size": 64, **small, **overrides},
    )
    (tmp_path / "data").symlink_to(enlarged if is_large else prepared)
    run = RunDirectory(tmp_path)
    train(config, run)
    with open(run.history, newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert int(rows[-1]["step"]) == 30
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert all(np.isfinite(weight).all() for weight in load_model(run.model).get_weights())
