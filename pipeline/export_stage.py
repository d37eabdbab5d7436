"""The stages `export`, `quantize` and `verify`: they hand values to the package `export`."""

import json

import numpy as np
from tqdm import tqdm

from export.prepared_data import PreparedData, evenly_spaced
from export.proof import release
from export.quantize import quantize as search_int8
from export.quantizer import Images
from export.run_directory import RunDirectory
from export.run_document import run_document
from export.saved_model import export_saved_model
from export.serving_function import load_model, serving_function
from export.to_onnx import creation_time, export_onnx, tool_versions
from export.verify import ParityError, failures, prove
from pipeline.config import Config
from pipeline.evaluation.gate import (
    RequirementsNotMetError,
    model_figures,
    outcomes,
    unmet,
    write_outcomes,
)
from pipeline.recipe import fingerprint
from serve.atomic import remove, write_text
from serve.bundle import BundleDocument
from serve.classifier import Classifier
from serve.rounding import share

BUSY_NOTE = "; measured on a busy machine: single runs differ much"


def export(config: Config, run: RunDirectory) -> str:
    """Write `run.saved_model` and `run.unverified_bundle`."""
    document = BundleDocument(
        **run_document(run),
        config_hash=fingerprint(config.model_dump(exclude={"quantize", "verify"})),
        versions=tool_versions(),
        created=creation_time(),
    )
    model = load_model(run.model)
    export_saved_model(model, run.saved_model, document.temperature)
    function = serving_function(model, document.temperature)
    export_onnx(function, document, run.unverified_bundle)
    size = run.unverified_bundle.stat().st_size
    return f"SavedModel and ONNX of {size / 1e6:.2f} MB"


def quantize(config: Config, run: RunDirectory) -> str:
    """Write `run.quantization`, and `run.unverified_int8_bundle` if int8 is worth keeping."""
    if not config.quantize.enabled:
        remove(run.unverified_int8_bundle)
        write_text(run.quantization, json.dumps(None) + "\n")
        return "not asked for"
    data = PreparedData.open(run.data)
    validation = evenly_spaced(data.indices("validation"), config.quantize.validation_images)
    with tqdm(desc="quantize", unit=" trials", disable=None) as bar:

        def progress(text: str) -> None:
            bar.set_postfix_str(text)
            bar.update()

        found = search_int8(
            run.unverified_bundle,
            run.unverified_int8_bundle,
            calibration=Images(
                data.images,
                evenly_spaced(data.indices("train"), config.quantize.calibration_images),
            ),
            validation=Images(data.images, validation),
            labels=data.labels[validation],
            progress=progress,
        )
    write_text(run.quantization, json.dumps(found.to_json(), indent=2) + "\n")
    if found.chosen is None:
        remove(run.unverified_int8_bundle)
        return f"int8 not kept: {found.reason}{BUSY_NOTE if found.was_busy else ''}"
    speedups = " and ".join(
        f"{ratio:.2f} x at batch {batch}" for batch, ratio in found.chosen.speedup.items()
    )
    count = found.validation_images
    text = (
        f"int8 of {found.size['int8'] / 1e6:.2f} MB, {speedups}, accuracy "
        f"{share(found.chosen.accuracy, count)} (float {share(found.float_accuracy, count)}) on "
        f"{count:,} validation images"
    )
    return text + BUSY_NOTE if found.was_busy else text


def verify(config: Config, run: RunDirectory) -> str:
    """Prove the artifacts and hold the model to what is required of it; only then the bundles get
    their final names. Writes `run.parity` and `run.requirements`.

    Raises:
        ParityError: a path answers otherwise than Keras. No bundle is left under its final name.
        RequirementsNotMetError: a condition of `evaluate.require` is not met; likewise.
    """
    required = write_outcomes(config, run)
    proof = prove(
        run,
        run.unverified_bundle,
        run.unverified_int8_bundle,
        max_examples=config.verify.max_examples,
    )
    remove(run.int8_bundle)
    if not proof.passed:
        remove(run.bundle)
        raise ParityError(
            f"the proof failed ({failures(proof.checks)}); {run.unverified_bundle} is not fit to "
            f"serve, see {run.report}"
        )
    if unmet(required):
        remove(run.bundle)
        raise RequirementsNotMetError(
            f"the model does not meet what evaluate.require asks for: {unmet(required)}; "
            f"{run.unverified_bundle} was not released, see {run.report}"
        )
    release(run.unverified_bundle, run.bundle, proof.checks)
    largest = max(check.get("max_difference", 0.0) for check in proof.checks.values())
    paths = ", ".join(name for name, check in proof.checks.items() if "max_difference" in check)
    summary = (
        f"{proof.examples:,} test images on {paths}: all agree with Keras, "
        f"max difference {largest:.1e}"
    )
    if required:
        summary += f"; meets {', '.join(config.evaluate.require)}"
    if proof.int8:
        reason = failures(proof.int8) or (_int8_unmet(config, run) if required else "")
        if reason:
            summary += f"; int8 not kept: {reason}"
        else:
            release(run.unverified_int8_bundle, run.int8_bundle, proof.int8)
            summary += f"; int8: {proof.int8['onnx']['accuracy_text']}"
    return summary


def _int8_unmet(config: Config, run: RunDirectory) -> str:
    """Which conditions the int8 bundle does not meet on the test split; "" if it meets all."""
    data = PreparedData.open(run.data)
    test = data.indices("test")
    classifier = Classifier(run.unverified_int8_bundle)
    probabilities = np.concatenate(
        [
            classifier.predict(data.images[rows])
            for rows in np.array_split(test, -(-len(test) // 256))
        ]
    )
    return unmet(
        outcomes(config, model_figures(data.labels[test], probabilities, data.manifest.class_names))
    )
