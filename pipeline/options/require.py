"""What a run asks of its model: conditions over the figures of metrics.json.

    accuracy>=0.9          recall[cat]>=0.8          ece<=0.05          verdict

`verdict` alone asks for a verdict without a bad finding. A condition compares the figure itself and
says its interval where there is one; `accuracy_low` is the lower end of the accuracy's interval.
"""

import difflib
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
SHARES = (
    "accuracy",
    "accuracy_low",
    "precision_macro",
    "precision_weighted",
    "recall_macro",
    "recall_weighted",
    "f1_macro",
    "f1_weighted",
    "top_2_accuracy",
    "top_3_accuracy",
    "top_5_accuracy",
    "ece",
)
"""Figures from 0 to 1."""
NAMES = (*SHARES, "loss", "examples", "classes_tested")
OF_A_CLASS = ("precision", "recall", "f1")
VERDICT = "verdict"
FORM = re.compile(r"\s*(\w+)\s*(?:\[(.*)\])?\s*(?:(>=|<=|>|<)\s*(\S+))?\s*", re.DOTALL)
EXAMPLES = "accuracy>=0.9, recall[cat]>=0.8, ece<=0.05 or verdict"


class RequirementError(ValueError):
    """A condition that says nothing; the message names it and what was expected."""


@dataclass(frozen=True)
class Requirement:
    """One condition.

    Attributes:
        text: as it was given.
        name: a figure, or `VERDICT`.
        class_name: whose figure, where `name` is one of a class; else None.
        comparison: key of `OPERATORS`; "" for the verdict.
        limit: what the figure is compared with.
    """

    text: str
    name: str
    class_name: str | None = None
    comparison: str = ""
    limit: float = 0.0


def split(text: str) -> list[str]:
    """The conditions of a text, which commas part; those in [brackets] are of a class's name."""
    return [part.strip() for part in re.split(r",(?![^\[]*\])", text) if part.strip()]


def parse(text: str) -> Requirement:
    """Read one condition.

    Raises:
        RequirementError: it has another form, an unknown name, or a limit that no figure has.
    """
    match = FORM.fullmatch(text)
    if match is None:
        raise RequirementError(f"{text!r:.80}: expected a condition such as {EXAMPLES}")
    name, class_name, comparison, limit = match.groups()
    known = [*NAMES, *OF_A_CLASS, VERDICT]
    if name not in known:
        raise RequirementError(
            f"{text!r:.80}: no figure {name!r:.40}{did_you_mean(name, known)}; expected one of "
            f"{', '.join(NAMES)}, {'[CLASS], '.join(OF_A_CLASS)}[CLASS] or {VERDICT}"
        )
    if name == VERDICT:
        if class_name is not None or comparison:
            raise RequirementError(f"{text!r:.80}: expected {VERDICT} alone, without a comparison")
        return Requirement(text, name)
    if (class_name is None) == (name in OF_A_CLASS):
        hint = f"{name}[CLASS] or {name}_macro" if name in OF_A_CLASS else f"{name} without a class"
        raise RequirementError(f"{text!r:.80}: expected {hint}")
    return Requirement(text, name, class_name, *_comparison(text, name, comparison, limit))


def _comparison(
    text: str, name: str, comparison: str | None, limit: str | None
) -> tuple[str, float]:
    """The operator, and the limit as a number.

    Raises:
        RequirementError: one is missing, or no figure of this name has such a value.
    """
    try:
        value = float(limit or "")
    except ValueError:
        raise RequirementError(
            f"{text!r:.80}: expected {' or '.join(OPERATORS)} and a number after {name}"
        ) from None
    highest = 1.0 if name in (*SHARES, *OF_A_CLASS) else float("inf")
    if not 0 <= value <= highest or value == float("inf"):
        hint = f"; did you mean {value / 100:g}?" if 1 < value <= 100 else ""
        raise RequirementError(
            f"{text!r:.80}: expected {'a share from 0 to 1' if highest == 1 else 'a number'} "
            f"after {comparison}{hint}"
        )
    return comparison or "", value


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """`; did you mean NAME?`, or nothing where none is near."""
    matches = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {matches[0]}?" if matches else ""
