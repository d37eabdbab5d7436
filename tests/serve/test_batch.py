"""The batch command: its rows, its two formats, its exit codes, and what it leaves behind."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from numpy.typing import NDArray
from PIL import Image

import serve
from serve.batch import READ_AHEAD, find_images, main, predict_files
from serve.bundle import METADATA_KEY, seal
from serve.classifier import Classifier
from serve.command import LockstepError
from serve.images import encode_png, read_image
from serve.onnx_file import outline
from serve.rows import CsvWriter, JsonLinesWriter, Prediction, top_labels

NOT_AN_IMAGE = "not an image: expected JPEG, PNG, WEBP, BMP, GIF, TIFF, AVIF, HEIC"
SOURCE_ROOT = Path(serve.__file__).parents[1]
OPTIONS = ("--debug", "--inputs-from", "--output", "--format", "--top", "--probabilities",
           "--uncertain-below", "--batch-size", "--workers", "--threads", "--quiet", "--labels",
           "--image-size", "--channels", "--resize", "--resample", "--background", "--full-decode",
           "--input-range", "--mean", "--std", "--outputs")  # fmt: skip

Rows = list[dict[str, str]]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def bundle(trained_run: Path) -> str:
    return str(trained_run / "model.onnx")


@pytest.fixture(scope="module")
def classifier(bundle: str) -> Classifier:
    return Classifier(bundle, threads=1)


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    """Twenty small images of several sizes and formats, in the order of their names."""
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(5)
    paths = []
    for index in range(20):
        pixels = random.integers(0, 256, (8 + index % 3, 8 + index % 5), dtype=np.uint8)
        path = folder / f"{index:02}.{('png', 'jpg', 'gif', 'webp', 'BMP')[index % 5]}"
        Image.fromarray(pixels).save(path)
        paths.append(str(path))
    return paths


@pytest.fixture
def batch(bundle: str, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command on the bundle in this process: exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([bundle, "--threads", "1", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def command(
    *arguments: object, environment: dict[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[bytes]:
    """The command as a process of its own."""
    call = [sys.executable, "-m", "serve.batch", *map(str, arguments)]
    return run_process(call, environment, **options)


def run_process(
    call: list[str], environment: dict[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[bytes]:
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        call,
        cwd=SOURCE_ROOT,
        env={**variables, **(environment or {})},
        check=False,
        timeout=120,
        **{"capture_output": "stdout" not in options, **options},
    )


def rows_of(text: str) -> Rows:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def json_rows_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.removesuffix("\n").split("\n")]


def expected_probabilities(classifier: Classifier, paths: list[str]) -> NDArray[np.float32]:
    spec = classifier.document.image
    return classifier.predict(np.stack([read_image(path, spec) for path in paths]))


def sealed_again(bundle: str | Path, copy: Path, **changes: Any) -> str:
    """A copy of a bundle whose document says something else."""
    content = Path(bundle).read_bytes()
    document = {**json.loads(outline(content).metadata[METADATA_KEY]), **changes}
    copy.write_bytes(seal(content, document))
    return str(copy)


def write_png(path: Path, value: int = 128) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(np.full((8, 8), value, np.uint8)))
    return str(path)


# Rows


def test_csv_has_one_row_per_image_in_order(
    batch: Run, classifier: Classifier, photos: list[str]
) -> None:
    shuffled = photos[::-1] + photos[3:5]
    code, out, _ = batch(*shuffled)
    assert code == 0
    assert out.startswith("path,label,probability,error\n")
    assert out.endswith("\n") and "\r" not in out
    rows = rows_of(out)
    assert [row["path"] for row in rows] == shuffled
    expected = expected_probabilities(classifier, shuffled)
    assert [int(row["label"]) for row in rows] == expected.argmax(axis=1).tolist()
    got = np.array([row["probability"] for row in rows], np.float32)
    np.testing.assert_array_equal(got, expected.max(axis=1))
    assert {row["error"] for row in rows} == {""}


def test_csv_with_every_probability_reads_back_exactly(
    batch: Run, classifier: Classifier, photos: list[str]
) -> None:
    _, out, _ = batch(*photos, "--probabilities")
    rows = rows_of(out)
    assert list(rows[0]) == ["path", "label", "probability", "error"] + [
        f"p({digit})" for digit in range(10)
    ]
    got = np.array([[row[f"p({digit})"] for digit in range(10)] for row in rows], np.float32)
    np.testing.assert_array_equal(got, expected_probabilities(classifier, photos))


def test_csv_with_the_best_three(batch: Run, classifier: Classifier, photos: list[str]) -> None:
    _, out, _ = batch(*photos, "--top", 3)
    assert out.splitlines()[0] == (
        "path,label,probability,error,label_2,probability_2,label_3,probability_3"
    )
    for row, expected in zip(rows_of(out), expected_probabilities(classifier, photos), strict=True):
        best = np.argsort(-expected, kind="stable")[:3]
        assert [row["label"], row["label_2"], row["label_3"]] == [str(index) for index in best]
        got = np.array([row["probability"], row["probability_2"], row["probability_3"]], np.float32)
        np.testing.assert_array_equal(got, expected[best])


def test_jsonl_rows(batch: Run, classifier: Classifier, photos: list[str]) -> None:
    code, out, _ = batch(*photos, "--format", "jsonl", "--top", 2, "--probabilities")
    assert code == 0
    rows = json_rows_of(out)
    assert [row["path"] for row in rows] == photos
    expected = expected_probabilities(classifier, photos)
    for row, probabilities in zip(rows, expected, strict=True):
        assert list(row) == ["path", "predictions", "error", "probabilities"]
        assert row["error"] is None
        assert list(row["probabilities"]) == list("0123456789")
        got = np.array(list(row["probabilities"].values()), np.float32)
        np.testing.assert_array_equal(got, probabilities)
        best = np.argsort(-probabilities, kind="stable")[:2]
        assert row["predictions"] == [
            {"label": str(index), "probability": row["probabilities"][str(index)]} for index in best
        ]


def test_jsonl_without_probabilities_has_only_the_best(batch: Run, photos: list[str]) -> None:
    (row,) = json_rows_of(batch(photos[0], "--format", "jsonl")[1])
    assert list(row) == ["path", "predictions", "error"]
    assert len(row["predictions"]) == 1


def test_more_labels_than_classes_are_all_classes(batch: Run, photos: list[str]) -> None:
    (row,) = json_rows_of(batch(photos[0], "--format", "jsonl", "--top", 99)[1])
    assert sorted(item["label"] for item in row["predictions"]) == list("0123456789")
    values = [item["probability"] for item in row["predictions"]]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("size", [1, 7, 64])
@pytest.mark.parametrize("workers", [1, 4])
def test_neither_batch_size_nor_workers_change_the_rows(
    batch: Run, classifier: Classifier, photos: list[str], size: int, workers: int
) -> None:
    _, out, _ = batch(*photos, "--probabilities", "--batch-size", size, "--workers", workers)
    rows = rows_of(out)
    assert [row["path"] for row in rows] == photos
    got = np.array([[row[f"p({digit})"] for digit in range(10)] for row in rows], np.float32)
    expected = expected_probabilities(classifier, photos)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert [int(row["label"]) for row in rows] == expected.argmax(axis=1).tolist()


@pytest.mark.parametrize("size", [1, 3, 64])
def test_unreadable_files_do_not_disturb_their_neighbours(
    batch: Run, classifier: Classifier, photos: list[str], tmp_path: Path, size: int
) -> None:
    text = tmp_path / "text.jpg"
    text.write_text("no picture")
    empty = tmp_path / "empty.png"
    empty.touch()
    cut = tmp_path / "cut.png"
    cut.write_bytes(Path(photos[0]).read_bytes()[:50])
    mixed = [str(text), *photos[:4], str(empty), str(cut), *photos[4:]]
    code, out, err = batch(*mixed, "--batch-size", size, "--top", 2)
    assert code == 0
    assert err == "20 labelled, 3 unreadable\n"
    rows = rows_of(out)
    assert [row["path"] for row in rows] == mixed
    by_path = {row["path"]: row for row in rows}
    assert by_path[str(text)]["error"] == NOT_AN_IMAGE
    assert by_path[str(empty)]["error"] == "empty: 0 bytes"
    assert by_path[str(cut)]["error"].startswith("corrupt image: ")
    for bad in (text, empty, cut):
        row = by_path[str(bad)]
        assert {row[key] for key in ("label", "probability", "label_2", "probability_2")} == {""}
    good = [by_path[path] for path in photos]
    expected = expected_probabilities(classifier, photos)
    assert [int(row["label"]) for row in good] == expected.argmax(axis=1).tolist()
    got = np.array([row["probability"] for row in good], np.float32)
    np.testing.assert_allclose(got, expected.max(axis=1), atol=1e-6)


def test_an_unreadable_file_in_jsonl(batch: Run, tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    code, out, _ = batch(tmp_path / "empty.png", "--format", "jsonl", "--probabilities")
    assert code == 1
    assert json_rows_of(out) == [
        {"path": str(tmp_path / "empty.png"), "predictions": [], "error": "empty: 0 bytes"}
    ]


def test_a_pipe_among_the_inputs_is_not_waited_for(
    bundle: str, photos: list[str], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    done = command(bundle, tmp_path / "pipe.png", photos[0])
    assert done.returncode == 0
    assert [row["error"] for row in rows_of(done.stdout.decode())] == ["not a regular file", ""]


def test_a_file_that_vanishes_becomes_a_row(classifier: Classifier, photos: list[str]) -> None:
    paths = [photos[0], "vanished.png", photos[1]]
    predictions = list(predict_files(classifier, iter(paths), batch_size=2, workers=2))
    assert [prediction.path for prediction in predictions] == paths
    assert [prediction.error for prediction in predictions] == ["", "no such file", ""]
    assert predictions[1].probabilities is None


def test_no_files_no_predictions(classifier: Classifier) -> None:
    assert list(predict_files(classifier, [], batch_size=2, workers=2)) == []


def test_only_a_few_batches_are_read_ahead(classifier: Classifier, photos: list[str]) -> None:
    asked: list[str] = []

    def paths() -> Any:
        for path in photos * 5:
            asked.append(path)
            yield path

    predictions = predict_files(classifier, paths(), batch_size=4, workers=1)
    next(predictions)
    assert len(asked) == (1 + READ_AHEAD) * 4
    assert len(list(predictions)) == len(photos) * 5 - 1


def test_ties_keep_the_order_of_the_classes() -> None:
    probabilities = np.array([0.1, 0.4, 0.1, 0.4], np.float32)
    best = top_labels(probabilities, ["a", "b", "c", "d"], 3)
    assert [label for label, _ in best] == ["b", "d", "a"]


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-38, 1e-7, 0.1, 1 / 3, 0.99999994])
def test_numbers_read_back_as_the_same_float32(value: float) -> None:
    probabilities = np.array([value, 0], np.float32)
    prediction = Prediction("x", probabilities)
    table, lines = io.StringIO(newline=""), io.StringIO()
    CsvWriter(table, ["a", "b"], top=1, all_probabilities=True).write(prediction)
    JsonLinesWriter(lines, ["a", "b"], top=1, all_probabilities=True).write(prediction)
    assert np.float32(rows_of(table.getvalue())[0]["p(a)"]) == probabilities[0]
    assert np.float32(json.loads(lines.getvalue())["probabilities"]["a"]) == probabilities[0]


# Uncertain answers


def middle(classifier: Classifier, photos: list[str]) -> tuple[NDArray[np.float32], float]:
    """Best probabilities of the photos, and a threshold that half of them reach."""
    best = expected_probabilities(classifier, photos).max(axis=1)
    return best, float(np.sort(best)[len(best) // 2])


def test_csv_says_uncertain_below_the_threshold(
    batch: Run, classifier: Classifier, photos: list[str]
) -> None:
    best, threshold = middle(classifier, photos)
    _, plain, _ = batch(*photos, "--top", 2, "--probabilities")
    code, out, _ = batch(
        *photos, "--top", 2, "--probabilities", "--uncertain-below", repr(threshold)
    )
    assert code == 0
    for row, before, probability in zip(rows_of(out), rows_of(plain), best, strict=True):
        assert row == {**before, "label": "uncertain" if probability < threshold else row["label"]}
        assert row["label"] in ("uncertain", before["label"])
    labels = [row["label"] for row in rows_of(out)]
    assert labels.count("uncertain") == len(photos) // 2


def test_jsonl_says_uncertain_below_the_threshold(
    batch: Run, classifier: Classifier, photos: list[str], tmp_path: Path
) -> None:
    best, threshold = middle(classifier, photos)
    (tmp_path / "empty.png").touch()
    paths = [*photos, tmp_path / "empty.png"]
    plain = json_rows_of(batch(*paths, "--format", "jsonl", "--probabilities")[1])
    rows = json_rows_of(
        batch(*paths, "--format", "jsonl", "--probabilities", "--uncertain-below", threshold)[1]
    )
    assert list(rows[0]) == ["path", "predictions", "error", "uncertain", "probabilities"]
    assert [row.pop("uncertain") for row in rows[:-1]] == (best < np.float32(threshold)).tolist()
    assert rows == plain
    assert {row["error"] for row in rows[:-1]} == {None}


@pytest.mark.parametrize("form", ["csv", "jsonl"])
@pytest.mark.parametrize(("threshold", "uncertain"), [(0, 0), (0.9, None), (1, 20)])
def test_a_share_is_a_threshold(
    batch: Run,
    classifier: Classifier,
    photos: list[str],
    form: str,
    threshold: float,
    uncertain: int | None,
) -> None:
    best = expected_probabilities(classifier, photos).max(axis=1)
    _, out, _ = batch(*photos, "--uncertain-below", threshold, "--format", form)
    if form == "csv":
        got = [row["label"] == "uncertain" for row in rows_of(out)]
    else:
        got = [row["uncertain"] for row in json_rows_of(out)]
    assert got == (best < np.float32(threshold)).tolist()
    assert uncertain is None or sum(got) == uncertain


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_the_bundle_knows_its_own_threshold(
    bundle: str,
    classifier: Classifier,
    photos: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    form: str,
) -> None:
    _, threshold = middle(classifier, photos)
    rejection = {"threshold": threshold, "coverage": 0.5, "accuracy": 1.0}
    knowing = sealed_again(bundle, tmp_path / "knowing.onnx", rejection=rejection)
    call = [knowing, *photos, "--threads", "1", "--quiet", "--format", form]
    outputs = []
    for more in ([], ["--uncertain-below", "bundle"], ["--uncertain-below", repr(threshold)]):
        assert main([*call, *more]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] != outputs[1] == outputs[2]
    assert "uncertain" not in outputs[0]


def test_a_bundle_without_a_threshold_says_so(
    bundle: str, photos: list[str], tmp_path: Path
) -> None:
    plain = sealed_again(bundle, tmp_path / "plain.onnx", rejection=None)
    with pytest.raises(LockstepError) as caught:
        main([plain, *photos, "--uncertain-below", "bundle", "--output", str(tmp_path / "rows")])
    assert str(caught.value) == (
        f"{plain}: the bundle has no threshold of its own; give a number, or train with "
        "--evaluate.coverage"
    )
    assert not (tmp_path / "rows").exists()


@pytest.mark.parametrize("value", [0.1, 0.5, 0.9, 0.99999994, 1.0])
def test_an_answer_at_the_threshold_is_certain(value: float) -> None:
    prediction = Prediction("x", np.array([value, 0], np.float32))
    printed = np.format_float_positional(np.float32(value), unique=True)
    for threshold, expected in ((float(printed), "a"), (float(np.float32(value)), "a"),
                                (float(np.nextafter(np.float32(value), np.float32(2))),
                                 "uncertain")):  # fmt: skip
        table, lines = io.StringIO(newline=""), io.StringIO()
        CsvWriter(table, ["a", "b"], top=1, all_probabilities=False, threshold=threshold).write(
            prediction
        )
        JsonLinesWriter(
            lines, ["a", "b"], top=1, all_probabilities=False, threshold=threshold
        ).write(prediction)
        assert rows_of(table.getvalue())[0]["label"] == expected
        assert json.loads(lines.getvalue())["uncertain"] is (expected == "uncertain")
        assert json.loads(lines.getvalue())["predictions"][0]["label"] == "a"


# Names


@pytest.mark.parametrize(
    "name", ["a,b.png", 'say "hi".png', "two\nlines.png", " blank .png", "Straße 犬🐕.png", "'.png"]
)
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_odd_names_survive(batch: Run, tmp_path: Path, name: str, form: str) -> None:
    path = write_png(tmp_path / name)
    output = tmp_path / "rows"
    assert batch(path, path, "--output", output, "--format", form)[0] == 0
    text = output.read_bytes().decode("utf-8")
    rows = rows_of(text) if form == "csv" else json_rows_of(text)
    assert [row["path"] for row in rows] == [path, path]


def test_odd_class_names_survive(
    trained_run: Path, photos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["a,b", 'say "hi"', "two\nlines", "犬", " ", "", "x", "path", "error", "'"]
    sealed_again(trained_run / "model.onnx", tmp_path / "odd.onnx", class_names=names)
    main([str(tmp_path / "odd.onnx"), photos[0], "--top", "10", "--probabilities", "--quiet"])
    (row,) = rows_of(capsys.readouterr().out)
    labels = [row["label"]] + [row[f"label_{rank}"] for rank in range(2, 11)]
    assert sorted(labels) == sorted(names)
    assert row[f"p({labels[0]})"] == row["probability"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system that takes any bytes")
@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict"])
def test_names_that_are_no_text_do_not_stop_the_command(
    bundle: str, tmp_path: Path, encoding: str
) -> None:
    name = os.fsencode(tmp_path) + b"/\xff.png"
    Path(os.fsdecode(name)).write_bytes(encode_png(np.zeros((8, 8), np.uint8)))
    environment = {"PYTHONIOENCODING": encoding}
    listed = command(bundle, "--inputs-from", "-", "--format", "jsonl", input=name + b"\n",
                     environment=environment)  # fmt: skip
    (tmp_path / "list").write_bytes(name + b"\n")
    filed = command(bundle, "--inputs-from", tmp_path / "list", "--output", tmp_path / "out.jsonl",
                    environment=environment)  # fmt: skip
    assert (listed.returncode, filed.returncode) == (0, 0)
    for text in (listed.stdout, (tmp_path / "out.jsonl").read_bytes()):
        (row,) = json_rows_of(text.decode("utf-8"))
        assert os.fsencode(row["path"]) == name


def test_output_that_cannot_hold_a_name_shows_its_code(bundle: str, tmp_path: Path) -> None:
    path = write_png(tmp_path / "犬.png")
    done = command(bundle, path, environment={"PYTHONIOENCODING": "ascii:strict"})
    assert done.returncode == 0
    assert rb"\u72ac.png," in done.stdout


# Inputs


def test_folders_are_walked_at_any_depth_and_sorted(batch: Run, tmp_path: Path) -> None:
    names = ["b/2.png", "a.PNG", "b/10.jpeg", "c/d/e/f.webp", "b.gif"]
    for name in names:
        write_png(tmp_path / "photos" / name)
    for name in ("notes.txt", "b/Thumbs.db", "png", "c/d/image.table"):
        (tmp_path / "photos" / name).write_text("something else")
    os.mkfifo(tmp_path / "photos" / "pipe.png")
    alone = write_png(tmp_path / "alone.png")
    code, out, err = batch(alone, tmp_path / "photos", alone)
    assert code == 0
    inside = ["a.PNG", "b/10.jpeg", "b/2.png", "b.gif", "c/d/e/f.webp"]
    assert [row["path"] for row in rows_of(out)] == [
        alone,
        *(str(tmp_path / "photos" / name) for name in inside),
        alone,
    ]
    assert err == "7 labelled, 0 unreadable, 5 other files in folders passed over\n"


def test_find_images_counts_what_it_passes_over(tmp_path: Path) -> None:
    kept = write_png(tmp_path / "x" / "1.png")
    (tmp_path / "x" / "2.txt").touch()
    (tmp_path / "x" / "folder.png").mkdir()
    assert find_images([str(tmp_path / "x")]) == ([kept], 1)
    assert find_images([str(tmp_path / "x" / "2.txt")]) == ([str(tmp_path / "x" / "2.txt")], 0)


def test_a_named_file_is_kept_whatever_its_name(
    batch: Run, photos: list[str], tmp_path: Path
) -> None:
    image = write_png(tmp_path / "image.data")
    text = tmp_path / "notes.txt"
    text.write_text("no picture")
    code, out, err = batch(photos[0], text, image)
    assert code == 0
    assert [(row["path"], row["error"]) for row in rows_of(out)] == [
        (photos[0], ""),
        (str(text), NOT_AN_IMAGE),
        (image, ""),
    ]
    assert err == "2 labelled, 1 unreadable\n"


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(LockstepError, match=r"no images in .*: expected JPEG, PNG"):
        find_images([str(tmp_path)])


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_inputs_from_a_file(batch: Run, photos: list[str], tmp_path: Path, ending: str) -> None:
    odd = write_png(tmp_path / "line\u2028separator\x0c and page.png")
    listed = [photos[2], "", odd, "   ", photos[1]]
    (tmp_path / "list.txt").write_bytes(ending.join(listed).encode())
    code, out, _ = batch(photos[0], "--inputs-from", tmp_path / "list.txt")
    assert code == 0
    assert [row["path"] for row in rows_of(out)] == [photos[0], photos[2], odd, photos[1]]


def test_inputs_from_standard_input(
    batch: Run, photos: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = write_png(tmp_path / "ä\u2028.png")
    listed = f"{photos[4]}\n\n{odd}\n".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(listed), encoding="utf-8"))
    code, out, _ = batch("--inputs-from", "-")
    assert code == 0
    assert [row["path"] for row in rows_of(out)] == [photos[4], odd]


def test_options_may_stand_anywhere(bundle: str, photos: list[str]) -> None:
    calls = [
        [bundle, photos[0], photos[1], "--top", "2", "--quiet"],
        ["--top", "2", bundle, "--quiet", photos[0], photos[1]],
        [bundle, photos[0], "--top", "2", photos[1], "--quiet"],
    ]
    outputs = []
    for call in calls:
        done = command(*call)
        assert (done.returncode, done.stderr) == (0, b"")
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1] == outputs[2]


# Exit codes and messages


def test_nothing_readable_is_exit_code_1(bundle: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("text")
    (tmp_path / "b.png").touch()
    done = command(bundle, tmp_path, "--output", tmp_path / "rows.csv")
    assert done.returncode == 1
    assert done.stdout == b""
    assert done.stderr == b"0 labelled, 2 unreadable\n"
    assert len(rows_of((tmp_path / "rows.csv").read_text("utf-8"))) == 2


def test_quiet_says_nothing(bundle: str, photos: list[str]) -> None:
    done = command(bundle, *photos, "--quiet")
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(rows_of(done.stdout.decode())) == len(photos)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nowhere.onnx", "PHOTO"], "nowhere.onnx: no such bundle; expected a path to"),
        (["PHOTO", "PHOTO"], "00.png: not an ONNX model: its bytes do not parse"),
        (["BUNDLE"], "expected image files or folders after the bundle; see --help"),
        (["BUNDLE", "--inputs-from", "nowhere.txt"], "nowhere.txt: No such file or directory"),
        ([], "required: BUNDLE"),
        (["BUNDLE", "PHOTO", "--nope"], "unrecognized arguments: --nope"),
        (["BUNDLE", "PHOTO", "--top", "0"], "--top: expected an integer of at least 1, got '0'"),
        (["BUNDLE", "PHOTO", "--workers", "x"], "--workers: expected an integer of at least 1"),
        (["BUNDLE", "PHOTO", "--batch-size", "-3"], "--batch-size: expected an integer of"),
        (["BUNDLE", "PHOTO", "--threads", "1.5"], "--threads: expected an integer of at least 1"),
        (["BUNDLE", "PHOTO", "--format", "xml"], "--format: invalid choice: 'xml'"),
        *((["BUNDLE", "PHOTO", "--uncertain-below", share],
           f"--uncertain-below: expected a share from 0 to 1, got '{share}'")
          for share in ("1.01", "x", "nan", "inf", "Bundle", "", "0,5")),
        (["BUNDLE", "PHOTO", "--uncertain-below"], "--uncertain-below: expected one argument"),
        (["BUNDLE", "PHOTO", "--output", "FOLDER"], "Is a directory"),
        (["BUNDLE", "PHOTO", "--output", "PHOTO/rows.csv"], "File exists"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_code_2(
    bundle: str, photos: list[str], arguments: list[str], reason: str
) -> None:
    folder = str(Path(photos[0]).parent)
    words = {"BUNDLE": bundle, "PHOTO": photos[0], "FOLDER": folder}
    words["PHOTO/rows.csv"] = photos[0] + "/rows.csv"
    done = command(*(words.get(argument, argument) for argument in arguments))
    error = done.stderr.decode()
    assert done.returncode == 2
    assert done.stdout == b""
    assert error.startswith("error: ") and error.endswith("\n") and error.count("\n") == 1
    assert reason in error
    assert "Traceback" not in error


def test_debug_shows_the_traceback(bundle: str) -> None:
    done = command("nowhere.onnx", bundle, "--debug")
    assert done.returncode == 2
    assert b"Traceback (most recent call last)" in done.stderr
    assert done.stderr.endswith(b"nowhere.onnx: no such bundle; expected a path to a model.onnx\n")


def test_help_lists_every_option() -> None:
    done = command("--help")
    text = done.stdout.decode()
    assert done.returncode == 0
    assert done.stderr == b""
    for option in OPTIONS:
        assert f"\n  {option} " in text
    for part in ("BUNDLE", "INPUT", "example:\n  python -m serve.batch model.onnx photos/"):
        assert part in text


# Outputs


@pytest.mark.parametrize(
    ("name", "form", "json_lines"),
    [
        ("rows.csv", None, False),
        ("rows", None, False),
        ("rows.jsonl", None, True),
        ("rows.ndjson", None, True),
        ("rows.jsonl", "csv", False),
        ("rows.csv", "jsonl", True),
    ],
)
def test_the_format_follows_the_name_unless_told(
    batch: Run, photos: list[str], tmp_path: Path, name: str, form: str | None, json_lines: bool
) -> None:
    output = tmp_path / "new" / "folder" / name
    told = ["--format", form] if form else []
    assert batch(*photos, "--output", output, *told)[1] == ""
    text = output.read_text("utf-8")
    rows = json_rows_of(text) if json_lines else rows_of(text)
    assert [row["path"] for row in rows] == photos
    assert [path.name for path in output.parent.iterdir()] == [name]


def test_a_file_gets_what_standard_output_would(
    batch: Run, photos: list[str], tmp_path: Path
) -> None:
    _, printed, _ = batch(*photos, "--probabilities")
    batch(*photos, "--probabilities", "--output", tmp_path / "rows.csv")
    assert (tmp_path / "rows.csv").read_bytes() == printed.encode()


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs ulimit")
@pytest.mark.parametrize("before", [None, "yesterday's rows\n"])
@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_output_that_fails_half_way_is_absent(
    bundle: str, photos: list[str], tmp_path: Path, before: str | None, name: str
) -> None:
    output = tmp_path / "out" / name
    output.parent.mkdir()
    if before is not None:
        output.write_text(before)
    call = [sys.executable, "-m", "serve.batch", bundle, *photos * 3, "--probabilities"]
    limited = ["sh", "-c", 'ulimit -f 1 && exec "$@"', "sh", *call, "--output", str(output)]
    done = run_process(limited)
    assert done.returncode == 2
    assert done.stderr == f"error: {output}: File too large\n".encode()
    left = {path.name: path.read_text() for path in output.parent.iterdir()}
    assert left == ({} if before is None else {name: before})


def test_a_path_that_does_not_exist_is_a_row(batch: Run, photos: list[str]) -> None:
    code, out, _ = batch("nowhere.png", photos[0], "nowhere/")
    assert code == 0
    rows = rows_of(out)
    assert [row["path"] for row in rows] == ["nowhere.png", photos[0], "nowhere/"]
    assert [row["error"] for row in rows] == ["no such file", "", "no such file"]


def test_bad_input_leaves_the_old_output_alone(photos: list[str], tmp_path: Path) -> None:
    output = tmp_path / "out" / "rows.csv"
    output.parent.mkdir()
    output.write_text("old")
    with pytest.raises(LockstepError, match="nowhere: no such"):
        main(["nowhere", photos[0], "--output", str(output)])
    assert [(path.name, path.read_text()) for path in output.parent.iterdir()] == [
        ("rows.csv", "old")
    ]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("repeat", [1, 40])
def test_standard_output_that_is_full_is_one_error(
    bundle: str, photos: list[str], repeat: int
) -> None:
    with open("/dev/full", "w") as full:
        done = command(bundle, *photos * repeat, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: No space left on device; free some space")
    assert done.stderr.count(b"\n") == 1


def test_a_pipe_as_output_is_written_to_and_stays_a_pipe(
    batch: Run, photos: list[str], tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received: list[str] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_text("utf-8")), daemon=True)
    reader.start()
    code, _, _ = batch(*photos, "--output", pipe)
    reader.join(timeout=20)
    assert code == 0
    assert [row["path"] for row in rows_of(received[0])] == photos
    assert pipe.is_fifo()


# Independence from the training side


def test_neither_import_nor_run_loads_the_training_libraries(
    bundle: str, photos: list[str]
) -> None:
    code = (
        "import sys\n"
        "def loaded():\n"
        "    heavy = {'tensorflow', 'keras', 'pydantic', 'matplotlib', 'onnx', 'sklearn'}\n"
        "    return sorted(heavy & {name.partition('.')[0] for name in sys.modules})\n"
        "import serve, serve.batch\n"
        "imported = loaded()\n"
        "code = serve.batch.main(sys.argv[1:])\n"
        "print(imported, loaded(), code, file=sys.stderr)\n"
    )
    done = run_process([sys.executable, "-c", code, bundle, *photos, "--quiet"])
    assert done.stderr == b"[] [] 0\n"
    assert len(rows_of(done.stdout.decode())) == len(photos)


@pytest.mark.parametrize(
    ("version", "told"), [(PIL.__version__, False), ("1.0.0", True), (None, False)]
)
def test_another_release_of_pillow_is_told(
    bundle: str, version: str | None, told: bool, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Its resize may give other pixels than those of the proof."""
    versions = {"pillow": version} if version else {}
    copy = sealed_again(bundle, tmp_path / "model.onnx", versions=versions)
    for quiet in ([], ["--quiet"]):
        assert main([copy, write_png(tmp_path / "a.png"), *quiet]) == 0
        note = f"made with Pillow 1.0.0, this is Pillow {PIL.__version__}"
        assert (note in capsys.readouterr().err) == (told and not quiet)
