"""The stage `evaluate`: calibrate the selected model, then measure it on the test split, once."""

import json
from dataclasses import asdict
from typing import Any

import numpy as np

from export.calibration import calibration_figures
from export.prepared_data import PreparedData
from export.run_directory import RunDirectory
from export.serving_function import load_model, predict_logits, probabilities_of
from export.temperature import Temperature, fit_temperature
from export.verdict import judge, listed
from pipeline.config import Config
from pipeline.evaluation.metrics import classification_figures
from pipeline.evaluation.rejection import find_rejection
from serve.atomic import atomic_path, write_text
from serve.rounding import rounded, share


def evaluate(config: Config, run: RunDirectory) -> str:
    """Write `run.metrics` and `run.test_probabilities`; returns a one-line summary.

    Temperature and threshold are fitted on the validation split; all figures are of the test split.
    """
    data = PreparedData.open(run.data)
    model = load_model(run.model)
    validation, test = data.indices("validation"), data.indices("test")
    labels, names = data.labels[test], data.manifest.class_names
    logits = predict_logits(model, data.images, test)
    fitted = predict_logits(model, data.images, validation)
    temperature = Temperature(1.0, len(validation), "none was asked for")
    if config.evaluate.temperature:
        temperature = fit_temperature(fitted, data.labels[validation])
    probabilities = probabilities_of(logits, temperature.value)
    figures = classification_figures(labels, probabilities, names)
    figures["calibration"] = {
        "asked": config.evaluate.temperature,
        "fitted": not temperature.kept_because,
        "temperature": temperature.value,
        "text": temperature.text,
        "examples": temperature.examples,
        "cross_validated_loss": temperature.loss,
        "cross_validated_loss_at_1": temperature.loss_at_one,
        **calibration_figures(probabilities_of(logits), probabilities, labels),
    }
    figures["rejection"] = figures["coverage"] = None
    if config.evaluate.coverage is not None:
        found = find_rejection(
            config.evaluate.coverage,
            probabilities_of(fitted, temperature.value),
            probabilities,
            labels,
        )
        figures["rejection"] = asdict(found.rejection) if found.rejection else None
        figures["coverage"] = {"asked": found.asked, "text": found.text}
    findings = judge(labels, probabilities, names, validation_examples=len(validation))
    figures["verdict"] = [asdict(finding) for finding in findings]
    with atomic_path(run.test_probabilities) as temporary:
        np.save(temporary, probabilities)
    write_text(run.metrics, json.dumps(figures, indent=2) + "\n")
    return summary(figures)


def summary(figures: dict[str, Any]) -> str:
    """The figures of metrics.json in one line, each with the digits that its images know."""
    count, classes = figures["examples"], figures["class_names"]
    low, high = (rounded(end, count) for end in figures["accuracy_interval"])
    calibration, coverage = figures["calibration"], figures["coverage"]
    parts = [
        f"test accuracy {share(figures['accuracy'], count)} ({low} to {high}) on {count:,} images",
        f"macro F1 {rounded(figures['f1_macro'], count)}",
        f"ECE {rounded(calibration['after']['ece'], count)}",
    ]
    untested = [name for name in classes if not figures["per_class"][name]["examples"]]
    if untested:
        parts[1] += f" over {figures['classes_tested']} of {len(classes)} classes"
        parts.append(f"not tested, without a test image: {listed(untested)}")
    if calibration["fitted"]:
        parts[2] += f" (uncalibrated {rounded(calibration['before']['ece'], count)})"
    if calibration["asked"]:
        parts.append(calibration["text"])
    if coverage:
        parts.append(coverage["text"])
    return ", ".join(parts)
