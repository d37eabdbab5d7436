"""Does a model meet what its run asks of it?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from export.verdict import listed
from pipeline.options.require import (
    OPERATORS,
    VERDICT,
    Requirement,
    RequirementError,
    did_you_mean,
)
from serve.rounding import rounded


@dataclass(frozen=True)
class Outcome:
    """Whether a condition is met; `text` says the figure, its interval and its images."""

    text: str
    met: bool


def check_class_names(requirements: Sequence[Requirement], class_names: Sequence[str]) -> None:
    """Raises RequirementError: a condition is about a class that there is not."""
    for requirement in requirements:
        name = requirement.class_name
        if name is not None and name not in class_names:
            hint = did_you_mean(name, class_names)
            raise RequirementError(
                f"{requirement.text!r:.80}: no class {name!r:.40}{hint}; expected one of "
                f"{listed(class_names)}"
            )


def outcome(requirement: Requirement, figures: Mapping[str, Any]) -> Outcome:
    """Hold the figures of metrics.json to a condition. A figure that there is not fails it."""
    if requirement.name == VERDICT:
        bad = [finding["text"] for finding in figures["verdict"] if finding["status"] == "bad"]
        text = "; ".join(bad) if bad else "no finding is bad"
        return Outcome(f"verdict: {text}", not bad)
    value, images = _figure(requirement, figures)
    label = requirement.name + (f"[{requirement.class_name}]" if requirement.class_name else "")
    if value is None:
        return Outcome(f"{requirement.text}: {label} was not measured", False)
    met = OPERATORS[requirement.comparison](value, requirement.limit)
    is_count = requirement.name in ("examples", "classes_tested")
    shown = f"{value:,}" if is_count else _apart(value, requirement.limit, images)
    if requirement.name == "accuracy":
        low, high = (rounded(end, images) for end in figures["accuracy_interval"])
        shown += f" (95 % interval {low} to {high})"
    on = "" if is_count else f" on {images:,} test images"
    return Outcome(f"{requirement.text}: {label} is {shown}{on}", met)


def _apart(value: float, limit: float, images: int) -> str:
    """With the digits that the images know, or more where a condition would look like met."""
    shown = rounded(value, images)
    return shown if float(shown) != limit or value == limit else f"{value:.6g}"


def _figure(requirement: Requirement, figures: Mapping[str, Any]) -> tuple[float | None, int]:
    """A figure and the number of images that it rests on."""
    count = int(figures["examples"])
    match requirement.name:
        case "ece":
            return figures["calibration"]["after"]["ece"], count
        case "accuracy_low":
            return figures["accuracy_interval"][0], count
        case name if requirement.class_name is not None:
            of_class = figures["per_class"][requirement.class_name]
            return of_class[name], int(of_class["examples"])
        case name:
            return figures.get(name), count
