"""Figures show the digits that their images know."""

import pytest

from serve.rounding import decimals, percent, points, rounded, share


@pytest.mark.parametrize(
    ("examples", "places"),
    [(0, 2), (1, 2), (16, 2), (100, 2), (101, 3), (359, 3), (10_000, 3), (10_001, 4), (10**6, 4)],
)
def test_one_more_digit_for_a_hundred_times_the_images(examples: int, places: int) -> None:
    assert decimals(examples) == places


@pytest.mark.parametrize("examples", [30, 359, 5000, 60_000])
def test_the_last_digit_is_finer_than_the_standard_error_and_not_by_much(examples: int) -> None:
    error = 0.5 * examples**-0.5
    assert error / 30 < 10.0 ** -decimals(examples) < error


def test_few_images_are_counted() -> None:
    assert share(15 / 16, 16) == "0.94 (15 of 16)"
    assert share(355 / 359, 359) == "0.989"
    assert rounded(15 / 16, 16) == "0.94"


def test_percentages_and_points() -> None:
    assert percent(355 / 359, 359) == "98.9 %"
    assert percent(15 / 16, 16) == "94 %"
    assert (points(0.0028, 359), points(-0.0625, 16)) == ("+0.3", "-6")
