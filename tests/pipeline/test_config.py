"""From a command line and a recipe to a config, or to one line that says what is wrong."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.command_line import parse
from pipeline.config import Config, TrainOptions
from pipeline.options.optimizers import AdamOptions, MomentumOptions
from pipeline.options.schedules import CosineOptions
from pipeline.recipe import (
    ConfigError,
    differing_keys,
    fingerprint,
    flat,
    leaves,
    load_recipe,
    parse_value,
    resolve,
    to_yaml,
)
from serve.command import LockstepError

ROOT = Path(__file__).parents[2]
OPTIMIZERS = "sgd, momentum, adagrad, rmsprop, adam, adamw, keras"
SCHEDULES = (
    "constant, step, exponential, inverse-time, polynomial, cosine, cosine-restarts, one-cycle, "
    "adaptive-cosine, plateau"
)


def message_of(*arguments: str) -> str:
    with pytest.raises(LockstepError) as caught:
        parse(list(arguments))
    return str(caught.value)


def recipe_message(recipe: dict) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(recipe, {})
    return str(caught.value)


@pytest.fixture
def write_recipe(tmp_path):
    def write(content: str | bytes, name: str = "mine.yaml") -> str:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return write


# What comes from where


def test_without_arguments_the_digits_recipe_runs():
    invocation = parse([])
    assert invocation.config == resolve(load_recipe("digits"), {})
    assert invocation.run_dir == Path("runs/digits")


def test_overrides_beat_the_recipe_which_beats_the_defaults(write_recipe):
    recipe = write_recipe("train: {epochs: 7, batch_size: 16}\n")
    train = parse(["--recipe", recipe, "--train.epochs", "9"]).config.train
    assert train == TrainOptions(epochs=9, batch_size=16)


def test_an_empty_recipe_gives_the_defaults(write_recipe):
    assert parse(["--recipe", write_recipe("# nothing yet\n")]).config == Config()


def test_other_data_than_a_recipes_take_the_defaults():
    assert parse(["--data", "npz:some.npz"]).config == Config(data="npz:some.npz")


@pytest.mark.parametrize("spelling", [["--train.epochs", "3"], ["--train.epochs=3"]])
def test_both_spellings_of_an_option(spelling):
    assert parse(spelling).config.train.epochs == 3


def test_the_last_of_two_equal_options_counts():
    assert parse(["--seed", "1", "--seed", "2"]).config.seed == 2


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (["--deterministic"], True),
        (["--deterministic", "true"], True),
        (["--deterministic=false"], False),
        (["--deterministic", "--seed", "3"], True),
        ([], False),
    ],
)
def test_a_switch_needs_no_value(arguments: list[str], value: bool) -> None:
    assert parse(arguments).config.deterministic is value


def test_fresh_is_no_key_of_the_config() -> None:
    assert parse(["--fresh"]).fresh
    assert not parse([]).fresh
    assert parse(["--fresh"]).config == parse([]).config


def test_a_config_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Config().seed = 3


# Choices among forms


def test_another_form_drops_the_options_of_the_recipes_form(write_recipe):
    recipe = write_recipe(
        "train: {optimizer: {name: momentum, learning_rate: 0.3, momentum: 0.8, nesterov: true}}"
    )
    config = parse(["--recipe", recipe, "--train.optimizer.name", "adam"]).config
    assert config.train.optimizer == AdamOptions()


def test_the_same_form_keeps_the_options_of_the_recipe(write_recipe):
    recipe = write_recipe("train: {optimizer: {name: momentum, momentum: 0.8}}")
    config = parse(["--recipe", recipe, "--train.optimizer.name", "momentum"]).config
    assert config.train.optimizer == MomentumOptions(momentum=0.8)


@pytest.mark.parametrize("name_comes", ["first", "last"])
def test_options_given_with_another_form_hold_in_any_order(name_comes):
    name = ["--train.optimizer.name", "adam"]
    rate = ["--train.optimizer.learning_rate", "0.02"]
    config = parse(name + rate if name_comes == "first" else rate + name).config
    assert config.train.optimizer == AdamOptions(learning_rate=0.02)


def test_a_recipe_may_name_the_form_after_its_options():
    recipe = {"train": {"optimizer": {"learning_rate": 0.02, "name": "adam"}}}
    assert resolve(recipe, {}).train.optimizer == AdamOptions(learning_rate=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--train.optimizer.beta_1", "0.5"],
            "train.optimizer.beta_1: train.optimizer.name momentum has no such option; "
            "add --train.optimizer.name adam or adamw",
        ),
        (
            ["--train.optimizer.rho", "0.5", "--train.optimizer.name", "sgd"],
            "train.optimizer.rho: train.optimizer.name sgd has no such option; "
            "add --train.optimizer.name rmsprop",
        ),
        (
            ["--model.backbone", "ResNet50"],
            "model.backbone: model.name cnn has no such option; add --model.name pretrained",
        ),
        (
            ["--train.schedule.patience", "3"],
            "train.schedule.patience: train.schedule.name cosine has no such option; "
            "add --train.schedule.name plateau",
        ),
        (
            ["--train.loss.gamma", "1"],
            "train.loss.gamma: train.loss.name cross-entropy has no such option; "
            "add --train.loss.name focal",
        ),
        (
            ["--train.pretraining.epochs", "1"],
            "train.pretraining.epochs: train.pretraining.name none has no such option; "
            "add --train.pretraining.name contrastive",
        ),
    ],
)
def test_an_option_of_another_form_says_which_form_has_it(arguments, message):
    assert message_of(*arguments) == message


def test_a_recipes_option_of_another_form_says_which_form_has_it(write_recipe):
    recipe = write_recipe("model: {name: lenet, filters: [8]}")
    assert message_of("--recipe", recipe) == (
        f"{recipe}: model.filters: model.name lenet has no such option; add model.name cnn"
    )


def test_a_name_in_place_of_a_section_says_how_to_write_it():
    assert recipe_message({"train": {"optimizer": "adam"}}).endswith(
        "; got 'adam'; write train.optimizer: {name: adam}"
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [("adm", "'adm'; did you mean adam?"), ("5", "'5'"), ("null", "'None'"), ("Adam", "'Adam'")],
)
def test_an_unknown_form_lists_the_known_ones(name, text):
    message = message_of("--train.optimizer.name", name)
    assert message.startswith(f"train.optimizer.name: expected one of {OPTIMIZERS}; got {text}")


def test_an_unknown_architecture_lists_the_known_ones():
    message = message_of("--model.name", "resnett")
    assert message.startswith("model.name: expected one of cnn, fast, lenet, pretrained, resnet, ")
    assert message.endswith("got 'resnett'; did you mean resnet?")


# Typos


@pytest.mark.parametrize(
    ("option", "nearest"),
    [
        ("--train.epoch", "--train.epochs"),
        ("--train.optimiser.name", "--train.optimizer.name"),
        ("--prepare.imagesize", "--prepare.image_size"),
        ("--rundir", "--run-dir"),
        ("--train.epoch=3", "--train.epochs"),
    ],
)
def test_an_unknown_option_names_the_nearest(option, nearest):
    assert message_of(option, "3") == f"unknown argument {option}; did you mean {nearest}?"


@pytest.mark.parametrize(
    ("option", "meant"),
    [
        ("--train.learning_rate", "--train.optimizer.learning_rate"),
        ("--learning_rate", "--train.optimizer.learning_rate"),
        ("--learning-rate", "--train.optimizer.learning_rate"),
        ("--lr", "--train.optimizer.learning_rate"),
        ("--train.lr", "--train.optimizer.learning_rate"),
        ("--train.optimizer.lr", "--train.optimizer.learning_rate"),
        ("--optimizer.learning_rate", "--train.optimizer.learning_rate"),
        ("--epochs", "--train.epochs"),
        ("--Epochs", "--train.epochs"),
        ("--batch_size", "--train.batch_size"),
        ("--batch-size", "--train.batch_size"),
        ("--train.batch-size", "--train.batch_size"),
        ("--optimizer", "--train.optimizer.name"),
        ("--train.optimizer", "--train.optimizer.name"),
        ("--schedule", "--train.schedule.name"),
        ("--model", "--model.name"),
        ("--backbone", "--model.backbone"),
        ("--weight_decay", "--train.optimizer.weight_decay"),
        ("--image_size", "--prepare.image_size"),
        ("--image-size", "--prepare.image_size"),
        ("--warmup", "--train.schedule.warmup"),
        ("--train.warmup_epochs", "--train.schedule.warmup_epochs"),
        ("--patience", "--train.early_stopping"),
        ("--model.learning_rate", "--train.optimizer.learning_rate"),
        ("--beta_1", "--train.optimizer.beta_1"),
        ("--output", "--run-dir"),
        ("--augment.flip", "--augment.horizontal_flip or --augment.vertical_flip"),
        (
            "--train.temperature",
            "--evaluate.temperature or --train.pretraining.temperature",
        ),
    ],
)
def test_a_wrong_prefix_or_the_word_of_other_tools_names_the_key(option, meant):
    message = f"unknown argument {option}; did you mean {meant}?"
    assert message_of(option, "1") == message
    if not option.startswith("--Epochs"):
        assert message_of(f"{option}=1") == message.replace(f"{option};", f"{option}=1;")


@pytest.mark.parametrize("key", sorted({key for key, _ in leaves() if not key.endswith(".name")}))
def test_the_end_of_every_key_leads_to_it_or_to_the_one_in_use(key):
    leaf = key.rpartition(".")[2]
    if leaf == key or leaf in ("optimizer", "decay", "patience"):  # words for other keys, too
        return
    message = message_of(f"--{leaf}", "1")
    usual = flat(Config().model_dump())
    same = [name for name, _ in leaves() if name.endswith(f".{leaf}")]
    expected = {name for name in same if name in usual} or set(same)
    assert expected & set(re.findall(r"--([\w.]+)", message.partition("did you mean")[2]))


def test_several_values_after_an_option_are_one_word():
    assert message_of("--model.filters", "8", "16", "32", "--seed", "1") == (
        "unknown argument 16; several values are one word: --model.filters 8,16,32"
    )
    assert message_of("--seed", "1", "--prepare.image_size", "64", "64").endswith(
        "several values are one word: --prepare.image_size 64,64"
    )


@pytest.mark.parametrize(
    ("recipe", "key", "meant"),
    [
        ({"learning_rate": 0.1}, "learning_rate", "train.optimizer.learning_rate"),
        ({"train": {"lr": 0.1}}, "train.lr", "train.optimizer.learning_rate"),
        ({"train": {"learning_rate": 0.1}}, "train.learning_rate", "train.optimizer.learning_rate"),
        ({"epochs": 3}, "epochs", "train.epochs"),
        ({"optimizer": {"name": "adam"}}, "optimizer", "train.optimizer"),
        ({"train": {"batch-size": 3}}, "train.batch-size", "train.batch_size"),
    ],
)
def test_a_recipes_key_in_the_wrong_place_names_the_right_one(recipe, key, meant):
    assert recipe_message(recipe) == f"unknown config key {key}; did you mean {meant}?"


@pytest.mark.parametrize("words", [["quickly"], ["--zzzzzzzz", "1"]])
def test_an_unknown_option_like_no_other_is_named_alone(words):
    assert message_of(*words) == f"unknown argument {words[0]}"


def test_options_cannot_be_abbreviated():
    assert message_of("--train.epo", "3").startswith("unknown argument --train.epo")


@pytest.mark.parametrize(
    ("recipe", "key", "nearest"),
    [
        ({"train": {"epoch": 3}}, "train.epoch", "train.epochs"),
        ({"sed": 3}, "sed", "seed"),
        ({"trian": {"epochs": 3}}, "trian", "train"),
        ({"model": {"filtres": [8]}}, "model.filtres", "model.filters"),
        ({"train": {"optimiser": {}}}, "train.optimiser", "train.optimizer"),
        (
            {"train": {"optimizer": {"name": "adam", "beta1": 0.5}}},
            "train.optimizer.beta1",
            "train.optimizer.beta_1",
        ),
    ],
)
def test_an_unknown_key_names_the_nearest(recipe, key, nearest):
    assert recipe_message(recipe) == f"unknown config key {key}; did you mean {nearest}?"


def test_further_problems_are_counted():
    recipe = {"seed": -1, "train": {"epochs": 0}, "banana": 1}
    assert recipe_message(recipe) == (
        "seed: expected greater than or equal to 0; got -1 (and 2 more)"
    )


# Values


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("train.epochs", "many", "expected a valid integer; got 'many'"),
        ("train.epochs", "3.0", "expected a valid integer; got 3.0"),
        ("train.epochs", "true", "expected a valid integer; got True"),
        ("train.epochs", "", "expected a valid integer; got None"),
        ("train.epochs", "no", "expected a valid integer; got 'no'"),
        ("train.epochs", "12:30", "expected a valid integer; got '12:30'"),
        ("train.epochs", "0", "expected greater than or equal to 1; got 0"),
        ("train.epochs", "-5", "expected greater than or equal to 1; got -5"),
        ("seed", "2147483648", "expected less than 2147483648; got 2147483648"),
        ("prepare.channels", "2", "expected 1 or 3; got 2"),
        ("prepare.test_share", "1", "expected less than 1; got 1"),
        ("prepare.test_share", "0", "expected greater than 0; got 0"),
        ("prepare.resize", "zoom", "expected 'crop', 'pad' or 'stretch'; got 'zoom'"),
        (
            "train.monitor",
            "f1",
            "expected 'val_accuracy', 'val_loss', 'accuracy' or 'loss'; got 'f1'",
        ),
        ("train.optimizer.nesterov", "yes", "expected a valid boolean; got 'yes'"),
        ("train.optimizer.learning_rate", "0", "expected greater than 0; got 0"),
        ("train.optimizer.momentum", "1", "expected less than 1; got 1"),
        ("augment.rotation", "200", "expected less than or equal to 180; got 200"),
    ],
)
def test_a_bad_value_gives_one_line_with_key_value_and_expectation(option, value, message):
    assert message_of(f"--{option}", value) == f"{option}: {message}"


SIZE_FORMS = "a side as 64, or height and width as 64x48, 64,48 or [64, 48]"


@pytest.mark.parametrize(
    "value",
    ["[16]", "[16, 16, 1]", "[a, b]", "big", "64x", "64x48x3", "64.5", "-64", "true", "[64.0, 48]"],
)
def test_an_image_size_of_no_known_form_lists_the_forms(value, write_recipe):
    message = message_of(f"--prepare.image_size={value}")
    assert message.startswith(f"prepare.image_size: expected {SIZE_FORMS}; got ")
    recipe = write_recipe(f"prepare: {{image_size: {value}}}")
    assert message_of("--recipe", recipe) == f"{recipe}: {message}"


@pytest.mark.parametrize("value", ["[0, 16]", "0", "5000", "64x5000"])
def test_an_image_size_out_of_range_is_refused(value):
    message = message_of("--prepare.image_size", value)
    assert re.match(r"prepare.image_size.[01]: expected (greater|less) than or equal to", message)


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("64", [64, 64]),
        ("224x224", [224, 224]),
        ("64X48", [64, 48]),
        ("64×48", [64, 48]),
        ("64 x 48", [64, 48]),
        ("64,48", [64, 48]),
        ("64, 48", [64, 48]),
        ("64 48", [64, 48]),
        ("[64,48]", [64, 48]),
        ("(64, 48)", [64, 48]),
    ],
)
def test_an_image_size_is_a_side_or_height_and_width(value, size, write_recipe):
    assert parse(["--prepare.image_size", value]).config.prepare.image_size == size
    quoted = value if value.startswith("[") or "," not in value else f'"{value}"'
    recipe = write_recipe(f"prepare:\n  image_size: {quoted}\n")
    assert parse(["--recipe", recipe]).config.prepare.image_size == size


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("model.filters", "8", [8]),
        ("model.filters", "8,16", [8, 16]),
        ("model.filters", "8, 16", [8, 16]),
        ("model.filters", "[8, 16]", [8, 16]),
        ("model.dense_units", "64", [64]),
        ("model.dense_units", "[]", []),
        ("model.convolutions", "2", 2),
        ("model.convolutions", "1,1,2", [1, 1, 2]),
        ("train.loss.class_weights", "1,0.5", [1.0, 0.5]),
        ("train.loss.class_weights", "balanced", "balanced"),
    ],
)
def test_a_list_may_be_written_without_brackets(option, value, expected, write_recipe):
    assert flat(resolve({}, {option: parse_value(value, "")}).model_dump())[option] == expected
    section, _, leaf = option.rpartition(".")
    assert (
        parse([f"--{option}", value]).config
        == parse([f"--{section}.{leaf}", json.dumps(expected).strip('"')]).config
    )


@pytest.mark.parametrize("value", ["a", "8,", "8,x", "8;16"])
def test_what_is_no_list_says_how_to_write_one(value):
    message = message_of("--model.filters", value)
    assert message == f"model.filters: expected a list, as 8,16 or [8, 16]; got {value!r}"


@pytest.mark.parametrize(
    ("recipe", "start"),
    [
        ({"train": 5}, "train: expected a valid dictionary"),
        ({"model": "cnn"}, "model: expected a valid dictionary"),
        ({"train": {"optimizer": "adam"}}, "train.optimizer: expected a valid dictionary"),
        ({"data": 5}, "data: expected a valid string; got 5"),
        ({1: 2}, "1: expected"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(recipe, start):
    message = recipe_message(recipe)
    assert message.startswith(start)
    assert "\n" not in message


def test_an_option_without_a_value_points_to_the_help():
    assert message_of("--train.epochs") == (
        "argument --train.epochs: expected one argument; see python -m pipeline.run --help"
    )


def test_a_value_that_is_no_yaml_names_its_option():
    assert message_of("--train.epochs", "[").startswith("--train.epochs: not valid YAML:")


def test_the_command_prints_one_line_and_exits_with_2():
    command = [sys.executable, "-m", "pipeline.run", "--train.epochs", "["]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(r"error: --train\.epochs: not valid YAML: [^\n]+\n", done.stderr)


# YAML 1.2


@pytest.mark.parametrize("text", ["1e-3", "0.001", "1.0E-3", "1e-03"])
def test_scientific_notation_is_a_number(text):
    assert parse(["--train.optimizer.learning_rate", text]).config.train.optimizer == (
        resolve(load_recipe("digits"), {"train.optimizer.learning_rate": 0.001}).train.optimizer
    )


@pytest.mark.parametrize("word", ["no", "on", "yes", "off", "NO"])
def test_words_are_text(write_recipe, word):
    assert resolve(load_recipe(write_recipe(f"data: {word}\n")), {}).data == word


def test_a_leading_zero_does_not_make_a_number_octal():
    assert parse(["--seed", "010"]).config.seed == 10


def test_null_switches_an_optional_value_off(write_recipe):
    recipe = write_recipe("train: {early_stopping: 5}\n")
    assert parse(["--recipe", recipe]).config.train.early_stopping == 5
    config = parse(["--recipe", recipe, "--train.early_stopping", "null"]).config
    assert config.train.early_stopping is None


@pytest.mark.parametrize("text", ["1e3", "null", "npz:[", "folder:a: b #c", "-"])
def test_data_are_text_whatever_they_look_like(text):
    assert parse([f"--data={text}"]).config.data == text


# The resolved config as a file


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"train.optimizer.name": "adamw", "train.optimizer.epsilon": 1e-12},
        {"train.optimizer.learning_rate": 3e-05, "train.schedule.name": "constant"},
        {"model.name": "resnet", "model.depth": 8},
        {"model.dense_units": [10, 20], "prepare.image_size": [16, 24], "prepare.channels": 3},
        {"train.early_stopping": 3, "augment.horizontal_flip": True},
        *({"data": data} for data in ("no", "null", "1e-3", "~", "folder:a: b #c", "npz:é 'x'\"")),
    ],
)
def test_the_written_config_resolves_to_itself(write_recipe, overrides):
    config = resolve({}, overrides)
    path = write_recipe(to_yaml(config))
    assert resolve(load_recipe(path), {}) == config
    assert differing_keys(config.model_dump(), resolve(load_recipe(path), {}).model_dump()) == []


def test_the_written_config_has_every_default(write_recipe):
    assert load_recipe(write_recipe(to_yaml(Config()))) == Config().model_dump()


# Differences


def test_equal_configs_do_not_differ():
    assert differing_keys(Config().model_dump(), Config().model_dump()) == []


def test_every_differing_key_is_named_with_both_values():
    other = resolve({}, {"seed": 4, "prepare.image_size": [8, 9], "train.schedule.floor": 0.5})
    assert differing_keys(Config().model_dump(), other.model_dump()) == [
        "seed 0 -> 4",
        "prepare.image_size None -> [8, 9]",
        "train.schedule.floor 0.01 -> 0.5",
    ]


def test_another_form_differs_in_its_name_and_in_what_only_one_of_them_has():
    cosine = CosineOptions()
    assert differing_keys(
        Config().model_dump(), resolve({}, {"train.schedule.name": "constant"}).model_dump()
    ) == [
        "train.schedule.name cosine -> constant",
        f"train.schedule.warmup {cosine.warmup} -> None",
        f"train.schedule.floor {cosine.floor} -> None",
    ]


def test_a_fingerprint_depends_on_values_and_not_on_their_order():
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    assert re.fullmatch("[0-9a-f]{64}", fingerprint(None))


# Help


@pytest.fixture(scope="module")
def help_entries() -> dict[str, str]:
    """Each option's entry in `--help`, in one line: metavar, text and default."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.run", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    entries: dict[str, str] = {}
    for match in re.finditer(r"^  --(\S+) (.*(?:\n {3,}.*)*)", done.stdout, re.MULTILINE):
        assert match[1] not in entries, f"--{match[1]} is listed twice"
        # A word broken over two lines keeps its hyphen, so only spaces need mending.
        entries[match[1]] = " ".join(match[2].split())
    return entries


