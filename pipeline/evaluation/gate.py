"""`evaluate.require` as a gate: a model that is not what was required is not released."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.calibration import calibration_figures
from export.prepared_data import PreparedData
from export.run_directory import RunDirectory
from export.verdict import judge
from pipeline.config import Config
from pipeline.evaluation.metrics import classification_figures
from pipeline.evaluation.requirements import Outcome, check_class_names, outcome
from pipeline.options.require import RequirementError, parse
from pipeline.recipe import ConfigError
from serve.atomic import write_text
from serve.command import LockstepError


class RequirementsNotMetError(LockstepError):
    """The model is not what its run requires."""

    exit_code = 1


def check_required_classes(config: Config, run: RunDirectory) -> None:
    """Raises ConfigError, before any training: a condition is about a class that there is not."""
    requirements = [parse(text) for text in config.evaluate.require]
    if requirements:
        names = PreparedData.open(run.data).manifest.class_names
        try:
            check_class_names(requirements, names)
        except RequirementError as error:
            raise ConfigError(f"evaluate.require: {error}") from None


def outcomes(config: Config, figures: Mapping[str, Any]) -> list[Outcome]:
    """What comes of each condition, in their order."""
    return [outcome(parse(text), figures) for text in config.evaluate.require]


def model_figures(
    labels: NDArray[np.int64], probabilities: NDArray[np.float32], class_names: list[str]
) -> dict[str, Any]:
    """What conditions may be about, of another model than that of metrics.json."""
    return {
        **classification_figures(labels, probabilities, class_names),
        "calibration": calibration_figures(probabilities, probabilities, labels),
        "verdict": [asdict(finding) for finding in judge(labels, probabilities, class_names)],
    }


def unmet(found: list[Outcome]) -> str:
    """One line that names every condition that is not met; "" where all are."""
    return "; ".join(item.text for item in found if not item.met)


def write_outcomes(config: Config, run: RunDirectory) -> list[Outcome]:
    """Hold metrics.json to the conditions and write `run.requirements`."""
    found = outcomes(config, json.loads(run.metrics.read_bytes()))
    write_text(run.requirements, json.dumps([asdict(item) for item in found], indent=2) + "\n")
    return found
