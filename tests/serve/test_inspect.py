"""The inspect command: what it says of bundles, of other models, and of damaged files."""

import hashlib
import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import serve
from serve.bundle import METADATA_KEY, seal
from serve.classifier import Classifier
from serve.command import LockstepError
from serve.inspect import SHOWN_CLASSES, describe, for_people, main
from serve.onnx_file import outline

SOURCE_ROOT = Path(serve.__file__).parents[1]
NAMES = ("file", "sha256", "input", "output", "graph", "document", "producer", "digest", "created",
         "precision", "classes", "image", "in the graph", "uncertain", "metrics", "proof", "data",
         "config", "verdict")  # fmt: skip
HASH = "0123456789abcdef" * 4
FIELDS = {
    "created": "2026-02-03T04:05:06+00:00",
    "versions": {"keras": "3.15.1", "lockstep": "0.1.0"},
    "class_names": [f"digit {digit}" for digit in range(10)],
    "mean": [0.25],
    "std": [1 / 3],
    "temperature": 1.5,
    "rejection": {"threshold": 0.875, "coverage": 0.9, "accuracy": 0.9951},
    "precision": "int8",
    "metrics": {"accuracy": 0.98765, "examples": 359},
    "parity": {
        "onnx": {"examples": 359, "max_difference": 1.5e-7},
        "batch": {"label_agreement": 1.0},
    },
    "verdict": [
        {"name": "more than one answer", "status": "bad", "text": "all answers are 'digit 3'"},
        {"name": "calibrated", "status": "unknown", "text": "too few images"},
    ],
    "dataset_fingerprint": HASH,
    "config_hash": HASH[::-1],
}  # fmt: skip


@pytest.fixture
def bundle(trained_run: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, to change."""
    copy = tmp_path / "model.onnx"
    copy.write_bytes((trained_run / "model.onnx").read_bytes())
    return copy


def sealed_again(bundle: Path, **changes: Any) -> Path:
    content = bundle.read_bytes()
    document = json.loads(outline(content).metadata[METADATA_KEY])
    bundle.write_bytes(seal(content, {**document, **changes}))
    return bundle


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A model without a document."""
    path = tmp_path / "foreign.onnx"
    weights = numpy_helper.from_array(np.zeros((1200, 7), np.float32), "weights")
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["pixels"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["product"]),
            helper.make_node("Relu", ["product"], ["scores"]),
        ],
        "graph",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, None, 20])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 7])],
        initializer=[weights],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 13)], producer_name="a test", ir_version=7
    )
    onnx.save(model, path)
    return path


