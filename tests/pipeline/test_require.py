"""Conditions of a run: what may be asked, and when they are met."""

from typing import Any

import numpy as np
import pytest

from pipeline.command_line import parse as parse_command
from pipeline.evaluation.gate import model_figures
from pipeline.evaluation.requirements import check_class_names, outcome
from pipeline.options.require import NAMES, Requirement, RequirementError, parse, split
from pipeline.recipe import ConfigError

NAMES_OF_CLASSES = ["cat", "dog, small", "owl"]


def figures(right: int = 45, count: int = 50) -> dict[str, Any]:
    """Of a model that is right on `right` of `count` images of the first two classes."""
    labels = np.arange(count) % 2
    answers = np.where(np.arange(count) < right, labels, 1 - labels)
    probabilities = np.full((count, 3), 0.05, np.float32)
    probabilities[np.arange(count), answers] = 0.9
    return model_figures(labels, probabilities, NAMES_OF_CLASSES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("accuracy>=0.9", Requirement("accuracy>=0.9", "accuracy", None, ">=", 0.9)),
        (" ece <= 5e-2", Requirement(" ece <= 5e-2", "ece", None, "<=", 0.05)),
        ("loss<1.5", Requirement("loss<1.5", "loss", None, "<", 1.5)),
        ("examples>99", Requirement("examples>99", "examples", None, ">", 99.0)),
        ("verdict", Requirement("verdict", "verdict")),
        ("recall[cat]>=1", Requirement("recall[cat]>=1", "recall", "cat", ">=", 1.0)),
        ("f1[a [b]]>=.5", Requirement("f1[a [b]]>=.5", "f1", "a [b]", ">=", 0.5)),
    ],
    ids=["share", "spaces", "loss", "count", "verdict", "class", "brackets"],
)
def test_conditions_are_read(text: str, expected: Requirement) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("acuracy>=0.9", "no figure 'acuracy'; did you mean accuracy?"),
        ("f1_makro>=0.9", "did you mean f1_macro?"),
        ("verdickt", "did you mean verdict?"),
        ("accuracy>=90", "expected a share from 0 to 1 after >=; did you mean 0.9?"),
        ("accuracy>=-1", "expected a share from 0 to 1"),
        ("accuracy>=nan", "expected a share from 0 to 1"),
        ("loss<=inf", "expected a number"),
        ("accuracy", "expected >= or <= or > or < and a number after accuracy"),
        ("accuracy>=high", "and a number after accuracy"),
        ("accuracy==0.9", "expected a condition such as accuracy>=0.9"),
        ("verdict>=1", "expected verdict alone"),
        ("recall>=0.5", "expected recall[CLASS] or recall_macro"),
        ("accuracy[cat]>=0.5", "expected accuracy without a class"),
        ("__import__('os')>=1", "expected a condition such as"),
        ("", "expected a condition such as"),
    ],
    ids=lambda value: value[:24] if value else "empty",
)
def test_what_says_nothing_is_refused_with_a_hint(text: str, reason: str) -> None:
    with pytest.raises(RequirementError) as caught:
        parse(text)
    assert reason in str(caught.value)


def test_commas_part_conditions_but_not_names() -> None:
    text = "accuracy>=0.9, recall[dog, small]>=0.8 ,verdict,"
    assert split(text) == ["accuracy>=0.9", "recall[dog, small]>=0.8", "verdict"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("accuracy>=0.9", ["accuracy>=0.9"]),
        ("accuracy>=0.9, verdict", ["accuracy>=0.9", "verdict"]),
        ("[accuracy>=0.9, ece<=0.1]", ["accuracy>=0.9", "ece<=0.1"]),
        ("null", []),
        ("[]", []),
    ],
    ids=["one", "text", "list", "null", "empty"],
)
def test_the_command_line_takes_a_text_or_a_list(given: str, expected: list[str]) -> None:
    assert parse_command(["--evaluate.require", given]).config.evaluate.require == expected


def test_a_condition_is_checked_before_anything_is_done() -> None:
    with pytest.raises(ConfigError, match=r"evaluate\.require: .*did you mean accuracy"):
        parse_command(["--evaluate.require", "acuracy>=0.9"])


@pytest.mark.parametrize(
    ("text", "met", "said"),
    [
        ("accuracy>=0.9", True, "accuracy is 0.90 (95 % interval 0.79 to 0.96) on 50 test images"),
        ("accuracy>0.9", False, "accuracy is 0.90"),
        ("accuracy>=0.901", False, "accuracy is 0.90 "),
        ("accuracy_low>=0.8", False, "accuracy_low is 0.79"),
        ("recall[cat]>=0.95", False, "recall[cat] is 0.92 on 25 test images"),
        ("recall[cat]>=0.8", True, "recall[cat] is 0.92 on 25 test images"),
        ("f1_macro>=0.85", True, "f1_macro is 0.90"),
        ("ece<=0.2", True, "ece is "),
        ("loss<=0.1", False, "loss is "),
        ("examples>=51", False, "examples is 50"),
        ("classes_tested>=3", False, "classes_tested is 2"),
        ("recall[owl]>=0", False, "recall[owl] was not measured"),
        ("top_5_accuracy>=0", False, "top_5_accuracy was not measured"),
        ("verdict", True, "no finding is bad"),
    ],
)
def test_figures_are_held_to_conditions(text: str, met: bool, said: str) -> None:
    found = outcome(parse(text), figures())
    assert found.met == met
    assert said in found.text
    assert found.text.startswith(text)


def test_a_figure_just_below_its_limit_is_not_shown_as_the_limit() -> None:
    close = {**figures(), "accuracy": 0.8999}
    found = outcome(parse("accuracy>=0.9"), close)
    assert (found.met, "accuracy is 0.8999" in found.text) == (False, True)


def test_a_bad_finding_fails_the_verdict() -> None:
    found = outcome(parse("verdict"), figures(right=20))
    assert not found.met
    assert "no better than" in found.text


def test_every_name_is_a_figure() -> None:
    known = figures()
    for name in NAMES:
        text = outcome(parse(f"{name}>=0"), known).text
        assert ("was not measured" in text) == (name in ("top_3_accuracy", "top_5_accuracy"))


def test_a_class_must_be_one_of_the_data() -> None:
    check_class_names([parse("recall[owl]>=0.5"), parse("verdict")], NAMES_OF_CLASSES)
    with pytest.raises(RequirementError, match="no class 'oul'; did you mean owl"):
        check_class_names([parse("recall[oul]>=0.5")], NAMES_OF_CLASSES)
