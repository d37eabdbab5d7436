"""comparison.csv and curves.csv, on run directories made for the test."""

import csv
import io
import json
import shutil
import subprocess
from collections.abc import Callable
from math import nan
from pathlib import Path

import pytest

from pipeline.compare.command import main
from pipeline.compare.figures import COLUMNS, best_of, differing, figures, undecided
from pipeline.compare.page import page
from pipeline.compare.runs import ComparedRun, CompareError, read_runs
from pipeline.compare.tables import curves_table, runs_table
from pipeline.history import HISTORY_COLUMNS
from pipeline.recipe import ConfigError

MakeRun = Callable[..., Path]


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def rows_of(table: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table, newline="")))


def compare(*runs: Path) -> list[dict[str, str]]:
    return rows_of(runs_table(read_runs(runs)))


def every_file(path: Path) -> dict[str, tuple[bytes, int]]:
    files = (file for file in sorted(path.rglob("*")) if file.is_file())
    return {str(file): (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


def best(runs: list[ComparedRun], key: str) -> set[str]:
    column = next(column for column in COLUMNS if column.key == key)
    positions = best_of(column, runs, [figures(run)[key] for run in runs])
    return {runs[position].name for position in positions}


def test_the_numbers_are_those_of_the_files(make_run: MakeRun, tmp_path: Path) -> None:
    path = make_run("one", accuracy=0.8765432109876543)
    (path / "model.onnx").write_bytes(bytes(1000))
    (path / "model.int8.onnx").write_bytes(bytes(300))
    latency = {"float32": {"1": 0.321, "32": 2.5}, "int8": {"1": 0.2, "32": 1.5}}
    (path / "quantization.json").write_text(json.dumps({"latency_ms": latency}))
    row, _ = compare(path, make_run("two"))
    metrics = json.loads((path / "metrics.json").read_bytes())
    training = json.loads((path / "training.json").read_bytes())
    history = read_csv(path / "history.csv")
    kept = history[training["best_epoch"] - 1]
    assert (row["run"], row["state"], row["data"]) == ("one", "finished", "digits")
    assert float(row["test_accuracy"]) == metrics["accuracy"]
    interval = [float(row["test_accuracy_low"]), float(row["test_accuracy_high"])]
    assert interval == metrics["accuracy_interval"]
    for name in ("precision_macro", "recall_macro", "f1_macro"):
        assert float(row[name]) == metrics[name]
    assert float(row["test_loss"]) == metrics["loss"]
    assert float(row["best_value"]) == training["best_value"]
    assert int(row["best_epoch"]) == training["best_epoch"] == 5
    assert (row["val_loss"], row["val_accuracy"]) == (kept["val_loss"], kept["val_accuracy"])
    assert (int(row["epochs"]), row["steps"]) == (6, history[-1]["step"])
    assert float(row["training_seconds"]) == round(sum(float(r["seconds"]) for r in history), 1)
    assert float(row["images_per_second"]) == 2003.5
    assert int(row["parameters"]) == training["parameters"]
    assert (row["bundle_bytes"], row["int8_bytes"]) == ("1000", "300")
    assert (row["latency_ms"], row["int8_latency_ms"]) == ("0.321", "0.2")


def test_the_curves_are_the_histories(make_run: MakeRun, tmp_path: Path) -> None:
    paths = [make_run("one"), make_run("two", epochs=4)]
    expected = [
        {"run": path.name, **row} for path in paths for row in read_csv(path / "history.csv")
    ]
    assert rows_of(curves_table(read_runs(paths))) == expected
    assert len(expected) == 10


def test_nothing_in_the_runs_is_touched(make_run: MakeRun, tmp_path: Path) -> None:
    paths = [make_run("one"), make_run("two")]
    before = every_file(tmp_path / "runs")
    assert main([*map(str, paths), "--output", str(tmp_path / "out")]) == 0
    assert every_file(tmp_path / "runs") == before


def test_the_keys_that_differ_and_no_others(make_run: MakeRun, tmp_path: Path) -> None:
    paths = [
        make_run("sgd", {"train.optimizer.name": "sgd", "train.optimizer.learning_rate": 0.3}),
        make_run("adam", {"train.optimizer.name": "adam", "model.filters": [8, 8]}),
        make_run("mean", {"train.optimizer.name": "sgd", "train.weight_average": 0.99}),
    ]
    assert differing(read_runs(paths)) == {
        "model.filters": ["[32, 64, 128]", "[8, 8]", "[32, 64, 128]"],
        "train.optimizer.name": ["sgd", "adam", "sgd"],
        "train.optimizer.learning_rate": ["0.3", "0.001", "0.1"],
        "train.optimizer.beta_1": ["", "0.9", ""],
        "train.optimizer.beta_2": ["", "0.999", ""],
        "train.optimizer.epsilon": ["", "1e-07", ""],
        "train.weight_average": ["null", "null", "0.99"],
    }
    rows = compare(*paths)
    assert [row["train.optimizer.learning_rate"] for row in rows] == ["0.3", "0.001", "0.1"]
    assert "seed" not in rows[0]


def test_the_best_is_the_best_of_finished_runs_on_the_same_images(
    make_run: MakeRun, unfinished: MakeRun
) -> None:
    runs = read_runs(
        [
            make_run("a", accuracy=0.91),
            make_run("b", accuracy=0.95),
            make_run("c", accuracy=0.95),
            make_run("other-a", accuracy=0.99, fingerprint="cd" * 32),
            make_run("other-b", accuracy=0.98, fingerprint="cd" * 32),
            make_run("alone", accuracy=0.999, fingerprint="ef" * 32),
            unfinished(),
        ]
    )
    assert best(runs, "test_accuracy") == {"b", "c", "other-a"}
    assert best(runs, "val_loss") == set(), "all are equal"
    assert best(runs, "training_seconds") == set()
    assert best(runs, "test_accuracy_low") == set(), "no figure to be judged by"


@pytest.mark.parametrize(
    ("images", "tied"), [(20, {"a", "b"}), (2000, {"a", "b"}), (50_000, set())]
)
def test_what_the_images_do_not_decide_is_not_called_the_best(
    make_run: MakeRun, images: int, tied: set[str]
) -> None:
    """91 % and 92 %: an open question on 2,000 images, and an answer on 50,000."""
    runs = read_runs(
        [
            make_run("a", accuracy=0.91, images=images),
            make_run("b", accuracy=0.92, images=images),
            make_run("poor", accuracy=0.2, images=images),
            make_run("elsewhere", accuracy=0.92, images=images, fingerprint="cd" * 32),
        ]
    )
    rows = [figures(run) for run in runs]
    column = next(column for column in COLUMNS if column.key == "test_accuracy")
    assert {runs[position].name for position in undecided(column, runs, rows)} == tied
    html = page(runs)
    assert ('class="undecided"' in html) == bool(tied)
    assert column.show(0.91, images) == (
        "91 %" if images == 20 else f"{91:.{1 + (images > 10_000)}f} %"
    )


def test_equal_figures_are_no_decision(make_run: MakeRun) -> None:
    runs = read_runs([make_run("a"), make_run("b"), make_run("worse", accuracy=0.5)])
    rows = [figures(run) for run in runs]
    column = next(column for column in COLUMNS if column.key == "test_accuracy")
    assert undecided(column, runs, rows) == {0, 1}


def test_less_is_better_where_it_is(make_run: MakeRun) -> None:
    runs = read_runs([make_run("short", epochs=4), make_run("long", epochs=8)])
    assert best(runs, "training_seconds") == {"short"}
    assert best(runs, "val_loss") == {"long"}


def test_what_is_no_number_is_not_the_best(make_run: MakeRun, unfinished: MakeRun) -> None:
    path = unfinished()
    lines = (path / "history.csv").read_text().splitlines()
    cells = lines[1].split(",")
    cells[HISTORY_COLUMNS.index("val_accuracy")] = "nan"
    (path / "history.csv").write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]))
    run, done = read_runs([path, make_run("done")])
    assert figures(run)["best_epoch"] == 3
    assert best_of(COLUMNS[0], [done, done, done], [nan, 0.5, 0.4]) == {1}


