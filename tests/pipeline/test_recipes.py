"""Every recipe that comes with the package: it resolves, and its header says how to run it."""

import shlex
from importlib import resources
from pathlib import Path

import pytest

from pipeline.command_line import parse
from pipeline.config import Config
from pipeline.data.sources import PLACES
from pipeline.recipe import load_recipe, recipe_names, resolve

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


@pytest.mark.parametrize("name", RECIPES)
def test_the_header_names_the_command_that_runs_this_recipe(name):
    commands = [line for line in header_lines(name) if line.startswith("python -m pipeline.run")]
    assert commands, f"expected a line 'python -m pipeline.run ...' in the header of {name}.yaml"
    invocation = parse(shlex.split(commands[0])[3:])
    assert invocation.config == resolve(load_recipe(name), {})
    assert invocation.run_dir == Path("runs") / name
