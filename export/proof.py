"""Run every path of a bundle on the same images and hold it to Keras.

In onnxruntime at several batch sizes, with one thread and many, and with several callers at once;
through the batch command, as a process of its own that reads the encoded files; and through the
server, as another one that is sent pixels and encoded files.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from export.agreement import agreement
from export.batch_path import command_runs
from export.calibration import selective_accuracy
from export.examples import Examples, PathError
from export.parity import BATCH_SIZES, Check, Comparison, compare
from export.scoring import multi_label
from export.server_path import server_runs
from export.serving_function import ExportError
from export.to_onnx import check_graph
from export.verdict import CHOSEN_BY, judge
from serve.atomic import atomic_path
from serve.bundle import BundleError, Finding, Rejection, bundle_document, seal
from serve.classifier import Classifier
from serve.command import LockstepError
from serve.onnx_file import outline

CALLERS = 4

Predict = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def check_bundle(
    bundle: Path,
    examples: Examples,
    expected: Mapping[str, Any],
    *,
    allowed_drop: float | None = None,
    progress: Callable[[str], None] = lambda path: None,
) -> dict[str, Check]:
    """All checks of one ONNX file, by path.

    Args:
        expected: fields of the document and their values.
        allowed_drop: as in `parity.compare`.
        progress: told the name of each path before it is run.
    """
    checks = {}
    for path, run in BUNDLE_PATHS.items():
        progress(path)
        checks[path] = check_runs(lambda run=run: run(bundle, examples), examples, allowed_drop)  # type: ignore[misc]
    checks["graph"] = _check_graph(bundle)
    checks["document"] = _check_document(bundle, expected)
    if allowed_drop is not None and "accuracy_reason" in checks["onnx"]:
        reason = checks["onnx"].pop("accuracy_reason")
        checks["images"] = {"passed": not reason, "reason": reason}
    return checks


def check_runs(
    runs: Callable[[], Mapping[str, NDArray[np.float32]]],
    examples: Examples,
    allowed_drop: float | None = None,
) -> Check:
    """Compare one path with Keras; a path that cannot be run has failed."""
    try:
        answers = runs()
        for name, answer in answers.items():
            if answer.shape != examples.reference.shape:
                raise PathError(
                    f"expected answers of shape {list(examples.reference.shape)} at {name}, "
                    f"got {list(answer.shape)}"
                )
    except (PathError, BundleError, ExportError) as error:
        return {"passed": False, "reason": str(error)}
    comparison = compare(
        examples.reference,
        answers,
        examples.labels,
        examples.class_names,
        scoring=multi_label(examples.thresholds) if examples.thresholds else None,
        allowed_drop=allowed_drop,
    )
    check = _with_row(comparison, examples.rows)
    if examples.threshold is not None and examples.labels is not None:
        first = next(iter(answers.values()))
        check["coverage"], check["certain_accuracy"] = selective_accuracy(
            first, examples.labels, examples.threshold
        )
    if allowed_drop is not None and examples.labels is not None:
        check.update(_worth(next(iter(answers.values())), examples.labels, examples))
    return check


def _worth(
    answer: NDArray[np.float32], labels: NDArray[np.int64], examples: Examples
) -> dict[str, Any]:
    """What a rounded model is worth: beside the float model, and its own verdict."""
    found = agreement(labels, examples.reference, answer)
    return {
        "same_answers": found.same,
        "accuracy_difference_interval": [found.low, found.high],
        "accuracy_text": found.text,
        "accuracy_reason": found.reason,
        "verdict": [
            dataclasses.asdict(finding) for finding in judge(labels, answer, examples.class_names)
        ],
    }


def predict_runs(predict: Predict, examples: Examples) -> dict[str, NDArray[np.float32]]:
    """The answers of a function, at every batch size of the proof."""
    return {
        f"batches of {size}": np.concatenate([predict(batch) for batch in examples.batches(size)])
        for size in BATCH_SIZES
    }


def onnx_runs(bundle: Path, examples: Examples) -> dict[str, NDArray[np.float32]]:
    """The answers of onnxruntime."""
    classifier, single = Classifier(bundle), Classifier(bundle, threads=1)
    expected = examples.images.shape[1:]
    if classifier.document.image.shape != expected:
        raise PathError(
            f"the bundle takes images of shape {list(classifier.document.image.shape)}, "
            f"expected {list(expected)}"
        )
    runs = predict_runs(classifier.predict, examples)
    largest, odd = examples.batches(max(BATCH_SIZES)), examples.batches(7)
    runs["one thread"] = np.concatenate([single.predict(batch) for batch in largest])
    with ThreadPoolExecutor(CALLERS) as pool:
        runs[f"{CALLERS} callers at once"] = np.concatenate(list(pool.map(classifier.predict, odd)))
    return runs


BUNDLE_PATHS = {"onnx": onnx_runs, "batch": command_runs, "server": server_runs}
"""The ways to answers of a bundle, and what runs each."""


def release(source: Path, target: Path, checks: Mapping[str, Check]) -> None:
    """Give a proven file its final name, with the figures of its proof in its document.

    The graph's bytes stay those that were proven. An int8 file gets its own test figures and its
    own verdict, too.
    """
    content = source.read_bytes()
    document = bundle_document(content)
    parity = headline(checks)
    if document.precision == "int8":
        found = checks["onnx"]
        rejection = document.rejection
        if rejection is not None:
            rejection = Rejection(rejection.threshold, found["coverage"], found["certain_accuracy"])
        metrics = {name: found[name] for name in ("accuracy", "examples")}
        verdict = tuple(Finding(**finding) for finding in found["verdict"])
        verdict += tuple(finding for finding in document.verdict if finding.name == CHOSEN_BY)
        document = dataclasses.replace(
            document, metrics=metrics, rejection=rejection, verdict=verdict
        )
    document = dataclasses.replace(document, parity=parity)
    with atomic_path(target) as temporary:
        temporary.write_bytes(seal(content, document.to_json()))


def withdraw(bundle: Path, target: Path) -> None:
    """Take a file that failed its proof out of service, and older proof figures out of it."""
    content = bundle.read_bytes()
    with contextlib.suppress(LockstepError):  # damaged: it says nothing that anyone would believe
        document = bundle_document(content)
        content = seal(content, dataclasses.replace(document, parity={}).to_json())
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)
    bundle.unlink()


def headline(checks: Mapping[str, Check]) -> dict[str, dict[str, float]]:
    """The figures of a proof that a bundle carries along."""
    names = ("examples", "max_difference", "label_agreement", "accuracy", "accuracy_difference")
    return {
        path: {name: check[name] for name in names if check[name] is not None}
        for path, check in checks.items()
        if "max_difference" in check
    }


def _with_row(comparison: Comparison, rows: NDArray[np.int64]) -> Check:
    check = comparison.to_json()
    check["worst_example"] = int(rows[comparison.worst_example])
    return check


def _check_graph(bundle: Path) -> Check:
    """Whether the file itself, read by another library than the one that runs it, is a bundle's."""
    try:
        content = bundle.read_bytes()
        outline(content)
        check_graph(onnx.load_model_from_string(content))
    except (DecodeError, LockstepError) as error:
        return {"passed": False, "reason": " ".join(str(error).split())}
    return {"passed": True, "reason": ""}


def _check_document(bundle: Path, expected: Mapping[str, Any]) -> Check:
    """Whether the bundle says of itself what is true."""
    try:
        document = bundle_document(bundle.read_bytes())
    except LockstepError as error:
        return {"passed": False, "reason": f"{bundle}: {error}"}
    differing = [name for name, value in expected.items() if getattr(document, name) != value]
    reason = f"the bundle's document differs from the run in {', '.join(differing)}"
    return {"passed": not differing, "reason": reason if differing else ""}
