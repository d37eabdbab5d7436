"""The stage `evaluate`: calibrate the selected model, then measure it on the test split, once."""

import json
from typing import Any

import numpy as np

from export.calibration import (
    calibration_figures,
    fit_temperature,
    selective_accuracy,
    threshold_for,
)
from export.prepared_data import PreparedData
from export.run_directory import RunDirectory
from export.serving_function import load_model, predict_logits, probabilities_of
from pipeline.config import Config
from pipeline.evaluation.metrics import classification_figures
from serve.atomic import atomic_path, write_text


def evaluate(config: Config, run: RunDirectory) -> str:
    """Write `run.metrics` and `run.test_probabilities`; returns a one-line summary.

    Temperature and threshold are fitted on the validation split; all figures are of the test split.
    """
    data = PreparedData.open(run.data)
    model = load_model(run.model)
    validation, test = data.indices("validation"), data.indices("test")
    labels = data.labels[test]
    logits = predict_logits(model, data.images, test)
    fitted = predict_logits(model, data.images, validation)
    temperature = 1.0
    if config.evaluate.temperature:
        temperature = fit_temperature(fitted, data.labels[validation])
    probabilities = probabilities_of(logits, temperature)
    figures = classification_figures(labels, probabilities, data.manifest.class_names)
    figures["calibration"] = {
        "fitted": config.evaluate.temperature,
        "temperature": temperature,
        "examples": len(validation),
        **calibration_figures(probabilities_of(logits), probabilities, labels),
    }
    figures["rejection"] = None
    if config.evaluate.coverage is not None:
        threshold = threshold_for(probabilities_of(fitted, temperature), config.evaluate.coverage)
        coverage, accuracy = selective_accuracy(probabilities, labels, threshold)
        figures["rejection"] = {
            "threshold": threshold,
            "coverage": coverage,
            "accuracy": accuracy,
        }
    with atomic_path(run.test_probabilities) as temporary:
        np.save(temporary, probabilities)
    write_text(run.metrics, json.dumps(figures, indent=2) + "\n")
    return _summary(figures)


def _summary(figures: dict[str, Any]) -> str:
    low, high = figures["accuracy_interval"]
    calibration, rejection = figures["calibration"], figures["rejection"]
    parts = [
        f"test accuracy {figures['accuracy']:.4f} ({low:.4f} to {high:.4f})",
        f"macro F1 {figures['f1_macro']:.4f}",
        f"ECE {calibration['after']['ece']:.4f}",
    ]
    if calibration["fitted"]:
        parts[-1] += f" (uncalibrated {calibration['before']['ece']:.4f})"
    if rejection:
        parts.append(f"{rejection['accuracy']:.4f} on the surest {rejection['coverage']:.1%}")
    return ", ".join(parts)
