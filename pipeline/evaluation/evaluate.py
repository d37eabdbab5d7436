"""The stage `evaluate`: the selected model on the test split, once."""

import json

import numpy as np

from export.prepared_data import PreparedData
from export.run_directory import RunDirectory
from export.serving_function import load_model, reference_probabilities
from pipeline.config import Config
from pipeline.evaluation.metrics import classification_figures
from serve.atomic import atomic_path, write_text


def evaluate(config: Config, run: RunDirectory) -> str:
    """Write `run.metrics` and `run.test_probabilities`; returns a one-line summary."""
    data = PreparedData.open(run.data)
    test = data.indices("test")
    probabilities = reference_probabilities(load_model(run.model), data.images, test)
    figures = classification_figures(data.labels[test], probabilities, data.manifest.class_names)
    with atomic_path(run.test_probabilities) as temporary:
        np.save(temporary, probabilities)
    write_text(run.metrics, json.dumps(figures, indent=2) + "\n")
    low, high = figures["accuracy_interval"]
    return (
        f"test accuracy {figures['accuracy']:.4f} ({low:.4f} to {high:.4f}), "
        f"macro F1 {figures['f1_macro']:.4f}"
    )