def test_losses_that_mean_other_things_are_not_judged(make_run: MakeRun) -> None:
    smooth = {"train.loss.label_smoothing": 0.1}
    runs = read_runs([make_run("short", smooth, epochs=4), make_run("long", epochs=8)])
    assert best(runs, "val_loss") == set()
    assert best(runs, "val_accuracy") == {"long"}


def test_an_unfinished_run_shows_what_there_is(
    make_run: MakeRun, unfinished: MakeRun, tmp_path: Path
) -> None:
    row, done = compare(unfinished(), make_run("done"))
    assert row["state"] == "unfinished: epoch 3 of 6"
    assert (row["epochs"], row["steps"], row["best_epoch"]) == ("3", "63", "3")
    assert (
        row["best_value"]
        == row["val_accuracy"]
        == read_csv(tmp_path / "runs" / "under-way" / "history.csv")[2]["val_accuracy"]
    )
    for key in ("test_accuracy", "f1_macro", "parameters", "bundle_bytes", "latency_ms"):
        assert row[key] == ""
    assert done["state"] == "finished"


@pytest.mark.parametrize(
    ("until", "state"),
    [
        ("prepare", "unfinished: no epoch yet"),
        ("train", "unfinished: trained, not yet measured on the test split"),
    ],
)
def test_how_far_a_run_is(until: str, state: str, make_run: MakeRun) -> None:
    run, _ = read_runs([make_run("early", until=until), make_run("done")])
    assert (run.state, run.is_finished) == (state, False)


