"""What is said of a model on the command line, and what cannot be said."""

from pathlib import Path

import pytest

from serve.command import CommandParser, LockstepError
from serve.description import Description, add_arguments, description, read_labels

NAMES = ("cat", "dog", "犬, big", "none of these")


def described(*words: str) -> Description | None:
    parser = CommandParser(prog="thing", description="", epilog="")
    add_arguments(parser)
    return description(parser.parse_args(list(words)))


@pytest.fixture
def labels(tmp_path: Path) -> str:
    path = tmp_path / "labels.txt"
    path.write_text("\n".join(NAMES) + "\n", encoding="utf-8")
    return str(path)


def test_no_options_are_no_description() -> None:
    assert described() is None


def test_labels_alone_leave_everything_else_to_the_graph(labels: str) -> None:
    assert described("--labels", labels) == Description(NAMES)


def test_every_option_is_in_the_description(labels: str) -> None:
    got = described(
        "--labels", labels, "--image-size", "7,8", "--channels", "1", "--resize", "stretch",
        "--resample", "nearest", "--background", "0", "--full-decode", "--mean", "1,2.5,3",
        "--std", "0.5", "--outputs", "logits",
    )  # fmt: skip
    assert got == Description(
        NAMES, (7, 8), 1, "stretch", "nearest", 0, False, (1, 2.5, 3), (0.5,), "logits"
    )


@pytest.mark.parametrize(
    ("text", "size"),
    [("224", (224, 224)), ("7,8", (7, 8)), ("224x320", (224, 320)), ("8X9", (8, 9))],
)
def test_a_size_is_a_side_or_height_and_width(
    labels: str, text: str, size: tuple[int, int]
) -> None:
    got = described("--labels", labels, "--image-size", text)
    assert got is not None
    assert got.image_size == size


@pytest.mark.parametrize(
    ("words", "thresholds", "each"),
    [
        ([], (), (0.5,) * 4),
        (["--threshold", "0.3"], (0.3,), (0.3,) * 4),
        (["--threshold", "0,0.25,0.5,1"], (0, 0.25, 0.5, 1), (0, 0.25, 0.5, 1)),
    ],
)
def test_thresholds_are_one_for_all_or_one_for_each_label(
    labels: str, words: list[str], thresholds: tuple[float, ...], each: tuple[float, ...]
) -> None:
    got = described("--labels", labels, "--outputs", "sigmoid", *words)
    assert got is not None
    assert got.thresholds == thresholds
    assert got.label_thresholds() == each


def test_another_number_of_thresholds_than_labels_is_refused(labels: str) -> None:
    got = described("--labels", labels, "--threshold", "0.1,0.2,0.3")
    assert got is not None
    with pytest.raises(LockstepError) as caught:
        got.label_thresholds()
    assert str(caught.value) == "--threshold: expected 1 or 4 numbers, one for each label, got 3"


def test_a_threshold_alone_describes_no_model() -> None:
    assert described("--threshold", "0.4") is None


@pytest.mark.parametrize(
    "words",
    [["--input-range", "-1,1"], ["--mean", "-0.5,0.5,0.5", "--std", "1"], ["--mean", "-.5",
     "--std", "1"]],
)  # fmt: skip
def test_a_list_of_numbers_may_begin_with_a_minus(labels: str, words: list[str]) -> None:
    got = described("--labels", labels, *words)
    assert got is not None
    assert got.mean is not None
    assert got.mean[0] in (0.5, -0.5)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        *((words, "a model is described by its labels first: give --labels FILE") for words in (
            ["--channels", "3"], ["--image-size", "8"], ["--resize", "pad"], ["--background", "0"],
            ["--resample", "nearest"], ["--full-decode"], ["--outputs", "auto"],
            ["--input-range", "0,1"], ["--mean", "0", "--std", "1"])),
        (["--mean", "0"], "expected --mean and --std together, got one of them"),
        (["--std", "1,1,1"], "expected --mean and --std together, got one of them"),
        *((["--input-range", "0,1", *more],
           "expected either --input-range or --mean and --std, got both")
          for more in (["--mean", "0"], ["--std", "1"], ["--mean", "0", "--std", "1"])),
        *((["--mean", "0", "--std", std], f"--std: expected numbers above 0, got {least}")
          for std, least in (("0", "0.0"), ("1,0,1", "0.0"), ("1,1,-0.5", "-0.5"))),
        *((["--input-range", text], f"--input-range: expected LOW,HIGH as in 0,1, got {shown}")
          for text, shown in (("1", "1.0"), ("0,1,2", "0.0,1.0,2.0"), ("1,0", "1.0,0.0"),
                              ("5,5", "5.0,5.0"))),
        *(([option, text], f"argument {option}: expected a list of numbers, got '{text}'; see")
          for option in ("--mean", "--std", "--input-range")
          for text in ("", "x", "1,", "1;2", "nan", "1,inf", "1e999")),
        *((["--image-size", text],
           f"argument --image-size: expected a size in pixels, got '{text}'; see thing")
          for text in ("", "x", "8x", "8,8,3", "8x8x3", "8.5", ",8")),
        *((["--threshold", text],
           f"argument --threshold: expected shares from 0 to 1, got '{text}'; see thing")
          for text in ("", "x", "1.1", "-0.1", "0.5,2", "nan")),
        (["--channels", "2"], "argument --channels: invalid choice: "),
        (["--resize", "squeeze"], "argument --resize: invalid choice: "),
        (["--resample", "best"], "argument --resample: invalid choice: "),
        (["--outputs", "scores"], "argument --outputs: invalid choice: "),
        (["--background", "white"], "argument --background: expected int, got 'white'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_a_description_that_cannot_be_is_refused(words: list[str], reason: str) -> None:
    with pytest.raises(LockstepError) as caught:
        described(*words)
    assert str(caught.value).startswith(reason)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a\nb", ("a", "b")),
        ("a\nb\n\n\n", ("a", "b")),
        ("a\r\nb\r\n", ("a", "b")),
        (" a \n\tb c\t\n", ("a", "b c")),
        ("größe\n犬, 🐕\n", ("größe", "犬, 🐕")),
        ("\ufeffa\nb\n", ("a", "b")),
        ("a\u2028b\nc", ("a\u2028b", "c")),
    ],
    ids=repr,
)
def test_labels_are_one_a_line(tmp_path: Path, text: str, names: tuple[str, ...]) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(text.encode())
    assert read_labels(path) == names


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty line 1"),
        (b"\n\n\n", "an empty line 1"),
        (b"only\n", "1 line; for a model with one output give two labels, in the order 0, 1"),
        (b"a\n\nb\n", "an empty line 2"),
        (b"\na\nb\n", "an empty line 1"),
        (b"a\n  \nb\n", "an empty line 2"),
        (b"a\nb\na\nc\nb\n", "doubled 'a, b'"),
        (b"a\n a\n", "doubled 'a'"),
    ],
)
def test_labels_that_are_no_classes_are_refused(tmp_path: Path, content: bytes, found: str) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    with pytest.raises(LockstepError) as caught:
        read_labels(path)
    assert str(caught.value) == (
        f"{path}: expected two or more different class names, one a line, got {found}"
    )


def test_labels_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(b"caf\xe9\nbar\n")
    with pytest.raises(LockstepError, match=r"labels\.txt: expected UTF-8 text: "):
        read_labels(path)
