"""Folder names that mean a label although they are written otherwise."""

import pytest

from export.foreign.label_names import match_labels, misplaced

TENCH = ("n01440764 tench, Tinca tinca", "n01443537 goldfish, Carassius auratus")


@pytest.mark.parametrize(
    ("folders", "labels"),
    [
        (["day", "dusk"], ["day", "dusk"]),
        (["Day", "DUSK"], ["day", "dusk"]),
        (["sea_side", "new-town"], ["sea side", "New Town"]),
        (["cafe\u0301", "b"], ["caf\u00e9", "B"]),
        (["day", "dusk"], ["0 day", "1 dusk"]),
        (["0 day", "01_dusk"], ["day", "dusk"]),
        (["12. day", "3-dusk"], ["day", "dusk"]),
        (["day", "dusk"], ["day,0", "dusk,1"]),
        (["day", "dusk"], ["day 0", "dusk 1"]),
        (["n01440764", "n01443537"], list(TENCH)),
        (["tench", "goldfish"], list(TENCH)),
        (["0", "1"], ["a", "b"]),
        (["00", "01"], ["a", "b"]),
        (["class_1", "class_2"], ["class 1", "class 2"]),
        (["7", "3"], ["7", "3"]),
    ],
    ids=lambda value: "+".join(value),
)
def test_another_writing_is_the_same_label(folders: list[str], labels: list[str]) -> None:
    found = match_labels(folders, labels)
    assert [found.numbers.get(name) for name in folders] == [0, 1]
    assert set(found.written_otherwise) == set(folders) - set(labels)
    assert found.unknown == ()


def test_both_names_of_one_label_are_that_label() -> None:
    assert match_labels(["tench", "Tinca tinca"], TENCH).numbers == {"tench": 0, "Tinca tinca": 0}


@pytest.mark.parametrize(
    ("folders", "labels"),
    [
        (["cats"], ["cat", "dog"]),
        (["day"], ["day_1", "day_2"]),  # which of them?
        (["1", "2"], ["a", "b"]),  # counted from 1, or the second and third?
        (["0", "5"], ["a", "b"]),
        (["other"], ["a", "b"]),
    ],
    ids=lambda value: "+".join(value),
)
def test_what_is_not_sure_is_no_label(folders: list[str], labels: list[str]) -> None:
    found = match_labels(folders, labels)
    assert found.numbers == {}
    assert found.unknown == tuple(folders)


def test_what_matches_is_used_and_the_rest_is_named() -> None:
    found = match_labels(["Cat", "docs"], ["cat", "dog"])
    assert found.numbers == {"Cat": 0}
    assert found.written_otherwise == {"Cat": "cat"}
    assert found.unknown == ("docs",)


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (["0 a", "1 b"], None),
        (["1 a", "2 b"], None),
        (["a", "b"], None),
        (["0 a", "2 b", "1 c"], (2, 2)),
        (["b,1", "a,0"], (1, 1)),
        ([f"{number} x" for number in (0, 1, 10, 2, 3, 4, 5, 6, 7, 8, 9)], (3, 10)),
        (["3 cats", "7 dogs"], None),
    ],
    ids=str,
)
def test_lines_out_of_the_order_of_their_numbers_are_noticed(
    labels: list[str], found: tuple[int, int] | None
) -> None:
    assert misplaced(labels) == found
