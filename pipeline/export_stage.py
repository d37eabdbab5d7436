"""The stages `export`, `quantize` and `verify`: they hand values to the package `export`."""

import json

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
from pipeline.recipe import fingerprint
from serve.atomic import remove, write_text
from serve.bundle import BundleDocument


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
        return f"int8 not kept: {found.reason}"
    speedups = " and ".join(
        f"{ratio:.2f} x at batch {batch}" for batch, ratio in found.chosen.speedup.items()
    )
    return (
        f"int8 of {found.size['int8'] / 1e6:.2f} MB, {speedups}, validation accuracy "
        f"{found.chosen.accuracy:.4f} (float {found.float_accuracy:.4f})"
    )


def verify(config: Config, run: RunDirectory) -> str:
    """Prove the artifacts; only then the bundles get their final names.

    Raises:
        ParityError: a path answers otherwise than Keras. No bundle is left under its final name.
    """
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
    release(run.unverified_bundle, run.bundle, proof.checks)
    largest = max(check.get("max_difference", 0.0) for check in proof.checks.values())
    paths = ", ".join(name for name, check in proof.checks.items() if "max_difference" in check)
    summary = (
        f"{proof.examples:,} test images on {paths}: all agree with Keras, "
        f"max difference {largest:.1e}"
    )
    if proof.int8:
        if proof.int8_passed:
            release(run.unverified_int8_bundle, run.int8_bundle, proof.int8)
            summary += f"; int8 accuracy {proof.int8['onnx']['accuracy_difference']:+.4f}"
        else:
            summary += f"; int8 not kept: {failures(proof.int8)}"
    return summary
