"""Export an adopted model, prove its bundle, and give it its name."""

import hashlib
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

from export.diagnose import first_unfaithful_layer
from export.examples import Examples
from export.foreign.adoption import Adopted, Request
from export.parity import Check
from export.progress import step
from export.proof import check_bundle, release
from export.scoring import Truth
from export.serving_function import ExportError
from export.to_onnx import creation_time, export_onnx, tool_versions
from export.verify import ParityError, failures
from serve.bundle import BundleDocument
from serve.multi_label import MULTI_LABEL


def prove(adopted: Adopted, output: Path) -> dict[str, Check]:
    """Write `output` if every path of the bundle answers as Keras does.

    Raises:
        ExportError: a layer cannot be exported faithfully; it is named.
        ParityError: the exported file answers otherwise than Keras.
    """
    path, read = adopted.request.model, adopted.read
    document = bundle_document(adopted)
    fields = ("class_names", "image", "mean", "std", "task", "thresholds", "verdict")
    expected = {name: getattr(document, name) for name in fields}
    with tempfile.TemporaryDirectory() as folder:
        unproven = Path(folder, "model.onnx")
        step("export to ONNX")
        try:
            function = adopted.model.serving_function(adopted.decision.head, adopted.scaling)
            export_onnx(function, document, unproven)
        except ExportError as error:
            raise ExportError(f"{path}: {_blame(adopted)}{error}") from error
        examples = Examples(
            images=read.pixels,
            rows=np.arange(len(read.pixels)),
            labels=_truth(adopted),
            files=read.paths,
            reference=adopted.reference,
            class_names=document.class_names,
            thresholds=document.thresholds,
        )
        count = f"{len(read.paths):,} images"
        checks = check_bundle(
            unproven, examples, expected, progress=lambda name: step(f"prove {name} on {count}")
        )
        if not all(check["passed"] for check in checks.values()):
            raise ParityError(
                f"{path}: {_blame(adopted)}the proof failed ({failures(checks)}); "
                "nothing was written"
            )
        release(unproven, output, checks)
    return checks


def bundle_document(adopted: Adopted) -> BundleDocument:
    """What the bundle says of itself, before the figures of its proof."""
    given, task = adopted.given, adopted.decision.head.task
    mean, std = given.normalization(adopted.model.spec.channels)
    return BundleDocument(
        class_names=given.class_names,
        image=adopted.model.spec,
        mean=mean,
        std=std,
        dataset_fingerprint=adopted.read.fingerprint,
        config_hash=_config_hash(adopted.request, given),
        metrics=_metrics(adopted),
        versions=tool_versions(),
        created=creation_time(),
        task=task,
        thresholds=adopted.thresholds,
        verdict=adopted.verdict,
    )


def _truth(adopted: Adopted) -> Truth | None:
    """The truth of every image; None unless all are known."""
    if adopted.decision.head.task != MULTI_LABEL:
        return adopted.read.labels
    truth = adopted.truth
    is_whole = truth is not None and len(truth.known) == len(adopted.read.paths)
    return truth.values if truth is not None and is_whole else None


def _metrics(adopted: Adopted) -> dict[str, float]:
    """The accuracy and on how many images it was measured; or how many there were."""
    if adopted.figures is not None:
        return adopted.figures.headline()
    if adopted.accuracy is None:
        return {"examples": len(adopted.reference)}
    return {"examples": len(adopted.read.labelled), "accuracy": adopted.accuracy}


def _config_hash(request: Request, given: object) -> str:
    digest = hashlib.sha256(request.model.read_bytes())
    digest.update(json.dumps(asdict(given), sort_keys=True).encode())  # type: ignore[call-overload]
    if request.custom is not None:
        digest.update(request.custom.read_bytes())
    return digest.hexdigest()


def _blame(adopted: Adopted) -> str:
    """Which layer it is, if one alone can be told."""
    images = adopted.model.prepared(adopted.read.pixels[:2], adopted.scaling)
    layer = first_unfaithful_layer(adopted.model.model, images)
    return f"layer {layer} cannot be exported faithfully: " if layer else ""