def printed(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Standard output of the command."""
    capsys.readouterr()
    assert main([*map(str, arguments)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def rows_of(text: str) -> dict[str, str]:
    """The lines of the text form by their names."""
    lines = [line for line in text.removesuffix("\n").split("\n") if line[0] != " "]
    rows = [re.fullmatch(rf"(proof \w+|{'|'.join(NAMES)}) +(\S.*)", line) for line in lines]
    assert all(rows), text
    named = [(row[1], row[2]) for row in rows if row]
    assert len(dict(named)) == len(named)
    return dict(named)


# JSON


@pytest.mark.parametrize("name", ["model.onnx", "model.int8.onnx"])
def test_json_is_the_document_and_what_the_graph_holds(
    trained_run: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path = trained_run / name
    if not path.exists():
        pytest.skip("this run has no such file")
    got = json.loads(printed(capsys, path, "--json"))
    assert got == describe(path)
    assert list(got) == ["file", "graph", "document"]
    assert got["document"] == Classifier(path).document.to_json()
    content = path.read_bytes()
    assert got["file"] == {
        "path": str(path),
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    model = onnx.load(path)
    assert got["graph"] == {
        "inputs": [{"name": "image", "type": "uint8", "shape": ["batch", 8, 8, 1]}],
        "outputs": [{"name": "probabilities", "type": "float32", "shape": ["batch", 10]}],
        "parameters": sum(math.prod(item.dims) for item in model.graph.initializer),
        "operators": Counter(node.op_type for node in model.graph.node),
        "opset": model.opset_import[0].version,
        "ir_version": model.ir_version,
        "producer": model.producer_name,
    }


def test_json_of_an_int8_bundle_says_so(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    got = json.loads(printed(capsys, "--json", sealed_again(bundle, **FIELDS)))["document"]
    assert got == Classifier(bundle).document.to_json()
    assert {name: got[name] for name in FIELDS} == FIELDS


def test_json_of_another_model_has_no_document(
    foreign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    got = json.loads(printed(capsys, foreign, "--json"))
    assert got["document"] is None
    assert got["graph"] == {
        "inputs": [{"name": "pixels", "type": "float32", "shape": ["n", 3, "?", 20]}],
        "outputs": [{"name": "scores", "type": "float32", "shape": ["n", 7]}],
        "parameters": 8400,
        "operators": {"Flatten": 1, "MatMul": 1, "Relu": 1},
        "opset": 13,
        "ir_version": 7,
        "producer": "a test",
    }


# Text


def test_text_says_everything_on_a_line_of_its_own(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sealed_again(bundle, **FIELDS)
    assert "  bad      all answers are 'digit 3'\n" in for_people(bundle)
    content, graph = bundle.read_bytes(), describe(bundle)["graph"]
    operators = ", ".join(f"{count} {name}" for name, count in sorted(graph["operators"].items()))
    assert rows_of(printed(capsys, bundle)) == {
        "file": f"{bundle}, {len(content) / 1e6:.2f} MB",
        "sha256": hashlib.sha256(content).hexdigest(),
        "input": "image uint8 [batch, 8, 8, 1]",
        "output": "probabilities float32 [batch, 10]",
        "graph": f"{graph['parameters']:,} parameters, opset {graph['opset']}: {operators}",
        "digest": "the file is as it was exported",
        "created": "2026-02-03T04:05:06+00:00 by keras 3.15.1, lockstep 0.1.0",
        "precision": "int8",
        "classes": "10: " + ", ".join(FIELDS["class_names"]),
        "image": "8x8, grey, resize crop (bilinear), background 255, at most 50,000,000 pixels",
        "in the graph": "(pixel / 255 - 0.25) / 0.3333, temperature 1.5",
        "uncertain": "below 0.8750; the rest is 90.0 % of the test images, 99.5 % of them right",
        "metrics": "accuracy 0.988, examples 359",
        "verdict": "the model is bad in 1 of 2 respects, unknown in 1",
        "proof onnx": "examples 359, max_difference 1.5e-07",
        "proof batch": "label_agreement 1",
        "data": HASH,
        "config": HASH[::-1],
    }


def test_text_of_the_trained_run(trained_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = trained_run / "model.onnx"
    document = Classifier(path).document
    text = printed(capsys, path)
    assert text == for_people(path) + "\n"
    rows = rows_of(text)
    assert rows["precision"] == "float32"
    assert rows["classes"] == "10: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert rows["created"].startswith(f"{document.created} by keras ")
    assert rows["data"] == document.dataset_fingerprint
    assert rows["config"] == document.config_hash
    assert {name for name in rows if name.startswith("proof")} == {
        f"proof {name}" for name in document.parity
    }
    assert f"accuracy {document.metrics['accuracy']:.3f}" in rows["metrics"]
    for finding in document.verdict:
        assert f" {finding.status:<7}  {finding.text}\n" in text


def test_values_of_the_text_begin_in_one_column(
    trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(capsys, trained_run / "model.onnx")
    named = [line for line in text.splitlines() if line[0] != " "]
    columns = [line.index(value) for line, value in zip(named, rows_of(text).values(), strict=True)]
    columns += [len(line) - len(line.lstrip()) for line in text.splitlines() if line[0] == " "]
    assert len(set(columns)) == 1, text


def test_text_of_a_bundle_that_was_never_proven(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sealed_again(
        bundle, parity={}, metrics={}, rejection=None, dataset_fingerprint="", config_hash=""
    )
    rows = rows_of(printed(capsys, bundle))
    assert rows["proof"] == "none: not released by a proof"
    assert rows["metrics"] == "none"
    assert (rows["data"], rows["config"]) == ("unknown", "unknown")
    assert "uncertain" not in rows


@pytest.mark.parametrize("count", [SHOWN_CLASSES, SHOWN_CLASSES + 1, 200])
def test_many_classes_are_shown_in_part(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str], count: int
) -> None:
    model = onnx.load(bundle)
    document = json.loads(outline(bundle.read_bytes()).metadata[METADATA_KEY])
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = count
    names = [f"c{number}" for number in range(count)]
    bundle.write_bytes(seal(model.SerializeToString(), {**document, "class_names": names}))
    shown = rows_of(printed(capsys, bundle))["classes"]
    end = f", … ({count} in all)" if count > SHOWN_CLASSES else ""
    assert shown == f"{count}: " + ", ".join(names[:SHOWN_CLASSES]) + end
    assert json.loads(printed(capsys, bundle, "--json"))["document"]["class_names"] == names


def test_text_of_a_colour_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = colour_bundle(tmp_path / "colour.onnx")
    rows = rows_of(printed(capsys, path))
    assert rows["image"] == ("4x6, RGB, resize pad (lanczos), background 7, at most 1,000 pixels")
    assert rows["in the graph"] == (
        "(pixel / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225), temperature 1"
    )


def colour_bundle(path: Path, **changes: Any) -> Path:
    """The smallest bundle of two classes."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["numbers"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["numbers"], ["mean"], axes=[2, 3], keepdims=0),
            helper.make_node("Slice", ["mean", "start", "end", "axis"], ["two"]),
            helper.make_node("Softmax", ["two"], ["probabilities"]),
        ],
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 4, 6, 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2])],
        initializer=[
            numpy_helper.from_array(np.array([number]), name)
            for name, number in (("start", 0), ("end", 2), ("axis", 1))
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    document = {
        **FIELDS,
        "class_names": ["cat", "犬"],
        "image": {"height": 4, "width": 6, "channels": 3, "resize": "pad", "resample": "lanczos",
                  "background": 7, "max_pixels": 1000, "scaled_decode": True},
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "temperature": 1,
        "format": 1,
        **changes,
    }  # fmt: skip
    path.write_bytes(seal(model.SerializeToString(), document))
    return path


def test_text_of_another_model(foreign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = foreign.read_bytes()
    assert rows_of(printed(capsys, foreign)) == {
        "file": f"{foreign}, {len(content) / 1e6:.2f} MB",
        "sha256": hashlib.sha256(content).hexdigest(),
        "input": "pixels float32 [n, 3, ?, 20]",
        "output": "scores float32 [n, 7]",
        "graph": "8,400 parameters, opset 13: 1 Flatten, 1 MatMul, 1 Relu",
        "document": "none: no bundle of Lockstep; give --labels to use it as it is",
        "producer": "a test",
    }


# Damaged files


def command(
    *arguments: object, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """The command as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "serve.inspect", *map(str, arguments)],
        cwd=SOURCE_ROOT,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        check=False,
        timeout=120,
    )


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def remove(path: Path) -> None:
    path.unlink()


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def write_text(path: Path) -> None:
    path.write_text("just text\n")


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\x32\x01x")


def lie(path: Path) -> None:
    model = onnx.load(path)
    model.graph.initializer.add(name="liar", data_type=1, dims=[2**40])
    path.write_bytes(model.SerializeToString())


def forget(path: Path) -> None:
    sealed_again(path, precision=None)


def rename(path: Path) -> None:
    sealed_again(path, class_names=["one", "two"])


def go_too_large(path: Path) -> None:
    os.truncate(path, 2**31)


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut, "cut off: "),
        (empty, "expected an ONNX file of 1 to 2,147,483,647 bytes, got 0 bytes"),
        (remove, "no such bundle; expected a path to a model.onnx"),
        (make_folder, "no such bundle; expected a path to a model.onnx"),
        (write_text, "cut off: 117 bytes announced, 8 there"),
        (append, "its content does not match the digest in its document: it was damaged or "),
        (lie, "tensor 'liar' claims the shape [1099511627776] and holds"),
        (forget, "the bundle's document: expected precision to be one of float32, int8, got None"),
        (rename, "the graph contradicts the document: expected image uint8 [batch, 8, 8, 1] -> "),
        (go_too_large, "expected an ONNX file of 1 to 2,147,483,647 bytes, got 2,147,483,648 "),
    ],
)
def test_a_damaged_file_is_one_error_and_nothing_else(
    bundle: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    reason: str,
    form: list[str],
) -> None:
    damage(bundle)
    with pytest.raises(LockstepError) as caught:
        main([str(bundle), *form])
    assert str(caught.value).startswith(f"{bundle}: {reason}")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("damage", [cut, append, remove])
def test_a_damaged_file_is_one_line_and_exit_code_2(
    bundle: Path, damage: Callable[[Path], None]
) -> None:
    damage(bundle)
    done = command(bundle)
    error = done.stderr.decode()
    assert (done.returncode, done.stdout) == (2, b"")
    assert error.startswith(f"error: {bundle}: ") and error.count("\n") == 1


@pytest.mark.parametrize("words", [[], ["a", "b"], ["a", "--yaml"]])
def test_a_wrong_call_points_to_the_help(words: list[str]) -> None:
    with pytest.raises(LockstepError, match=r"; see python -m serve\.inspect --help$"):
        main(words)


def test_a_file_that_onnxruntime_could_not_open_is_described(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = onnx.load(bundle)
    document = json.loads(outline(bundle.read_bytes()).metadata[METADATA_KEY])
    model.graph.node[0].op_type = "NoSuchOperator"
    bundle.write_bytes(seal(model.SerializeToString(), document))
    assert "1 NoSuchOperator" in rows_of(printed(capsys, bundle))["graph"]


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_output_that_cannot_hold_a_name_shows_its_code(tmp_path: Path, form: list[str]) -> None:
    path = colour_bundle(tmp_path / "colour.onnx")
    done = command(path, *form, environment={"PYTHONIOENCODING": "ascii:strict"})
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"\u72ac" in done.stdout


def test_a_name_that_is_no_character_does_not_stop_the_command(tmp_path: Path) -> None:
    path = colour_bundle(tmp_path / "colour.onnx", class_names=["cat", "\ud800"])
    done = command(path)
    assert done.returncode in (0, 2)
    assert done.stderr.count(b"\n") <= 1


def test_names_with_line_breaks_stay_on_their_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = colour_bundle(tmp_path / "colour.onnx", class_names=["cat", "two\nlines"])
    lines = printed(capsys, path).splitlines()
    assert sum(line.startswith("classes") for line in lines) == 1
    assert not any(line.startswith("lines") for line in lines)


def test_neither_training_libraries_nor_a_session_are_needed(bundle: Path) -> None:
    code = (
        "import sys, onnxruntime, serve.inspect\n"
        "del onnxruntime.InferenceSession\n"
        "code = serve.inspect.main(sys.argv[1:])\n"
        "heavy = {'tensorflow', 'keras', 'pydantic', 'onnx', 'sklearn'}\n"
        "print(sorted(heavy & set(sys.modules)), code, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(bundle)], capture_output=True, cwd=SOURCE_ROOT, check=True
    )
    assert done.stderr == b"[] 0\n"
    assert done.stdout.startswith(b"file ")


def test_help_has_an_example() -> None:
    done = command("--help")
    assert done.returncode == 0
    assert b"--json" in done.stdout
    assert done.stdout.rstrip().endswith(b"python -m serve.inspect model.onnx --json")
