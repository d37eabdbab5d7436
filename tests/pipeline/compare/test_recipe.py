"""Comparison recipes: what they mean, and what is wrong with one, said before any training."""

import shlex
from pathlib import Path

import pytest

from models.options import CnnOptions
from pipeline.compare.command import main
from pipeline.compare.command_line import parse
from pipeline.compare.recipe import comparison_names, load_comparison
from pipeline.options.optimizers import AdamOptions, SgdOptions
from pipeline.recipe import ConfigError, load_recipe, resolve


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, text: str) -> str:
    (folder / "mine.yaml").write_text(text)
    return "mine.yaml"


def test_layers_lie_over_each_other(folder: Path) -> None:
    name = write(
        folder,
        """
        recipe: digits
        common: {train.epochs: 9, train: {optimizer: {name: adam}}, model.dropout: 0.5}
        runs:
          dotted: {train.optimizer.beta_1: 0.8, train.optimizer.learning_rate: 0.02}
          nested: {train: {optimizer: {name: sgd, learning_rate: 0.3}}, seed: 4}
          plain:
        """,
    )
    comparison = load_comparison(name, {"train.batch_size": 16, "seed": 7})
    dotted, nested, plain = comparison.runs.values()
    assert list(comparison.runs) == ["dotted", "nested", "plain"]
    assert comparison.data == "digits"
    assert dotted.train.optimizer == AdamOptions(beta_1=0.8, learning_rate=0.02)
    assert nested.train.optimizer == SgdOptions(learning_rate=0.3)
    assert plain.train.optimizer == AdamOptions()
    recipe = resolve(load_recipe("digits"), {})
    for config in comparison.runs.values():
        assert (config.train.epochs, config.train.batch_size, config.seed) == (9, 16, 7)
        assert isinstance(config.model, CnnOptions)
        assert config.model.dropout == 0.5
        assert config.augment == recipe.augment
        assert config.train.loss == recipe.train.loss