def test_a_training_under_way_again_has_no_figures_of_the_one_before(
    make_run: MakeRun, tmp_path: Path
) -> None:
    path = make_run("again", accuracy=0.99)
    lines = (path / "history.csv").read_text().splitlines(keepends=True)
    (path / "history.csv").write_text("".join(lines[:3]))
    row, _ = compare(path, make_run("done"))
    assert row["state"] == "unfinished: epoch 2 of 6"
    assert row["test_accuracy"] == row["parameters"] == ""
    assert row["best_epoch"] == "2"


def test_figures_of_another_config_are_marked(make_run: MakeRun) -> None:
    path = make_run("changed")
    config = path / "config.yaml"
    config.write_text(config.read_text().replace("seed: 0", "seed: 1"))
    run, _ = read_runs([path, make_run("done")])
    assert run.state.startswith("finished, but not with this config.yaml")
    assert run.is_finished


def test_a_failed_proof_is_marked(make_run: MakeRun) -> None:
    path = make_run("wrong")
    (path / "parity.json").write_text('{"passed": false}')
    run, _ = read_runs([path, make_run("done")])
    assert run.state == "finished, but its proof failed"


def test_equal_names_are_told_apart(make_run: MakeRun) -> None:
    paths = [make_run("a/same/run"), make_run("b/same/run"), make_run("c/other")]
    assert [run.name for run in read_runs(paths)] == ["a/same/run", "b/same/run", "runs/c/other"]


def test_a_name_is_no_formula_to_a_spreadsheet(make_run: MakeRun, tmp_path: Path) -> None:
    evil = '=HYPERLINK("http:evil")'
    paths = [make_run(name) for name in (evil, "@sum", "-1+1", 'comma, "quote"\nline')]
    rows = compare(*paths)
    names = [f"'{evil}", "'@sum", "'-1+1", 'comma, "quote"\nline']
    assert [row["run"] for row in rows] == names
    curves = rows_of(curves_table(read_runs(paths)))
    assert list(dict.fromkeys(row["run"] for row in curves)) == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch,step\n1,2\n", "history.csv: expected a column learning_rate"),
        ("", "history.csv: expected a column epoch"),
        ("HEADER\n1,21,0.1,x,0,0,0,0,0\n", "line 2: expected a number as loss, got 'x'"),
        ("HEADER\n1,21,0.1,1,0\n", "line 2: expected a number as val_loss, got 'nothing'"),
        ("HEADER\n1.5,21,0.1,1,0,0,0,0,0\n", "line 2: expected a number as epoch, got '1.5'"),
        ('HEADER\n1,"21\n', "after line 1: unexpected end of data"),
        ("HEADER\n\x00\xff", "line 2: expected a number as epoch"),
    ],
)
def test_a_damaged_history_is_named(text: str, message: str, make_run: MakeRun) -> None:
    path = make_run("broken")
    header = (path / "history.csv").read_text().splitlines()[0]
    (path / "history.csv").write_bytes(text.replace("HEADER", header).encode("latin-1"))
    with pytest.raises(CompareError) as caught:
        read_runs([path, make_run("done")])
    assert message in str(caught.value)
    assert "run its command again, or leave the run out" in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[1]", '"text"'])
