"""The main job as a user calls it: `python -m pipeline.run`."""

import csv
import functools
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from export.prepared_data import PreparedData
from export.run_directory import RunDirectory
from export.serving_function import load_model, predict_logits
from pipeline.recipe import load_recipe, resolve
from pipeline.run import main
from serve.bundle import bundle_document, seal
from serve.command import LockstepError

STAGES = ("prepare", "train", "evaluate", "export", "quantize", "verify", "report")
QUICK = (
    *("--train.epochs", "2", "--model.filters", "[8,8]", "--model.convolutions", "1"),
    *("--quantize.calibration_images", "16"),
)

TRAINED = ("--train.epochs", "3", "--train.loss.label_smoothing", "0.2")
"""The options of the fixture `trained_run`: with them, nothing of it runs again."""


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(run_module: Run) -> Run:
    return functools.partial(run_module, "pipeline.run")


def stages_run(output: str) -> list[str]:
    """The stages that did work, by their opening line."""
    return [stage for stage in STAGES if f"{stage:<9}  ..." in output]


def photos(folder: Path, count: int = 12) -> Path:
    """Three classes of coloured JPEGs of different sizes."""
    generator = np.random.default_rng(0)
    for name, colour in (("red", 0), ("green", 1), ("blue", 2)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(0, 90, (40 + number, 50, 3)).astype(np.uint8)
            pixels[..., colour] += 150
            Image.fromarray(pixels).save(folder / name / f"{number}.jpg")
    return folder


def assert_one_line(done: subprocess.CompletedProcess[str], *expected: str) -> None:
    assert done.returncode != 0
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    for text in expected:
        assert text in done.stderr


def test_the_run_directory_keeps_its_contract(trained_run: Path) -> None:
    names = {path.name for path in trained_run.iterdir()}
    assert names >= {
        "config.yaml",
        "data",
        "checkpoints",
        "history.csv",
        "logs",
        "model.keras",
        "metrics.json",
        "saved_model",
        "model.onnx",
        "parity.json",
        "report.html",
    }
    assert not [name for name in names if "partial" in name]
    assert not list((trained_run / "checkpoints").iterdir()), "the training is done"
    resolve(load_recipe(str(trained_run / "config.yaml")), {})
    metrics = json.loads((trained_run / "metrics.json").read_bytes())
    assert set(metrics) >= {
        "accuracy",
        "accuracy_interval",
        "precision_macro",
        "recall_macro",
        "f1_macro",
        "precision_weighted",
        "recall_weighted",
        "f1_weighted",
        "per_class",
        "confusion_matrix",
        "class_names",
        "loss",
        "examples",
    }
    assert metrics["examples"] == 359
    assert json.loads((trained_run / "parity.json").read_bytes())["passed"] is True


@pytest.mark.slow
def test_the_same_command_skips_and_a_changed_option_reruns(run: Run, run_copy: Path) -> None:
    same = run("--run-dir", run_copy, *TRAINED, folder=run_copy.parent)
    assert same.returncode == 0, same.stderr
    assert stages_run(same.stdout) == []
    before = (run_copy / "data" / "manifest.json").stat().st_mtime_ns
    other = run("--run-dir", run_copy, *TRAINED, "--train.epochs", "2", folder=run_copy.parent)
    assert other.returncode == 0, other.stderr
    assert stages_run(other.stdout) == [
        "train",
        "evaluate",
        "export",
        "quantize",
        "verify",
        "report",
    ]
    assert "changed since the last run: train.epochs 3 -> 2" in other.stdout
    assert (run_copy / "data" / "manifest.json").stat().st_mtime_ns == before


@pytest.mark.slow
def test_photos_from_a_folder_to_predictions(run: Run, run_module: Run, tmp_path: Path) -> None:
    """The default run name, a batch prediction on the originals, and their agreement."""
    folder = photos(tmp_path / "photos")
    (folder / "notes.txt").write_text("not an image")
    done = run(
        "--data", "folder:photos", "--prepare.image_size", "[24,32]", *QUICK, folder=tmp_path
    )
    assert done.returncode == 0, done.stderr
    run_dir = tmp_path / "runs" / "photos"
    manifest = PreparedData.open(run_dir / "data").manifest
    assert manifest.class_names == ["blue", "green", "red"]
    assert manifest.ignored == ["notes.txt"]
    assert manifest.image_spec().shape == (24, 32, 3)

    batch = run_module(
        "serve.batch", run_dir / "model.onnx", "photos", "--output", "out.csv", folder=tmp_path
    )
    assert batch.returncode == 0, batch.stderr
    with open(tmp_path / "out.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 36
    assert all(row["label"] in manifest.class_names and not row["error"] for row in rows)


@pytest.mark.slow
def test_arrays_from_an_npz(run: Run, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (40, 10, 10)).astype(np.uint8)
    np.savez(tmp_path / "set.npz", images=images, labels=np.arange(40) % 2)
    done = run("--data", f"npz:{tmp_path}/set.npz", *QUICK, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "set" / "model.onnx").is_file()


@pytest.mark.slow
def test_a_failed_proof_fails_the_run_but_shows_the_report(run_copy: Path) -> None:
    """The exported file is altered between the stages, as a broken export would alter it."""
    from export.verify import ParityError
    from pipeline import run as pipeline_run

    directory = RunDirectory(run_copy)

    def broken(config: object, run: RunDirectory) -> str:
        from pipeline.export_stage import export

        summary = export(config, run)  # type: ignore[arg-type]
        content = run.unverified_bundle.read_bytes()
        model = onnx.load_model_from_string(content)
        kernel = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        values = numpy_helper.to_array(kernel) * np.float32(1.5)
        kernel.CopyFrom(numpy_helper.from_array(values, kernel.name))
        document = bundle_document(content)
        sealed = seal(model.SerializeToString(), document.to_json())
        run.unverified_bundle.write_bytes(sealed)
        return summary

    arguments = ["--run-dir", str(run_copy), *TRAINED, "--quantize.enabled", "false"]
    stage = pipeline_run.EXPORT
    with pytest.MonkeyPatch.context() as patch:
        altered = type(stage)(stage.name, stage.reads, stage.after, stage.outputs, broken, 99)
        patch.setattr(pipeline_run, "EXPORT", altered)
        with pytest.raises(ParityError, match=r"the proof failed \(onnx: max difference"):
            pipeline_run.main(arguments)
    assert not directory.bundle.exists()
    assert not json.loads(directory.parity.read_bytes())["passed"]
    assert "proof failed" in directory.report.read_text()
    assert pipeline_run.main(arguments) == 0
    assert directory.bundle.exists()
    assert "proof passed" in directory.report.read_text()


@pytest.mark.slow
def test_a_stated_coverage_reaches_the_batch_command(
    run: Run, run_module: Run, run_copy: Path
) -> None:
    """Only what depends on it runs again; then the bundle can say that it is uncertain."""
    options = ["--evaluate.coverage", "0.8", "--quantize.enabled", "false"]
    done = run("--run-dir", run_copy, *TRAINED, *options, folder=run_copy.parent)
    assert done.returncode == 0, done.stderr
    assert stages_run(done.stdout) == list(STAGES[2:])
    assert not (run_copy / "model.int8.onnx").exists()
    rejection = json.loads((run_copy / "metrics.json").read_bytes())["rejection"]
    assert 0.6 < rejection["coverage"] < 1
    batch = run_module(
        "serve.batch", "model.onnx", "data/proof", "--uncertain-below", "bundle", "--quiet",
        folder=run_copy,
    )  # fmt: skip
    assert batch.returncode == 0, batch.stderr
    rows = list(csv.DictReader(batch.stdout.splitlines()))
    certain = [row for row in rows if row["label"] != "uncertain"]
    assert len(certain) / len(rows) == pytest.approx(rejection["coverage"])
    assert min(float(row["probability"]) for row in certain) >= rejection["threshold"] - 1e-6


def test_a_model_that_is_not_what_was_required_is_not_released(
    run_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The proof is made and the report written; a condition that is met releases it after all."""
    directory = RunDirectory(run_copy)
    few = ["--verify.max_examples", "20", "--quantize.enabled", "false"]
    arguments = ["--run-dir", str(run_copy), *TRAINED, *few, "--evaluate.require"]
    with pytest.raises(LockstepError, match=r"accuracy>=0.999: accuracy is 0.\d+ \(95 %") as caught:
        main([*arguments, "accuracy>=0.999, verdict"])
    assert caught.value.exit_code == 1
    assert not directory.bundle.exists()
    assert not directory.int8_bundle.exists()
    assert json.loads(directory.parity.read_bytes())["passed"]
    assert [item["met"] for item in json.loads(directory.requirements.read_bytes())] == [
        False,
        True,
    ]
    assert "requirements not met" in directory.report.read_text()
    assert "verdict    the model is " in capsys.readouterr().out
    assert main([*arguments, "accuracy>=0.5"]) == 0
    out = capsys.readouterr().out
    assert directory.bundle.exists()
    assert "evaluate   skipped" in out, "a condition changes no figure"
    assert "meets accuracy>=0.5" in out


def test_a_condition_on_a_class_that_there_is_not_ends_before_training(run_copy: Path) -> None:
    arguments = ["--run-dir", str(run_copy), "--train.epochs", "4"]
    with pytest.raises(LockstepError, match="no class 'seven'; expected one of 0, 1, 2"):
        main([*arguments, "--evaluate.require", "recall[seven]>=0.5"])
    assert RunDirectory(run_copy).bundle.exists()


def test_calibration_changes_no_label_and_is_reported(trained_run: Path) -> None:
    metrics = json.loads((trained_run / "metrics.json").read_bytes())
    assert metrics["calibration"]["temperature"] != 1
    data = PreparedData.open(trained_run / "data")
    test = data.indices("test")
    logits = predict_logits(load_model(trained_run / "model.keras"), data.images, test)
    probabilities = np.load(trained_run / "test_probabilities.npy")
    np.testing.assert_array_equal(logits.argmax(axis=1), probabilities.argmax(axis=1))
    assert metrics["accuracy"] == (logits.argmax(axis=1) == data.labels[test]).mean()
    for when in ("before", "after"):
        bins = metrics["calibration"][when]["bins"]
        assert sum(item["examples"] for item in bins) == 359


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--evaluate.coverage", "1.5"], ["evaluate.coverage", "less than or equal to 1"]),
        (["--train.epoch", "3"], ["unknown argument --train.epoch", "--train.epochs"]),
        (["--train.epochs", "many"], ["train.epochs", "integer", "'many'"]),
        (["--data", "folder:nowhere"], ["folder:nowhere: no such folder"]),
        (["--data", "pictures"], ["expected one of digits, fashion-mnist, folder:PATH"]),
        (["--recipe", "none.yaml"], ["no recipe 'none.yaml'"]),
        (["--model.filters", "[8,8,8,8]"], ["no pixel left after stage 4"]),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_bundle(
    run: Run, arguments: list[str], expected: list[str], tmp_path: Path
) -> None:
    done = run(*arguments, "--run-dir", "run", folder=tmp_path)
    assert_one_line(done, *expected)
    assert not (tmp_path / "run" / "model.onnx").exists()


def test_a_run_directory_of_other_data_is_not_overwritten(run: Run, run_copy: Path) -> None:
    photos(run_copy.parent / "photos")
    done = run("--data", "folder:photos", "--run-dir", run_copy, folder=run_copy.parent)
    assert_one_line(done, "holds a run on digits, expected one on folder:photos", "--run-dir")
    assert (run_copy / "model.onnx").is_file()


def test_a_directory_with_other_files_is_not_written_to(run: Run, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").touch()
    done = run("--run-dir", "thesis", folder=tmp_path)
    assert_one_line(done, "found other files", "--run-dir")
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.txt"]


def test_debug_shows_the_traceback(run: Run, tmp_path: Path) -> None:
    done = run("--debug", "--data", "folder:nowhere", folder=tmp_path)
    assert done.returncode != 0
    assert "Traceback" in done.stderr
