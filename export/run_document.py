"""What a run says of its model: the fields of a bundle's document that its files determine."""

import json
from typing import Any

from export.prepared_data import PreparedData
from export.run_directory import RunDirectory
from serve.bundle import Finding, Rejection
from serve.command import LockstepError

HEADLINE = (
    "accuracy",
    "precision_macro",
    "recall_macro",
    "f1_macro",
    "loss",
    "examples",
    "classes_tested",
)
"""The test figures that a bundle carries along."""


def run_document(run: RunDirectory) -> dict[str, Any]:
    """Fields of `BundleDocument` by name, from manifest, training and metrics of a run.

    Raises:
        LockstepError: the run was not evaluated, or its files are damaged.
    """
    manifest = PreparedData.open(run.data).manifest
    path = run.training
    try:
        training = json.loads(path.read_bytes())
        mean, std = (tuple(map(float, training[name])) for name in ("mean", "std"))
        path = run.metrics
        figures = json.loads(path.read_bytes())
        rejection = figures["rejection"]
        calibration = figures["calibration"]
        return {
            "class_names": tuple(manifest.class_names),
            "image": manifest.image_spec(),
            "mean": mean,
            "std": std,
            "temperature": float(calibration["temperature"]),
            "rejection": Rejection(**rejection) if rejection else None,
            "dataset_fingerprint": manifest.fingerprint,
            "metrics": {
                **{name: figures[name] for name in HEADLINE},
                "ece": calibration["after"]["ece"],
            },
            "verdict": tuple(Finding(**finding) for finding in figures["verdict"]),
        }
    except FileNotFoundError:
        raise LockstepError(
            f"{path}: no such file; expected a finished run directory, "
            "so run python -m pipeline.run first"
        ) from None
    except (ValueError, LookupError, TypeError):
        raise LockstepError(
            f"{path}: damaged, or of another release; delete it and run "
            "python -m pipeline.run again"
        ) from None