LEAVES = [(key, field) for key, field in leaves() if not key.endswith(".name")]


def test_the_help_lists_exactly_the_keys_of_the_tree(help_entries):
    own = {"recipe", "run-dir", "fresh", "debug"}
    assert set(help_entries) - own == {key for key, _ in leaves()}


@pytest.mark.parametrize(
    ("key", "field"), LEAVES, ids=[f"{key}-{number}" for number, (key, _) in enumerate(LEAVES)]
)
def test_the_help_gives_type_sentence_and_default_of_every_key(help_entries, key, field):
    entry = help_entries[key]
    assert re.match(r"(INT|FLOAT|\[BOOL\]|STR|\[.+,\.\.\.\]|\{.+\})(\||\s)", entry)
    assert field.description, f"{key} has no sentence"
    sentences = [other.description for name, other in LEAVES if name == key]
    assert " ".join(sentences[0].split()) in entry
    default = json.dumps(field.default).strip('"')
    assert re.search(rf"default: .*{re.escape(default)}", entry)


def test_every_sentence_ends_with_a_full_stop():
    assert [key for key, field in LEAVES if not field.description.endswith(".")] == []


@pytest.mark.parametrize(
    ("key", "entry"),
    [
        ("data", "STR Source of images:"),
        ("train.epochs", "INT Passes over the training split. (default: 20)"),
        ("train.early_stopping", "INT Stop after"),
        ("prepare.image_size", "[INT,...] Side, or height and width"),
        ("prepare.channels", "{1,3} 1 for grey"),
        ("prepare.resize", "{crop,pad,stretch} How another shape"),
        ("augment.horizontal_flip", "[BOOL] Mirror left and right"),
        ("train.schedule.name", f"NAME one of {SCHEDULES} (default: cosine)"),
        ("train.optimizer.name", f"NAME one of {OPTIMIZERS} (default: momentum)"),
        (
            "train.optimizer.rho",
            "FLOAT Decay of the mean of squared gradients. (rmsprop; default: 0.9)",
        ),
        (
            "train.optimizer.momentum",
            "FLOAT Decay of the velocity. (default: 0.9 for momentum, 0.0 for rmsprop)",
        ),
    ],
)
def test_entries_of_the_help(help_entries, key, entry):
    assert help_entries[key].startswith(entry)


