"""Every recipe that comes with the package: it resolves, and its header says how to run it."""

import shlex
from importlib import resources
from pathlib import Path
from typing import get_args

import pytest

from pipeline.command_line import parse
from pipeline.compare.recipe import comparison_names, load_comparison
from pipeline.config import Config
from pipeline.data.sources import PLACES
from pipeline.options.schedules import ScheduleOptions, does_not_fit
from pipeline.recipe import load_recipe, recipe_names, resolve
from pipeline.sweep.search import load_search, space_names
from pipeline.training.schedules import build_schedule, warmup_steps

RECIPES = recipe_names()


def header_lines(name: str) -> list[str]:
    """The comment at the top of the recipe, without its hash signs."""
    text = resources.files("pipeline.recipes").joinpath(f"{name}.yaml").read_text("utf-8")
    lines = text.splitlines()
    end = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return [line.removeprefix("#").strip() for line in lines[:end]]


def test_the_names_are_those_of_the_files():
    folder = Path(__file__).parents[2] / "pipeline" / "recipes"
    assert sorted(path.stem for path in folder.glob("*.yaml")) == RECIPES
    assert "digits" in RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_resolves_to_a_config_on_a_known_source(name):
    config = resolve(load_recipe(name), {})
    assert config.data.partition(":")[0] in PLACES
    assert config != Config()


@pytest.mark.parametrize("name", RECIPES)
def test_every_value_of_a_recipe_arrives_in_the_config(name):
    def assert_within(part: dict, whole: dict) -> None:
        for key, value in part.items():
            if isinstance(value, dict):
                assert_within(value, whole[key])
            else:
                assert whole[key] == value

    assert_within(load_recipe(name), resolve(load_recipe(name), {}).model_dump())


STEPS_PER_EPOCH = {"digits": 21, "fashion-mnist": 422}
"""Of each recipe's own images and batch size."""


@pytest.mark.parametrize(("name", "steps"), [("digits", 42), ("fashion-mnist", 422)])
def test_the_warmup_of_a_recipe_has_the_steps_that_its_result_was_measured_with(name, steps):
    train = resolve(load_recipe(name), {}).train
    all_steps = train.epochs * STEPS_PER_EPOCH[name]
    assert warmup_steps(train.schedule, STEPS_PER_EPOCH[name], all_steps) == steps


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_takes_other_epochs(name, epochs):
    train = parse(["--recipe", name, "--train.epochs", str(epochs)]).config.train
    steps = epochs * STEPS_PER_EPOCH[name]
    rate = build_schedule(
        train.schedule, peak=1.0, steps_per_epoch=STEPS_PER_EPOCH[name], steps=steps
    )
    assert max(map(rate, range(steps))) == 1


@pytest.mark.parametrize("epochs", [1, 3])
def test_comparisons_and_spaces_take_other_epochs(epochs):
    for name in comparison_names():
        configs = load_comparison(name, {"train.epochs": epochs}).runs.values()
        assert {config.train.epochs for config in configs} == {epochs}
    for name in space_names():
        assert load_search(name, {"train.epochs": epochs}).base.train.epochs == epochs


@pytest.mark.parametrize("schedule", [form() for form in get_args(ScheduleOptions)], ids=repr)
@pytest.mark.parametrize("epochs", [1, 2, 3, 20])
def test_every_schedule_by_its_defaults_fits_any_run(schedule, epochs):
    assert does_not_fit(schedule, epochs) is None


@pytest.mark.parametrize("name", RECIPES)
def test_the_header_names_the_command_that_runs_this_recipe(name):
    commands = [line for line in header_lines(name) if line.startswith("python -m pipeline.run")]
    assert commands, f"expected a line 'python -m pipeline.run ...' in the header of {name}.yaml"
    invocation = parse(shlex.split(commands[0])[3:])
    assert invocation.config == resolve(load_recipe(name), {})
    assert invocation.run_dir == Path("runs") / name