def test_damaged_json_is_named(text: str, make_run: MakeRun) -> None:
    path = make_run("broken")
    (path / "data" / "manifest.json").write_text(text)
    with pytest.raises(CompareError, match=r"manifest.json: .*the file is damaged"):
        read_runs([path, make_run("done")])


def test_what_is_no_run_is_named(make_run: MakeRun, tmp_path: Path) -> None:
    done = make_run("done")
    with pytest.raises(CompareError, match="expected the directory of a run, found no"):
        read_runs([done, tmp_path])
    with pytest.raises(CompareError, match="given twice"):
        read_runs([done, done / ".." / "done"])
    (done / "config.yaml").write_text("train: {epochs: many}")
    with pytest.raises(ConfigError, match=r"config.yaml: train.epochs: expected"):
        read_runs([done, make_run("other")])


def test_bad_requests_are_refused(make_run: MakeRun, tmp_path: Path) -> None:
    one, two = str(make_run("one")), str(make_run("two"))
    cases: list[tuple[list[str], str]] = [
        ([], "at least two runs, or --recipe, got 0"),
        ([one], "at least two runs, or --recipe, got 1"),
        ([one, two, "--train.epochs", "3"], "--train.epochs: expected --recipe with it"),
        ([one, two, "--fresh"], "--fresh: expected --recipe with it"),
        ([one, two, "--recipe", "optimizers"], "directories of runs or --recipe"),
        ([one, two, "--outputs", "x"], "unknown argument --outputs; did you mean --output?"),
        ([one, two, "--output", one], "expected a directory outside the runs"),
        ([one, two, "--output", f"{two}/deeper"], "expected a directory outside the runs"),
        (["--recipe", "optimizers", "--run-dir", one], "expected a directory outside the runs"),
    ]
    before = every_file(tmp_path)
    for arguments, message in cases:
        with pytest.raises((CompareError, ConfigError)) as caught:
            main(arguments)
        assert message in str(caught.value), arguments
    assert every_file(tmp_path) == before


def test_its_own_output_is_passed_over(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run("one"), make_run("two")
    for _ in range(2):
        paths = sorted(map(str, (tmp_path / "runs").iterdir()))
        assert main([*paths, "--output", str(tmp_path / "runs" / "compare")]) == 0
    assert "runs/compare: passed over, a comparison and no run" in capsys.readouterr().out
    assert len(read_csv(tmp_path / "runs" / "compare" / "comparison.csv")) == 2


def test_the_command(
    run_module: Callable[..., subprocess.CompletedProcess[str]], make_run: MakeRun, tmp_path: Path
) -> None:
    """As a user calls it, with the default output, and one line for an error."""
    make_run("one", accuracy=0.75), make_run("two")
    done = run_module("pipeline.compare", "runs/one", "runs/two", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "one  test accuracy 0.750 on 2,000 images, finished",
        "two  test accuracy 0.900 on 2,000 images, finished",
        "page       runs/compare/comparison.html",
        "tables     runs/compare/comparison.csv, runs/compare/curves.csv",
    ]
    shutil.rmtree(tmp_path / "runs" / "two")
    wrong = run_module("pipeline.compare", "runs/one", "runs/two", folder=tmp_path)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: runs/two: expected the directory of a run")
    assert wrong.stderr.count("\n") == 1
