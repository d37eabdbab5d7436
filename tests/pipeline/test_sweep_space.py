"""What a space may hold, and what is drawn from it. No training here."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState

from pipeline.recipe import ConfigError, dump_yaml
from pipeline.sweep.describe import short_names
from pipeline.sweep.directory import SweepDirectory
from pipeline.sweep.search import Search, load_search, space_names
from pipeline.sweep.study import Study

RATE = {"low": 0.001, "high": 1.0, "log": True}
MIXED: dict[str, Any] = {
    "train.optimizer.momentum": {"low": 0.5, "high": 0.9},
    "train.optimizer.beta_1": {"low": 0.8, "high": 0.95},
    "train.optimizer.learning_rate": RATE,
    "train.optimizer.name": ["sgd", "momentum", "adam"],
    "train.batch_size": {"low": 32, "high": 128, "step": 32},
    "model.filters": [[4], [4, 8], [16, 8]],
    "augment.horizontal_flip": [True, False],
    "train.early_stopping": [None, 2],
}


def search_of(tmp_path: Path, space: dict[str, Any], **more: Any) -> Search:
    path = tmp_path / "space.yaml"
    path.write_text(dump_yaml({"recipe": "digits", "space": space, **more}))
    return load_search(str(path))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"train.learning_rat": RATE}, "unknown config key train.learning_rat; did you mean"),
        (
            {"train.optimizer": ["adam"]},
            "unknown config key train.optimizer; did you mean train.optimizer.name?",
        ),
        ({"train.epochs": 3}, "train.epochs: expected a range {low: ..., high: ...} or a list"),
        ({"train.epochs": {"low": 3}}, "train.epochs: high: missing"),
        ({"train.epochs": {"low": 1, "hig": 3}}, "hig"),
        ({"train.epochs": {"low": "a", "high": 3}}, "train.epochs: low: expected a valid"),
        ({"train.epochs": {"low": 9, "high": 3}}, "expected low <= high, got 9 and 3"),
        ({"train.epochs": {"low": 1.5, "high": 3}}, "train.epochs: expected a valid integer"),
        ({"train.epochs": {"low": 0, "high": 3}}, "train.epochs: expected"),
        ({"train.epochs": {"low": 1, "high": 3, "step": 0}}, "step: expected"),
        ({"train.epochs": {"low": 1, "high": 3, "step": 0.5}}, "expected a whole step, got 0.5"),
        ({"train.epochs": {"low": 1, "high": 4, "step": 2}}, "whole number of steps above low"),
        (
            {"train.optimizer.learning_rate": {"low": 0, "high": 1, "log": True}},
            "expected low > 0 with log, got 0",
        ),
        (
            {"train.optimizer.learning_rate": {"low": 1, "high": 2, "log": True, "step": 1}},
            "expected log or step, got both",
        ),
        ({"train.optimizer.learning_rate": {"low": 0.1, "high": float("inf")}}, "high: expected"),
        ({"model.dropout": {"low": 0.0, "high": 1.0}}, "model.dropout: expected less than 1"),
        ({"train.optimizer.name": {"low": 0, "high": 1}}, "is no number, so expected a list"),
        ({"model.filters": {"low": 8, "high": 16}}, "is no number, so expected a list"),
        ({"augment.horizontal_flip": {"low": 0, "high": 1}}, "is no number"),
        ({"model.filters": []}, "expected different values to choose from, got []"),
        ({"train.batch_size": {"choices": []}}, "expected different values to choose from"),
        ({"train.batch_size": [32, 32]}, "expected different values to choose from"),
        ({"train.batch_size": [32, "many"]}, "train.batch_size: expected"),
        ({"model.filters": ["a", "b"]}, "model.filters: expected a list"),
        ({"train.optimizer.name": ["adam", "adamx"]}, "'adamx'; did you mean"),
        (
            {"train.optimizer.beta_1": {"low": 0.1, "high": 0.2}},
            "train.optimizer.beta_1: train.optimizer.name",
        ),
        (
            {
                "train.optimizer.name": ["sgd", "adam"],
                "train.optimizer.momentum": {"low": 0.1, "high": 0.2},
            },
            "train.optimizer.momentum: train.optimizer.name",
        ),
        (
            {
                "train.optimizer.name": ["sgd", "momentum"],
                "train.optimizer.momentum": {"low": 0.1, "high": 1.2},
            },
            "train.optimizer.momentum: expected less than 1; got 1.2",
        ),
        ({"data": ["digits", "fashion-mnist"]}, "data decides which images judge a trial"),
        ({"seed": {"low": 0, "high": 9}}, "seed decides which images judge a trial"),
        ({"evaluate.temperature": [True, False]}, "evaluate.temperature changes no training"),
        ({"train.checkpoint_minutes": {"low": 1, "high": 2}}, "changes no training"),
        ({}, "space: expected"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    tmp_path: Path, space: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        search_of(tmp_path, space)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "space.yaml") in str(caught.value)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"trails": 3}, "unknown config key trails; did you mean trials"),
        ({"trials": 0}, "trials: expected"),
        ({"objective": "f1"}, "objective: expected"),
        ({"sampler": "cma"}, "sampler: expected"),
        ({"pruner": "hyperbnd"}, "pruner.name: expected one of none, median, hyperband"),
        ({"pruner": {"name": "median", "warmup": 1}}, "unknown config key pruner.warmup"),
        ({"recipe": "digit"}, "no recipe 'digit'; did you mean digits"),
        ({"config": {"train": {"epoch": 1}}}, "config: unknown config key train.epoch; did you"),
        ({"sampler": "grid"}, "train.optimizer.learning_rate: a grid needs a step"),
    ],
)
def test_so_it_is_for_the_rest_of_the_file(
    tmp_path: Path, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        search_of(tmp_path, {"train.optimizer.learning_rate": RATE}, **more)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no space 'digit'; did you mean digits\?"):
        load_search("digit")
    (tmp_path / "a.yaml").write_text("- 1")
    with pytest.raises(ConfigError, match="expected a mapping"):
        load_search(str(tmp_path / "a.yaml"))
    (tmp_path / "b.yaml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="expected UTF-8"):
        load_search(str(tmp_path / "b.yaml"))


@pytest.mark.parametrize("name", space_names())
def test_every_space_of_the_package_is_sound(name: str, tmp_path: Path) -> None:
    search = load_search(name)
    written = tmp_path / "again.yaml"
    written.write_text(dump_yaml(search.document()))
    again = load_search(str(written))
    assert again.document() == search.document()
    assert (again.base, again.space) == (search.base, search.space)


def test_the_command_line_holds_for_all_trials_and_not_for_what_is_searched(
    tmp_path: Path,
) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("config: {train: {epochs: 4}}\nspace: {train.batch_size: [32, 64]}")
    assert load_search(str(path)).base.train.epochs == 4
    assert load_search(str(path), {"train.epochs": 2}).base.train.epochs == 2
    with pytest.raises(ConfigError, match=r"train.batch_size: expected a value or a search"):
        load_search(str(path), {"train.batch_size": 8})


def search_through(
    search: Search, sweep: SweepDirectory, *, broken_off: tuple[int, ...] = ()
) -> list[FrozenTrial]:
    """All trials; after those that are broken off a new process begins, so to say."""
    study = Study(sweep, search)
    left = list(broken_off)
    while True:
        with study.next_trial() as trial:
            if trial is None:
                return study.trials
            if trial.number not in left:
                study.optuna.tell(trial.number, 1 / (1 + trial.number % 7))
                continue
            left.remove(trial.number)
        study = Study(sweep, search)


@pytest.mark.parametrize(
    ("sampler", "trials", "pruner"),
    [("tpe", 13, "none"), ("tpe", 13, "hyperband"), ("random", 4, "median")],
)
def test_draws_are_a_function_of_the_seed_also_when_broken_off(
    tmp_path: Path, sampler: str, trials: int, pruner: str
) -> None:
    search = search_of(tmp_path, MIXED, trials=trials, sampler=sampler, pruner=pruner)
    drawn = [
        [trial.params for trial in search_through(search, SweepDirectory(tmp_path / name), **more)]
        for name, more in (("a", {}), ("b", {"broken_off": (0, 2, 2, trials - 1)}))
    ]
    assert drawn[0] == drawn[1]
    assert len({json.dumps(params) for params in drawn[0]}) == trials
    other = search_of(tmp_path, MIXED, trials=1, sampler=sampler, seed=1)
    assert search_through(other, SweepDirectory(tmp_path / "c"))[0].params != drawn[0][0]


def test_a_key_is_drawn_for_the_forms_that_have_it(tmp_path: Path) -> None:
    search = search_of(tmp_path, MIXED, trials=12, sampler="random")
    trials = search_through(search, SweepDirectory(tmp_path / "sweep"))
    own = {"sgd": set(), "momentum": {"momentum"}, "adam": {"beta_1"}}
    seen = set()
    for trial in trials:
        values, config = search.values(trial), search.config(trial)
        name = values["train.optimizer.name"]
        seen.add(name)
        assert {key.split(".")[-1] for key in values} & {"momentum", "beta_1"} == own[name]
        assert config.train.optimizer.name == name
        assert config.train.optimizer.learning_rate == values["train.optimizer.learning_rate"]
        assert config.model.model_dump()["filters"] in ([4], [4, 8], [16, 8])
        assert config.train.batch_size in (32, 64, 96, 128)
        assert type(config.train.batch_size) is int
        assert config.train.early_stopping in (None, 2)
    assert seen == set(own)


def test_a_key_of_a_form_that_the_recipe_chose(tmp_path: Path) -> None:
    space = {"train.optimizer.momentum": {"low": 0.5, "high": 0.9}}
    trials = search_through(search_of(tmp_path, space, trials=2), SweepDirectory(tmp_path / "s"))
    assert all("train.optimizer.momentum" in trial.params for trial in trials)


def test_a_grid_takes_every_point_once(tmp_path: Path) -> None:
    space = {
        "train.optimizer.momentum": {"low": 0.5, "high": 0.9, "step": 0.2},
        "train.optimizer.name": ["sgd", "momentum"],
        "train.epochs": {"low": 2, "high": 3},
    }
    search = search_of(tmp_path, space, sampler="grid")
    assert search.trials == 2 + 2 * 3
    values = [
        search.values(trial)
        for trial in search_through(search, SweepDirectory(tmp_path / "s"), broken_off=(3,))
    ]
    assert len({json.dumps(point) for point in values}) == len(values) == 8
    assert {point.get("train.optimizer.momentum") for point in values} == {None, 0.5, 0.7, 0.9}
    assert search_of(tmp_path, space, sampler="grid", trials=5).trials == 5


def test_a_trial_belongs_to_one_process_at_a_time(tmp_path: Path) -> None:
    search = search_of(tmp_path, MIXED, trials=2)
    sweep = SweepDirectory(tmp_path / "s")
    one, other = Study(sweep, search), Study(sweep, search)
    with one.next_trial() as first, other.next_trial() as second:
        assert first is not None
        assert second is not None
        assert (first.number, second.number) == (0, 1)
    with other.next_trial() as again:  # it has not ended, and nobody is at work
        assert again is not None
        assert again.number == 0
        assert again.params == first.params
        one.optuna.tell(1, 0.5)
        other.optuna.tell(0, 0.5)
    with one.next_trial() as nothing:
        assert nothing is None
    assert [trial.state for trial in one.trials] == [TrialState.COMPLETE] * 2


def test_other_images_do_not_belong_to_the_sweep(tmp_path: Path) -> None:
    search, sweep = search_of(tmp_path, MIXED), SweepDirectory(tmp_path / "s")
    Study(sweep, search).belongs_to("these")
    Study(sweep, search).belongs_to("these")
    with pytest.raises(ConfigError, match="digits: the images changed since the sweep began"):
        Study(sweep, search).belongs_to("others")


def test_a_directory_with_any_name(tmp_path: Path) -> None:
    search = search_of(tmp_path, MIXED, trials=1)
    assert len(search_through(search, SweepDirectory(tmp_path / "a {b}? #1%20'x'"))) == 1


def test_short_names() -> None:
    keys = ["train.optimizer.name", "model.name", "train.epochs", "model.dropout"]
    assert short_names(keys) == {
        "train.optimizer.name": "optimizer.name",
        "model.name": "model.name",
        "train.epochs": "epochs",
        "model.dropout": "dropout",
    }
