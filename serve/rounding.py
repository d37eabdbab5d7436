"""A figure with as many digits as its images know."""

import math

FEW = 100
"""Below so many images a share is shown with the count that it stands for."""


def decimals(examples: int) -> int:
    """Decimal places of a share that was measured on so many images.

    Its standard error is at most half of `examples ** -0.5`: one place beyond the first digit of
    that is shown. 2 up to 100 images, 3 up to 10,000, 4 up to a million.
    """
    return 1 + max(1, math.ceil(math.log10(max(examples, 1)) / 2))


def rounded(value: float, examples: int) -> str:
    """A figure between 0 and 1, such as accuracy or F1: `rounded(0.98886, 359)` is "0.989"."""
    return f"{value:.{decimals(examples)}f}"


def share(value: float, examples: int) -> str:
    """A share of images; of few images with its count.

    `share(0.98886, 359)` is "0.989"; `share(0.9375, 16)` is "0.94 (15 of 16)".
    """
    text = rounded(value, examples)
    return f"{text} ({round(value * examples)} of {examples})" if examples < FEW else text


def percent(value: float, examples: int) -> str:
    """The same as a percentage: `percent(0.98886, 359)` is "98.9 %"."""
    return f"{100 * value:.{decimals(examples) - 2}f} %"


def significant(value: float, digits: int = 3) -> str:
    """With so many significant digits: `significant(676.468)` is "676", of 0.32149 "0.321"."""
    if value == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{round(value, places):.{max(places, 0)}f}"


def points(difference: float, examples: int) -> str:
    """A difference of two shares in percentage points, with its sign: "+0.3", "-6"."""
    return f"{100 * difference:+.{decimals(examples) - 2}f}"