def test_without_a_recipe_the_defaults_are_the_ground(folder: Path) -> None:
    name = write(folder, "runs: {a: {}, b: {seed: 1}}")
    assert load_comparison(name, {}).runs["a"] == resolve({}, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runs: {a: {seed: 1}, b: {train.optimzer.name: sgd}}",
         "mine.yaml: run b: unknown config key train.optimzer; did you mean train.optimizer?"),
        ("runs: {a: {seed: 1}, b: {train.epochs: few}}", "run b: train.epochs: expected"),
        ("runs: {a: {seed: 1}, b: {train.optimizer: {name: sgd, beta_1: 0.5}}}",
         "mine.yaml: run b: train.optimizer.beta_1: train.optimizer.name sgd has no such option"),
        ("common: {epoch: 1}\nruns: {a: {}, b: {}}", "mine.yaml: common: unknown config key epoch"),
        ("common: [1]\nruns: {a: {}, b: {}}", "mine.yaml: common: expected a mapping of options"),
        ("runs: {a: {1: 2}, b: {}}", "mine.yaml: run a: unknown config key 1"),
        ("runs: {a: 3, b: {}}", "mine.yaml: run a: expected a mapping of options, got 3"),
        ("runs: {a: {}}", "mine.yaml: runs: expected names of at least two runs"),
        ("runs: [a, b]", "mine.yaml: runs: expected names of at least two runs"),
        ("", "mine.yaml: runs: expected names of at least two runs"),
        ("variants: {}", "mine.yaml: unknown key variants; expected recipe, common, runs"),
        ("recipe: [1]\nruns: {a: {}, b: {}}", "mine.yaml: recipe: expected the name of a recipe"),
        ("recipe: digit\nruns: {a: {}, b: {}}", "no recipe 'digit'; did you mean digits?"),
        ("runs: {a: {}, b: {}}", "mine.yaml: expected runs that differ, but a and b do not"),
        ("runs: {0.1: {}, b: {}}", "mine.yaml: runs: 0.1 names a directory"),
        ("runs: {../a: {}, b: {}}", "mine.yaml: runs: '../a' names a directory"),
        ("runs: {.lock: {}, b: {}}", "mine.yaml: runs: '.lock' names a directory"),
        ("runs: {comparison.csv: {}, b: {}}", "'comparison.csv' names a directory"),
        ("runs: {a: {}, a: {}}", "mine.yaml: not valid YAML"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_before_anything_is_made(
    text: str, message: str, folder: Path
) -> None:
    name = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        main(["--recipe", name])
    assert message in str(caught.value)
    assert [path.name for path in folder.iterdir()] == ["mine.yaml"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "optimisers"], "no comparison recipe 'optimisers'; did you mean optimizers?"),
        (["--recipe", "optimizers", "--train.optimizer.beta_1", "0.8"],
         "run sgd: train.optimizer.beta_1: train.optimizer.name sgd has no such option"),
        (["--recipe", "optimizers", "--train.epoch", "3"], "did you mean --train.epochs?"),
        (["--recipe", "optimizers", "--train.optimizer.name", "adam",
          "--train.optimizer.learning_rate", "0.1"], "runs that differ, but sgd and momentum do"),
    ],
)  # fmt: skip
def test_what_is_wrong_on_the_command_line(
    arguments: list[str], message: str, folder: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        main(arguments)
    assert message in str(caught.value)
    assert list(folder.iterdir()) == []


def test_missing_data_are_missed_before_the_first_training(folder: Path) -> None:
    name = write(folder, "runs: {a: {}, b: {data: 'folder:nowhere'}}")
    with pytest.raises(Exception, match="folder:nowhere: no such folder"):
        main(["--recipe", name])
    assert [path.name for path in folder.iterdir()] == ["mine.yaml"]


def test_a_file_where_the_runs_should_live(folder: Path) -> None:
    (folder / "notes").write_text("mine")
    with pytest.raises(ConfigError, match="notes/sgd: expected a new directory"):
        main(["--recipe", "optimizers", "--run-dir", "notes"])
    assert (folder / "notes").read_text() == "mine"


def test_where_the_runs_live() -> None:
    runs = parse(["--recipe", "optimizers"]).planned
    assert runs["adam"].run_dir == Path("runs/compare-optimizers-digits/adam")
    request = parse(["--recipe", "optimizers", "--data", "fashion-mnist", "--fresh"])
    assert request.output == Path("runs/compare-optimizers-fashion-mnist")
    assert {run.config.data for run in request.planned.values()} == {"fashion-mnist"}
    assert {run.fresh for run in request.planned.values()} == {True}
    request = parse(["--recipe", "optimizers", "--run-dir", "here", "--output", "there"])
    assert request.output == Path("there")
    assert request.planned["sgd"].run_dir == Path("here/sgd")


@pytest.mark.parametrize("name", comparison_names())
def test_every_published_recipe_is_explained(name: str) -> None:
    """Its header has its command, and the rest of the file arrives in the configs."""
    folder = Path(__file__).parents[3] / "pipeline" / "comparisons"
    text = (folder / f"{name}.yaml").read_text("utf-8")
    header = [line.removeprefix("#").strip() for line in text.splitlines() if line[:1] == "#"]
    commands = [line for line in header if line.startswith("python -m pipeline.compare")]
    request = parse(shlex.split(commands[0])[3:])
    comparison = load_comparison(name, {})
    assert {run: planned.config for run, planned in request.planned.items()} == comparison.runs
    for command in commands:
        parse(shlex.split(command)[3:])


def test_the_optimizers_differ_in_nothing_but_the_optimizer() -> None:
    runs = load_comparison("optimizers", {}).runs
    names = ["sgd", "momentum", "adagrad", "rmsprop", "adam"]
    assert list(runs) == [config.train.optimizer.name for config in runs.values()] == names
    others = [config.model_dump(exclude={"train": {"optimizer"}}) for config in runs.values()]
    assert all(other == others[0] for other in others)