# Names of runs


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["--data", "digits"], "digits"),
        (["--data", "fashion-mnist"], "fashion-mnist"),
        (["--data", "folder:/somewhere/photos"], "photos"),
        (["--data", "folder:/somewhere/photos/"], "photos"),
        (["--data", "folder:/somewhere/my photos (1)"], "my-photos--1-"),
        (["--data", "npz:/somewhere/cells.npz"], "cells"),
        (["--data", "tfds:cifar10"], "cifar10"),
        (["--data", "tfds:cifar10_1/v4:1.1.0"], "cifar10_1-v4-1.1.0"),
        (["--data", "folder:/"], "folder"),
        (["--recipe", "digits", "--data", "folder:/somewhere/photos"], "digits"),
    ],
)
def test_the_default_run_directory(arguments, name):
    assert parse(arguments).run_dir == Path("runs") / name


def test_a_recipe_file_gives_the_run_its_name(write_recipe):
    assert parse(["--recipe", write_recipe("seed: 1", "study.yml")]).run_dir == Path("runs/study")


def test_a_relative_folder_is_named_by_where_it_leads(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path / "photos")
    assert parse(["--data", "folder:."]).run_dir == Path("runs/photos")


def test_a_given_run_directory_is_taken_as_it_is():
    assert parse(["--run-dir", "elsewhere/x"]).run_dir == Path("elsewhere/x")


