"""The proof passes on what was exported, and turns red on what was damaged since."""

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from export.parity import BATCH_SIZES
from export.prepared_data import PreparedData
from export.proof import CALLERS, headline
from export.run_directory import RunDirectory
from export.run_document import run_document
from export.verify import ParityError, main
from pipeline.config import Config
from pipeline.export_stage import verify
from serve.bundle import METADATA_KEY
from serve.classifier import Classifier
from serve.command import LockstepError
from serve.onnx_file import without_entry

FEW = ("--max-examples", "40")
EditDocument = Callable[[Path, Callable[[dict[str, Any]], None]], None]
EditGraph = Callable[[Path, Callable[[onnx.ModelProto], None]], None]


@pytest.fixture
def run(run_copy: Path) -> Path:
    """A copy of a run with the float bundle alone."""
    for name in ("model.int8.onnx", "model.int8.unverified.onnx"):
        (run_copy / name).unlink(missing_ok=True)
    return run_copy


@pytest.fixture
def int8(int8_copy: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a run with both bundles; one of 40 images may be lost to int8."""
    monkeypatch.setattr("export.verify.MAX_DROP", 0.05)
    return int8_copy


def parity(run: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((run / "parity.json").read_bytes())
    assert document["passed"] == all(check["passed"] for check in document["checks"].values())
    return document


def checks_after(run: Path) -> dict[str, dict[str, Any]]:
    checks: dict[str, dict[str, Any]] = parity(run)["checks"]
    return checks


def names_of_failed(checks: dict[str, dict[str, Any]]) -> set[str]:
    return {name for name, check in checks.items() if not check["passed"]}


def failed(run: Path) -> set[str]:
    """Fail the proof; the names of the checks that did."""
    with pytest.raises(ParityError) as caught:
        main([str(run), *FEW])
    names = names_of_failed(checks_after(run))
    for name in names:
        assert f"{name}: {checks_after(run)[name]['reason']}" in str(caught.value)
    assert not (run / "model.onnx").exists() or not names
    return names


def first_large_constant(model: onnx.ModelProto) -> onnx.TensorProto:
    return next(
        tensor
        for tensor in model.graph.initializer
        if tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.INT8)
        and np.prod(tensor.dims) >= 100
    )


def empty_kernel(model: onnx.ModelProto) -> None:
    tensor = first_large_constant(model)
    values = np.zeros_like(numpy_helper.to_array(tensor))
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def test_a_finished_run_proves_again(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "model.onnx").read_bytes()
    assert main([str(run)]) == 0
    checks = checks_after(run)
    assert set(checks) == {"saved_model", "onnx", "batch", "server", "graph", "document"}
    for name in ("saved_model", "onnx", "batch", "server"):
        assert checks[name]["examples"] == 359
        assert checks[name]["max_difference"] <= 1e-4
        assert checks[name]["run_difference"] <= 1e-4
        assert checks[name]["label_agreement"] == 1
        assert checks[name]["accuracy_difference"] == 0
    accuracy = json.loads((run / "metrics.json").read_bytes())["accuracy"]
    assert checks["onnx"]["accuracy"] == pytest.approx(accuracy, abs=1e-9)
    assert parity(run)["int8"] is None
    assert (run / "model.onnx").read_bytes() == before
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()[1:]] == [
        [name, "passed"] for name in checks
    ]


def test_both_bundles_are_proven(int8: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {name: (int8 / name).read_bytes() for name in ("model.onnx", "model.int8.onnx")}
    assert main([str(int8), *FEW]) == 0
    result = parity(int8)
    assert result["int8"]["passed"]
    assert set(result["int8"]["checks"]) == {
        *("onnx", "batch", "server", "graph", "document", "images")
    }
    assert not names_of_failed(result["int8"]["checks"])
    assert result["int8"]["checks"]["onnx"]["max_difference"] > 1e-4, "that is no int8"
    assert {name: (int8 / name).read_bytes() for name in before} == before
    assert "int8 onnx      passed" in capsys.readouterr().out


def test_the_worst_example_is_a_row_of_the_data_set(run: Path) -> None:
    assert main([str(run), *FEW]) == 0
    test = PreparedData.open(run / "data").indices("test")
    batches = {f"batches of {size}" for size in BATCH_SIZES}
    runs = {
        "saved_model": batches,
        "onnx": batches | {"one thread", f"{CALLERS} callers at once"},
        "batch": batches | {"one thread"},
        "server": {f"pixels, batches of {size}" for size in BATCH_SIZES}
        | {"pixels as JSON", "files, batches of 7", "files one by one"},
    }
    for path, names in runs.items():
        check = checks_after(run)[path]
        assert check["worst_example"] in test
        assert check["worst_run"] in names


def test_swapped_labels_are_caught(run: Path, edit_document: EditDocument) -> None:
    def swap(document: dict[str, Any]) -> None:
        names = document["class_names"]
        names[3], names[5] = names[5], names[3]

    edit_document(run / "model.onnx", swap)
    assert failed(run) == {"document", "batch", "server"}


def test_a_change_that_was_not_sealed_is_caught_before_anything_is_run(run: Path) -> None:
    content = bytearray((run / "model.onnx").read_bytes())
    kernel = first_large_constant(onnx.load_model_from_string(bytes(content))).raw_data
    content[bytes(content).index(kernel) + 50] ^= 1
    (run / "model.onnx").write_bytes(content)
    assert failed(run) == {"onnx", "batch", "server", "document"}
    for name in ("onnx", "batch", "server", "document"):
        assert "does not match the digest" in checks_after(run)[name]["reason"]


def test_a_damaged_bundle_is_caught(run: Path) -> None:
    content = (run / "model.onnx").read_bytes()
    (run / "model.onnx").write_bytes(content[: len(content) // 2])
    assert failed(run) == {"onnx", "batch", "server", "graph", "document"}
    assert "cut off" in checks_after(run)["onnx"]["reason"]


def test_a_bundle_without_a_document_is_caught(run: Path) -> None:
    content = (run / "model.onnx").read_bytes()
    (run / "model.onnx").write_bytes(without_entry(content, METADATA_KEY))
    assert failed(run) == {"onnx", "batch", "server", "document"}
    assert "no bundle" in checks_after(run)["document"]["reason"]


def test_a_graph_that_fails_while_it_runs_is_caught(run: Path, edit_graph: EditGraph) -> None:
    """The features of the logits get a shape that does not fit: valid to load, not to run."""

    def reshape(model: onnx.ModelProto) -> None:
        product = next(node for node in model.graph.node if node.op_type == "MatMul")
        kernel = next(item for item in model.graph.initializer if item.name == product.input[1])
        width = numpy_helper.to_array(kernel).shape[0]
        node = helper.make_node("Reshape", [product.input[0], "shape"], ["reshaped"])
        product.input[0] = "reshaped"
        # A row more than there is: -1 as the width would be refused when it is loaded.
        shape = numpy_helper.from_array(np.array([3, width]), "shape")
        model.graph.initializer.append(shape)
        model.graph.node.insert(list(model.graph.node).index(product), node)
        del model.graph.value_info[:]

    edit_graph(run / "model.onnx", reshape)
    assert failed(run) >= {"onnx", "batch", "server"}
    assert "onnxruntime cannot run it" in checks_after(run)["onnx"]["reason"]
    assert "onnxruntime cannot run it" in checks_after(run)["batch"]["reason"]
    assert "did not start: error: " in checks_after(run)["server"]["reason"]
    assert "onnxruntime cannot run it" in checks_after(run)["server"]["reason"]


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_damaged_saved_model_is_caught(damage: str, run: Path) -> None:
    if damage == "missing":
        shutil.rmtree(run / "saved_model")
    else:
        (variables,) = (run / "saved_model").glob("variables/*.data-*")
        variables.write_bytes(variables.read_bytes()[:100])
    assert failed(run) == {"saved_model"}
    assert "not a loadable SavedModel" in checks_after(run)["saved_model"]["reason"]


@pytest.mark.parametrize("change", ["missing", "emptied", "another"])
def test_test_files_that_changed_prove_nothing(change: str, run: Path) -> None:
    """Somebody edited or moved the photos: no reason to take the bundle out of service."""
    first, second = sorted((run / "data" / "proof").iterdir())[:2]
    if change == "missing":
        first.unlink()
    else:
        first.write_bytes(b"" if change == "emptied" else second.read_bytes())
    before = (run / "parity.json").read_bytes()
    with pytest.raises(LockstepError, match="1 of 359 test files are gone") as caught:
        main([str(run)])
    assert not isinstance(caught.value, ParityError)
    assert (run / "model.onnx").is_file()
    assert (run / "parity.json").read_bytes() == before


def test_a_reader_that_refuses_a_test_file_is_caught(
    run: Path, edit_document: EditDocument
) -> None:
    edit_document(run / "model.onnx", lambda document: document["image"].update(max_pixels=63))
    assert failed(run) == {"document", "batch", "server"}
    assert "cannot be read: image of 8x8 = 64 pixels" in checks_after(run)["batch"]["reason"]
    assert "answered 422: {" in checks_after(run)["server"]["reason"]
    assert "image of 8x8 = 64 pixels" in checks_after(run)["server"]["reason"]


def test_a_failed_proof_takes_the_bundle_out_of_service(
    run: Path,
    edit_graph: EditGraph,
    run_module: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    edit_graph(run / "model.onnx", empty_kernel)
    (run / "model.unverified.onnx").unlink()
    done = run_module("export.verify", run, *FEW, folder=run.parent)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the proof failed (model.unverified.onnx: onnx: ")
    assert len(done.stderr.splitlines()) == 1
    paths = RunDirectory(run)
    assert not paths.bundle.exists()
    assert not paths.report.exists()
    assert paths.unverified_bundle.exists()


@pytest.mark.slow
def test_a_tampered_int8_file_loses_its_name_and_the_float_bundle_stays(
    int8: Path, edit_graph: EditGraph
) -> None:
    before = (int8 / "model.onnx").read_bytes()
    edit_graph(int8 / "model.int8.onnx", empty_kernel)
    tampered = (int8 / "model.int8.onnx").read_bytes()
    with pytest.raises(ParityError, match=r"model\.int8\.unverified\.onnx: onnx: accuracy drops"):
        main([str(int8), *FEW])
    result = parity(int8)
    assert result["passed"]
    assert not result["int8"]["passed"]
    assert names_of_failed(result["int8"]["checks"]) == {"onnx", "batch", "server", "images"}
    assert (int8 / "model.onnx").read_bytes() == before
    assert not (int8 / "model.int8.onnx").exists()
    withdrawn = (int8 / "model.int8.unverified.onnx").read_bytes()
    assert without_entry(withdrawn, METADATA_KEY) == without_entry(tampered, METADATA_KEY)
    assert Classifier(int8 / "model.int8.unverified.onnx").document.parity == {}
    assert not (int8 / "report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda document: document["class_names"].reverse(), {"batch", "server", "document"}),
        (lambda document: document.update(precision="float32"), {"document"}),
        (lambda document: document.update(temperature=9.0), {"document"}),
    ],
    ids=["labels", "precision", "temperature"],
)
def test_an_int8_document_that_says_what_is_not_so_is_caught(
    change: Callable[[dict[str, Any]], None],
    expected: set[str],
    int8: Path,
    edit_document: EditDocument,
) -> None:
    edit_document(int8 / "model.int8.onnx", change)
    with pytest.raises(ParityError):
        main([str(int8), *FEW])
    assert names_of_failed(parity(int8)["int8"]["checks"]) == expected
    assert (int8 / "model.onnx").is_file()


def no_temperature(model: onnx.ModelProto) -> None:
    softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
    divide = next(node for node in model.graph.node if softmax.input[0] in node.output)
    constant = next(item for item in model.graph.initializer if item.name in divide.input)
    constant.CopyFrom(numpy_helper.from_array(np.array(1e-3, np.float32), constant.name))


def leak(model: onnx.ModelProto) -> None:
    """A little of the first image of a batch in all others: too little to change many labels."""
    softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
    for name, values in (("zero", np.array([0])), ("share", np.array(0.02, np.float32))):
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    place = list(model.graph.node).index(softmax)
    for node in (
        helper.make_node("Add", [softmax.input[0], "leak"], ["leaky"]),
        helper.make_node("Mul", ["first", "share"], ["leak"]),
        helper.make_node("Gather", [softmax.input[0], "zero"], ["first"], axis=0),
    ):
        model.graph.node.insert(place, node)
    softmax.input[0] = "leaky"


@pytest.mark.slow
@pytest.mark.parametrize("fault", [no_temperature, leak])
def test_int8_probabilities_that_mean_nothing_are_caught(
    fault: Callable[[onnx.ModelProto], None], int8: Path, edit_graph: EditGraph
) -> None:
    """Nearly uniform ones, and such that depend on the neighbours, with the same labels."""
    edit_graph(int8 / "model.int8.onnx", fault)
    with pytest.raises(ParityError):
        main([str(int8), *FEW])
    assert names_of_failed(parity(int8)["int8"]["checks"]) == {"onnx", "batch", "server"}


@pytest.mark.slow
def test_int8_in_place_of_the_float_bundle_is_caught(int8: Path) -> None:
    shutil.copy(int8 / "model.int8.onnx", int8 / "model.onnx")
    with pytest.raises(ParityError):
        main([str(int8), *FEW])
    assert names_of_failed(checks_after(int8)) == {"onnx", "batch", "server", "document"}
    assert parity(int8)["int8"]["passed"]
    assert not (int8 / "model.onnx").exists()
    assert (int8 / "model.int8.onnx").is_file()


def test_both_bundles_can_fail_at_once(int8: Path) -> None:
    for name in ("model.onnx", "model.int8.onnx"):
        (int8 / name).write_bytes(b"no model")
    with pytest.raises(ParityError) as caught:
        main([str(int8), *FEW])
    assert "(model.unverified.onnx: onnx: " in str(caught.value)
    assert "; model.int8.unverified.onnx: onnx: " in str(caught.value)
    assert not list(int8.glob("model.onnx")) + list(int8.glob("model.int8.onnx"))


@pytest.mark.slow
def test_the_stage_releases_the_float_bundle_where_int8_fails(
    int8: Path, edit_graph: EditGraph
) -> None:
    edit_graph(int8 / "model.int8.unverified.onnx", empty_kernel)
    (int8 / "model.onnx").unlink()
    config = Config.model_validate({"verify": {"max_examples": 40}})
    summary = verify(config, RunDirectory(int8))
    assert "int8 not kept: onnx: accuracy drops by" in summary
    assert not (int8 / "model.int8.onnx").exists()
    assert Classifier(int8 / "model.onnx").document.parity["onnx"]["examples"] == 40


@pytest.mark.parametrize("name", ["model", "model.int8"])
def test_a_released_file_is_the_proven_one_with_its_figures(name: str, int8_run: Path) -> None:
    proven, released = int8_run / f"{name}.unverified.onnx", int8_run / f"{name}.onnx"
    one, other = (without_entry(path.read_bytes(), METADATA_KEY) for path in (proven, released))
    assert one == other
    before, after = Classifier(proven).document, Classifier(released).document
    assert before.parity == {}
    result = parity(int8_run)
    checks = result["checks"] if name == "model" else result["int8"]["checks"]
    shown = {"onnx", "batch", "server"} | ({"saved_model"} if name == "model" else set())
    assert after.parity == headline(checks)
    assert set(after.parity) == shown
    for path in shown:
        assert after.parity[path]["examples"] == 60
        assert after.parity[path]["max_difference"] == checks[path]["max_difference"]
        assert after.parity[path]["label_agreement"] == checks[path]["label_agreement"]
    if name == "model":
        assert after.metrics == before.metrics
        assert after.verdict == before.verdict
    else:  # the accuracy of the float model is not its own, nor is the verdict on it
        assert after.metrics == {"accuracy": checks["onnx"]["accuracy"], "examples": 60}
        assert [asdict(item) for item in after.verdict[:-1]] == checks["onnx"]["verdict"]
        assert after.verdict[-1] == before.verdict[-1], "how many validation images there are"
        assert "60 images" in after.verdict[0].text
    unchanged = {"parity", "metrics", "verdict"}
    fields = ({**document.to_json()} for document in (before, after))
    old, new = ({k: v for k, v in each.items() if k not in unchanged} for each in fields)
    assert old == new


def test_figures_that_are_not_known_are_left_out_of_the_headline() -> None:
    figures = {"examples": 3, "max_difference": 0.1, "label_agreement": 1.0, "passed": True}
    checks: dict[str, dict[str, Any]] = {
        "onnx": {**figures, "accuracy": None, "accuracy_difference": None},
        "graph": {"passed": True, "reason": ""},
    }
    assert headline(checks) == {
        "onnx": {"examples": 3, "max_difference": 0.1, "label_agreement": 1.0}
    }


def test_a_sample_of_the_test_split_can_be_proven(run: Path) -> None:
    assert main([str(run), "--max-examples", "50"]) == 0
    assert checks_after(run)["onnx"]["examples"] == 50


def test_the_temperature_is_part_of_the_reference(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_bytes())
    metrics["calibration"]["temperature"] *= 2
    (run / "metrics.json").write_text(json.dumps(metrics))
    assert failed(run) == {"saved_model", "onnx", "batch", "server", "document"}
    assert "differs from the run in temperature" in checks_after(run)["document"]["reason"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; expected a finished run directory"),
        ("", "damaged, or of another release"),
        ("[]", "damaged, or of another release"),
        ('{"accuracy": 0.5}', "damaged, or of another release"),
        ('{"calibration": {"temperature": null}}', "damaged, or of another release"),
    ],
)
def test_a_run_that_was_not_evaluated_is_explained(
    content: str | None, message: str, run_copy: Path
) -> None:
    metrics = run_copy / "metrics.json"
    metrics.unlink()
    if content is not None:
        metrics.write_text(content)
    with pytest.raises(LockstepError, match=message) as caught:
        run_document(RunDirectory(run_copy))
    assert not isinstance(caught.value, ParityError)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "training.json: no such file; expected a finished run directory"),
        ("", "training.json: damaged, or of another release"),
        ('{"mean": [0.5]}', "training.json: damaged, or of another release"),
        ('{"mean": 0.5, "std": [0.5]}', "training.json: damaged, or of another release"),
    ],
)
def test_a_run_that_does_not_say_how_it_normalizes_is_explained(
    content: str | None, message: str, run_copy: Path
) -> None:
    training = run_copy / "training.json"
    training.unlink()
    if content is not None:
        training.write_text(content)
    with pytest.raises(LockstepError, match=message):
        run_document(RunDirectory(run_copy))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "no such bundle; expected a finished run directory"),
        ([], "the following arguments are required: RUN"),
        (["run", "--max-examples", "x"], "expected int, got 'x'"),
        (["run", "--max-examples", "0"], "--max-examples: expected at least 1, got 0"),
    ],
)
def test_wrong_calls_are_explained(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LockstepError, match=message):
        main(arguments)


def test_a_run_without_data_is_explained(run: Path) -> None:
    (run / "data" / "manifest.json").unlink()
    with pytest.raises(LockstepError, match="expected a finished run directory"):
        main([str(run)])


@pytest.fixture(scope="module")
def resized_original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the same data whose images are larger."""
    from pipeline.run import main as run_pipeline

    run_dir = tmp_path_factory.mktemp("resized") / "run"
    options = ["--prepare.image_size", "[12, 12]", "--train.epochs", "2", "--model.name", "lenet"]
    assert run_pipeline(["--run-dir", str(run_dir), *options, "--quantize.enabled", "false"]) == 0
    return run_dir


@pytest.mark.parametrize("what", ["model.onnx", "saved_model"])
def test_what_belongs_to_another_run_is_a_failed_check(
    what: str, run: Path, resized_original: Path
) -> None:
    """It takes images of another size: no answer to compare, and no reason to stop."""
    if (run / what).is_dir():
        shutil.rmtree(run / what)
        shutil.copytree(resized_original / what, run / what)
    else:
        shutil.copy(resized_original / what, run / what)
    names = {"saved_model"} if what == "saved_model" else {"onnx", "batch", "server", "document"}
    assert failed(run) == names


def test_an_int8_bundle_is_not_kept_on_a_handful_of_images(int8_copy: Path) -> None:
    """The same answers on 6 images exclude nothing: int8 may be wrong on every third image."""
    with pytest.raises(ParityError, match="6 test images are too few"):
        main([str(int8_copy), "--max-examples", "6"])
    result = parity(int8_copy)
    assert result["passed"]
    assert names_of_failed(result["int8"]["checks"]) == {"images"}
    assert not (int8_copy / "model.int8.onnx").exists()
    assert (int8_copy / "model.onnx").exists()
