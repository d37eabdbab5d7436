"""The table that says which image has which labels, as people write such tables."""

from pathlib import Path

import numpy as np
import pytest

from export.foreign.truth import Truth, TruthError, read_truth

LABELS = ("cat", "big dog", "owl")
FILES = ("a.jpg", "b.png", "more/c.jpg", "more/d.jpg")
WANTED = [[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 1]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files in place of images: only their names are looked at."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for name in FILES:
        (folder / name).touch()
    return folder


def truth(folder: Path, text: str, read: tuple[str, ...] = FILES) -> Truth:
    table = folder.parent / "truth.csv"
    table.write_bytes(text.encode())
    files = [folder / name for name in FILES]
    return read_truth(table, folder, files, [folder / name for name in read], LABELS)


MARKS = "path,cat,big dog,owl\na.jpg,1,0,0\nb.png,1,1,0\nmore/c.jpg,0,0,0\nmore/d.jpg,0,1,1\n"
LISTS = "path,labels\na.jpg,cat\nb.png,cat|big dog\nmore/c.jpg,\nmore/d.jpg,big dog|owl\n"


@pytest.mark.parametrize(
    "text",
    [
        MARKS,
        LISTS,
        MARKS.replace(",", ";"),
        MARKS.replace(",", "\t").replace("\n", "\r\n"),
        "\ufeff" + LISTS,
        LISTS.replace("|", ";"),
        LISTS.replace("cat|big dog", '"cat,big dog"').replace("big dog|owl", '"owl, big dog"'),
        LISTS.replace("labels", "Tags"),
        LISTS.replace("labels", "what is on it"),
        "owl,big dog,cat,File Name\n0,0,1,a.jpg\n0,1,1,b.png\n0,0,0,more/c.jpg\n1,1,0,more/d.jpg\n",
        MARKS.replace(",1", ",True").replace(",0", ",FALSE"),
        MARKS.replace(",1", ",1.0").replace(",0", ", 0"),
        MARKS.replace("more/", "photos/more/").replace("a.jpg", "./a.jpg"),
        MARKS.replace("more/", "more\\"),
        MARKS.replace("more/", "").replace(".jpg", ""),
        LISTS.replace("path,labels", "path,labels,probabilities,error")
        .replace("cat\n", "cat,0.9,\n").replace("dog\n", "dog,0.9|0.8,\n")
        .replace("c.jpg,\n", "c.jpg,,,\n").replace("owl\n", "owl,0.9|0.8,\n"),
    ],
    ids=range(16),
)  # fmt: skip
def test_tables_as_people_write_them(folder: Path, text: str) -> None:
    got = truth(folder, text)
    assert got.values.tolist() == [list(map(bool, row)) for row in WANTED]
    assert got.known.tolist() == [0, 1, 2, 3]
    assert got.told == ()


def test_paths_from_the_root_are_found(folder: Path) -> None:
    text = MARKS.replace("\na", f"\n{folder}/a").replace("\nb", f"\n{folder}/b")
    assert truth(folder, text).values.tolist() == truth(folder, MARKS).values.tolist()


def test_names_written_otherwise_are_matched_and_told(folder: Path) -> None:
    got = truth(folder, MARKS.replace("big dog", "Big_Dog"))
    assert got.values.tolist() == [list(map(bool, row)) for row in WANTED]
    assert got.told == (
        "columns of --truth taken for labels although written otherwise: 'Big_Dog' is 'big dog'",
    )


def test_everything_without_a_counterpart_is_counted_and_named(folder: Path) -> None:
    text = (
        "path,labels\na.jpg,cat\nb.png,cat|fish\nnowhere.jpg,owl\nmore/d.jpg,fish|big dog\n"
        "gone.jpg,cat\n"
    )
    got = truth(folder, text)
    assert got.known.tolist() == [0, 1, 3]
    assert got.values.tolist() == [[True, False, False], [True, False, False], [False, True, False]]
    assert got.told == (
        "names in --truth that are no labels, passed over: 1, 'fish' (2)",
        "rows of --truth about no image there: 2, nowhere.jpg, gone.jpg",
        "images without a row in --truth, not measured on: 1, more/c.jpg",
        "labels that no image has: 1, owl",
    )
    assert truth(folder, MARKS.replace("owl", "owl,width").replace("\n", ",7\n", 5)
                 .replace("owl,width,7", "owl,width")).told == (
        "columns of --truth that are no labels, passed over: 1, width",
    )  # fmt: skip


def test_a_row_about_an_image_that_was_not_read_is_no_mistake(folder: Path) -> None:
    got = truth(folder, MARKS, read=("more/d.jpg", "b.png"))
    assert got.values.tolist() == [[False, True, True], [True, True, False]]
    assert got.told == ()


def test_a_row_that_is_there_twice_is_one(folder: Path) -> None:
    assert len(truth(folder, MARKS + "a.jpg,1,0,0\n").known) == 4
    with pytest.raises(TruthError, match=r"line 6 contradicts another about a\.jpg"):
        truth(folder, MARKS + "a.jpg,1,0,1\n")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected a header and rows of two columns at least"),
        ("path,labels\n", "expected a header and rows of two columns at least"),
        ("path\na.jpg\n", "expected a header and rows of two columns at least"),
        ("path,cat,owl\na.jpg,1,0\n", "expected a column for each label or one called 'labels'; "
         "there is none for 'big dog'"),
        (MARKS.replace("1,1", "1,-1"), "line 3, column 'big dog': expected 0 or 1, got '-1'"),
        (MARKS.replace("1,1", "1,"), "line 3, column 'big dog': expected 0 or 1, got ''"),
        (MARKS + "x.jpg,1\n", "line 6 has 2 fields, expected 4 as in the header"),
        (MARKS.replace("a.jpg", "x").replace("b.png", "y").replace("c.jpg", "z")
         .replace("d.jpg", "w"), "no row is about an image in "),
    ],
    ids=range(8),
)  # fmt: skip
def test_what_is_no_truth_is_refused(folder: Path, text: str, reason: str) -> None:
    with pytest.raises(TruthError) as caught:
        truth(folder, text)
    assert reason in str(caught.value)
    assert str(caught.value).startswith(str(folder.parent / "truth.csv"))


def test_the_same_name_in_two_folders_needs_its_path(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    files = [folder / "x" / "1.jpg", folder / "y" / "1.jpg"]
    table = tmp_path / "truth.csv"
    table.write_text("path,labels\n1.jpg,cat\nx/1.jpg,owl\n")
    got = read_truth(table, folder, files, files, LABELS)
    assert got.known.tolist() == [0]
    np.testing.assert_array_equal(got.values, [[False, False, True]])
    assert "rows of --truth about no image there: 1, 1.jpg" in got.told
