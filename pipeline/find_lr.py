"""Which learning rate suits: train a few steps with rates from far too low to far too high.

    python -m pipeline.find_lr
    python -m pipeline.find_lr --recipe fashion-mnist --train.optimizer.name adam

Draws the loss over the rate and prints the option to paste; see `pipeline.training.range_test`.
No run is touched.
"""

import argparse
import csv
import dataclasses
import io
import math
from pathlib import Path

from tqdm import tqdm

from export.prepared_data import PreparedData
from export.quiet_tensorflow import import_tensorflow
from pipeline.checks import check_model
from pipeline.command_line import config_parser, read_config
from pipeline.config import Config
from pipeline.recipe import ConfigError
from pipeline.report.range_test import write_page
from pipeline.training.range_test import (
    LEAST_STEPS,
    Point,
    geometric_rates,
    measure,
    suggest,
)
from pipeline.trial_directory import CURVE, TABLE, default_path, entered
from serve.atomic import write_text
from serve.command import LockstepError, run_command

EPILOG = """\
examples:
  python -m pipeline.find_lr
  python -m pipeline.find_lr --recipe fashion-mnist --train.optimizer.name adam
  python -m pipeline.find_lr --data folder:photos --lowest 1e-5 --highest 1 --steps 100

The rate grows by the same factor at every step; each step trains on the next batch of the config,
with its model, optimizer, loss and augmentation. The test ends early when the smoothed loss is 4
times its lowest. Suggested is the rate at which the smoothed loss falls fastest by the logarithm of
the rate; beside it, a tenth of the rate of the lowest loss (Smith 2017, section 3.3; fast.ai).
"""


class NoSuggestionError(LockstepError):
    """The test ran, and no rate made the loss fall."""

    exit_code = 1


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = config_parser(
        prog="python -m pipeline.find_lr",
        description="Learning-rate range test: draws the loss over the rate and suggests one.",
        epilog=EPILOG,
        usage="%(prog)s [--recipe NAME|FILE] [--lowest RATE] [--highest RATE] [--steps N] "
        "[--output DIR] [--KEY VALUE ...]",
    )
    parser.add_argument(
        "--lowest", metavar="RATE", type=float, default=1e-6, help="first rate (default: 1e-6)"
    )
    parser.add_argument(
        "--highest", metavar="RATE", type=float, default=10.0, help="last rate (default: 10)"
    )
    parser.add_argument(
        "--steps",
        metavar="N",
        type=int,
        default=150,
        help="steps from the one to the other (default: 150)",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="where the images are prepared and the results go (default: runs/try-<recipe>)",
    )
    config, name, options = read_config(parser, arguments)
    rates = _rates(options)
    check_model(config)
    directory = Path(options.output or default_path(name))
    with entered(directory, config) as data:
        points = _measure(config, data, rates)
        suggestion = suggest(points)
        write_text(directory / TABLE, _csv(points))
        write_page(directory / CURVE, name, config, points, len(rates), suggestion)
    last = points[-1]
    if len(points) < len(rates):
        print(
            f"ended      after {len(points)} of {len(rates)} steps, at a rate of "
            f"{last.learning_rate:.2g}: the loss diverged"
        )
    print(f"curve      {directory / CURVE}")
    print(f"table      {directory / TABLE}")
    if suggestion is None:
        raise NoSuggestionError(
            f"expected the loss to fall at some rate, but from {rates[0]:.2g} to "
            f"{last.learning_rate:.2g} it never did; see {directory / CURVE} and try other "
            "--lowest and --highest, or look at the config"
        )
    print(f"steepest   {suggestion.steepest:.2g}, where the loss falls fastest")
    print(f"tenth      {suggestion.tenth:.2g}, a tenth of {suggestion.lowest:.2g}: the lowest loss")
    print(f"try        --train.optimizer.learning_rate {suggestion.steepest:.2g}")
    return 0


def _rates(options: argparse.Namespace) -> list[float]:
    """Raises ConfigError: they are no range."""
    lowest, highest, steps = options.lowest, options.highest, options.steps
    if not 0 < lowest < highest < math.inf:
        raise ConfigError(
            f"expected 0 < --lowest < --highest, got --lowest {lowest:g} --highest {highest:g}"
        )
    if steps < LEAST_STEPS:
        raise ConfigError(f"--steps: expected at least {LEAST_STEPS}, got {steps}")
    return geometric_rates(lowest, highest, steps)


def _measure(config: Config, data: PreparedData, rates: list[float]) -> list[Point]:
    """Train a new model, which nobody keeps.

    Raises:
        ConfigError: the model cannot be built for these images, or its first loss is no number.
    """
    import_tensorflow()
    from pipeline.training.trial import Trial

    trial = Trial(config, data, len(rates))
    print(f"           {trial.model.count_params():,} parameters on {trial.device}", flush=True)
    points: list[Point] = []
    with tqdm(total=len(rates), desc="find_lr", unit=" steps", disable=None) as bar:
        for point in measure(trial.step, rates):
            points.append(point)
            bar.set_postfix_str(f"rate {point.learning_rate:.1e}, loss {point.smoothed:.4f}")
            bar.update()
    if not points:
        raise ConfigError(
            "the loss of the first step is no finite number, and no update was before it; look at "
            "the model, the loss and its weights"
        )
    return points


def _csv(points: list[Point]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(
        text, [field.name for field in dataclasses.fields(Point)], lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(dataclasses.asdict(point) for point in points)
    return text.getvalue()


if __name__ == "__main__":
    run_command(main)
