"""The stage `report`: everything a person wants to see of a run, in one HTML file."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.prepared_data import PreparedData
from export.run_directory import RunDirectory
from pipeline.config import Config
from pipeline.history import PRETRAINING_COLUMNS, read_history
from pipeline.recipe import to_yaml
from pipeline.report import plots
from pipeline.report.augmentation import what_training_saw
from pipeline.report.learning_rate import planned_rates
from pipeline.report.rendering import render
from serve.atomic import write_text
from serve.bundle import Finding
from serve.images import encode_png
from serve.verdict import overall, summary

MISTAKES = 24
MATRIX_CLASSES = 25
"""Up to so many classes the confusion matrix is a table; beyond, a picture."""
LISTED = 50
SEEN_IMAGES, SEEN_EPOCHS = 6, 8
"""Of the grid of images that training saw."""


@dataclass(frozen=True)
class Mistake:
    """A wrongly classified test image."""

    picture: str
    true: str
    predicted: str
    probability: float
    name: str


def write_report(config: Config, run: RunDirectory) -> str:
    """Write `run.report` from the files of the run; returns a one-line summary."""
    data = PreparedData.open(run.data)
    manifest = data.manifest
    metrics = json.loads(run.metrics.read_bytes())
    training = json.loads(run.training.read_bytes())
    parity = json.loads(run.parity.read_bytes())
    quantization = json.loads(run.quantization.read_bytes())
    calibration = metrics["calibration"]
    history = read_history(run.history)
    pretraining = read_history(run.pretraining, PRETRAINING_COLUMNS)
    matrix = metrics["confusion_matrix"]
    bundle = run.bundle if run.bundle.is_file() else run.unverified_bundle
    findings = [Finding(**finding) for finding in metrics["verdict"]]
    required = json.loads(run.requirements.read_bytes()) if run.requirements.is_file() else []
    page = render(
        "run.html",
        verdict=findings,
        verdict_summary=summary(findings),
        verdict_status=overall(findings),
        required=required,
        untested=[
            name for name, figures in metrics["per_class"].items() if not figures["examples"]
        ],
        released=run.bundle.is_file(),
        name=run.path.resolve().name,
        run=run,
        manifest=manifest,
        spec=manifest.image_spec(),
        metrics=metrics,
        training=training,
        parity=parity,
        quantization=quantization,
        reliability_before=plots.reliability_diagram(calibration["before"]["bins"], "as trained"),
        reliability_after=plots.reliability_diagram(
            calibration["after"]["bins"], "with the temperature"
        ),
        bundle_size=bundle.stat().st_size,
        pretraining_curve=plots.pretraining_curve(pretraining) if pretraining else None,
        loss_curve=plots.loss_curve(history),
        accuracy_curve=plots.accuracy_curve(history),
        schedule=config.train.schedule,
        learning_rate_curve=plots.learning_rate_curve(
            planned_rates(config, training),
            training["steps_per_epoch"],
            [(int(row["step"]), row["learning_rate"]) for row in history],
            decided=[
                (item["epoch"], "lowered" if item["lowered"] else "kept")
                for item in training["rate_decisions"]
            ],
        ),
        saw=what_training_saw(config, data, SEEN_IMAGES, min(SEEN_EPOCHS, len(history))),
        matrix_table=_shaded(matrix) if len(matrix) <= MATRIX_CLASSES else None,
        matrix_picture=plots.confusion_image(matrix) if len(matrix) > MATRIX_CLASSES else None,
        confusions=most_confused(matrix, manifest.class_names, 10),
        mistakes=confident_mistakes(data, np.load(run.test_probabilities), MISTAKES),
        listed=LISTED,
        config=to_yaml(config),
    )
    write_text(run.report, page)
    return f"{run.report}, {len(page) / 1e3:.0f} kB"


def confident_mistakes(
    data: PreparedData, probabilities: NDArray[np.float32], count: int
) -> list[Mistake]:
    """The wrong answers on the test split that the model was surest of, surest first."""
    test = data.indices("test")
    names = data.manifest.class_names
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != data.labels[test])
    chosen = wrong[np.argsort(-confidence[wrong], kind="stable")[:count]]
    files = {file.index: file.path for file in data.manifest.proof_files}
    return [
        Mistake(
            picture=base64.b64encode(encode_png(np.asarray(data.images[test[row]]))).decode(),
            true=names[data.labels[test[row]]],
            predicted=names[predicted[row]],
            probability=float(confidence[row]),
            name=files.get(int(test[row]), f"example {test[row]}"),
        )
        for row in chosen
    ]


def most_confused(
    matrix: Sequence[Sequence[int]], class_names: Sequence[str], count: int
) -> list[tuple[str, str, int]]:
    """(true class, predicted class, how often), most frequent first."""
    pairs = [
        (class_names[row], class_names[column], matrix[row][column])
        for row in range(len(matrix))
        for column in range(len(matrix))
        if row != column and matrix[row][column]
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:count]


def _shaded(matrix: Sequence[Sequence[int]]) -> list[list[tuple[int, float]]]:
    """Each count with its share of the row."""
    return [[(count, count / max(sum(row), 1)) for count in row] for row in matrix]
