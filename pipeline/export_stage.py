"""The stages `export` and `verify`: they hand plain values from the run to the package `export`."""

import json
import shutil

from export.prepared_data import PreparedData
from export.run_directory import RunDirectory
from export.saved_model import export_saved_model
from export.serving_function import load_model
from export.to_onnx import export_onnx, tool_versions
from export.verify import ParityError, prove
from pipeline.config import Config
from pipeline.recipe import fingerprint
from serve.atomic import atomic_path
from serve.bundle import BundleDocument

HEADLINE = ("accuracy", "precision_macro", "recall_macro", "f1_macro", "loss", "examples")


def export(config: Config, run: RunDirectory) -> str:
    """Write `run.saved_model` and `run.unverified_bundle`."""
    manifest = PreparedData.open(run.data).manifest
    figures = json.loads(run.metrics.read_bytes())
    document = BundleDocument(
        class_names=tuple(manifest.class_names),
        image=manifest.image_spec(),
        mean=tuple(manifest.mean),
        std=tuple(manifest.std),
        dataset_fingerprint=manifest.fingerprint,
        config_hash=fingerprint(config.model_dump(exclude={"verify"})),
        metrics={name: figures[name] for name in HEADLINE},
        versions=tool_versions(),
    )
    model = load_model(run.model)
    export_saved_model(model, run.saved_model)
    export_onnx(model, document, run.unverified_bundle)
    size = run.unverified_bundle.stat().st_size
    return f"SavedModel and ONNX of {size / 1e6:.2f} MB"


def verify(config: Config, run: RunDirectory) -> str:
    """Prove the artifacts; only then the bundle gets its final name.

    Raises:
        ParityError: a path answers otherwise than Keras. No bundle is left under its final name.
    """
    proof = prove(run, run.unverified_bundle, max_examples=config.verify.max_examples)
    if not proof.passed:
        run.bundle.unlink(missing_ok=True)
        raise ParityError(
            f"the proof failed ({proof.failures()}); {run.unverified_bundle} is not fit to serve, "
            f"see {run.report}"
        )
    with atomic_path(run.bundle) as temporary:
        shutil.copyfile(run.unverified_bundle, temporary)
    largest = max(check.get("max_difference", 0.0) for check in proof.checks.values())
    paths = ", ".join(name for name in proof.checks if name != "document")
    return (
        f"{proof.examples:,} test images on {paths}: all agree with Keras, "
        f"max difference {largest:.1e}"
    )