# Recipes that cannot be read


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("a: [", "not valid YAML"),
        ("a: 1\na: 2", "not valid YAML.*duplicate key"),
        ("a: 1\n---\nb: 2", "not valid YAML"),
        ("a: *nowhere", "not valid YAML.*undefined alias"),
        ("a: !!python/object/apply:os.getcwd []", "not valid YAML.*could not determine a constr"),
        ("a: 2020-13-45", "not valid YAML.*month must be in"),
        (b"a: \0", "not valid YAML"),
        ("- seed\n- 1", r"expected a mapping of options, got \['seed', 1\]"),
        ("just text", "expected a mapping of options, got 'just text'"),
        (b"data: caf\xe9", "expected UTF-8 text"),
    ],
)
def test_a_damaged_recipe_names_the_file_and_the_reason(write_recipe, content, reason):
    path = write_recipe(content)
    message = " ".join(message_of("--recipe", path).split())
    assert re.match(rf"{re.escape(path)}: {reason}", message)


@pytest.mark.parametrize(
    ("name", "hint"), [("digit", "; did you mean digits?"), ("nothing/like.yaml", ""), ("", "")]
)
def test_a_missing_recipe_lists_those_there_are(name, hint):
    with pytest.raises(ConfigError) as caught:
        load_recipe(name)
    assert str(caught.value).startswith(f"no recipe {name!r}{hint}; expected one of ")
    assert str(caught.value).endswith(", or a YAML file")


def test_a_file_of_another_kind_is_no_recipe(write_recipe):
    assert message_of("--recipe", write_recipe("seed: 1", "seed.txt")).startswith("no recipe")


def test_a_folder_is_no_recipe(tmp_path):
    (tmp_path / "folder.yaml").mkdir()
    assert message_of("--recipe", str(tmp_path / "folder.yaml")).startswith("no recipe")
