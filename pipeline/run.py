"""From images to a proven ONNX bundle.

    python -m pipeline.run                            # recipe "digits": embedded data, no download
    python -m pipeline.run --recipe fashion-mnist     # 60,000 real images
    python -m pipeline.run --data folder:photos       # one subfolder per class

Stages: prepare, train, evaluate, export, quantize, verify, report.
The same command again continues.
"""

import importlib
import json
import shlex
from pathlib import Path
from typing import Any

from export.quiet_tensorflow import import_tensorflow
from export.run_directory import RunDirectory
from export.run_lock import claimed
from export.verify import ParityError
from pipeline.checks import check_model
from pipeline.command_line import Invocation, parse
from pipeline.config import Config
from pipeline.data import sources
from pipeline.evaluation.gate import RequirementsNotMetError, check_required_classes
from pipeline.recipe import ConfigError, differing_keys, load_recipe, resolve, to_yaml
from pipeline.stages import Stage, StageFunction, StageRunner, standing
from pipeline.stopping import Stopped, stop_signals
from pipeline.training import checkpoints
from serve.atomic import write_text
from serve.bundle import Finding
from serve.command import run_command
from serve.verdict import verdict_lines


def _later(module: str, function: str, *, tensorflow: bool = True) -> StageFunction:
    """A stage's function, imported when it runs: a run that skips it should not wait for that."""

    def run(config: Config, run: RunDirectory) -> str:
        if tensorflow:
            import_tensorflow()
        return str(getattr(importlib.import_module(module), function)(config, run))

    return run


def _read_by_prepare(config: Config) -> Any:
    return {
        "data": config.data,
        "content": sources.identity(config.data),
        "prepare": config.prepare.model_dump(),
        "seed": config.seed,
    }


PREPARE = Stage(
    "prepare",
    _read_by_prepare,
    (),
    lambda run: (run.data,),
    _later("pipeline.data.prepare", "prepare", tensorflow=False),
    version=2,
)
TRAIN = Stage(
    "train",
    checkpoints.read_by_training,
    ("prepare",),
    lambda run: (run.model, run.history, run.pretraining, run.training),
    _later("pipeline.training.train", "train"),
    version=2,  # kernels alone decay; moves are resampled once; LeNet pads small images alone
)
EVALUATE = Stage(
    "evaluate",
    lambda config: config.evaluate.model_dump(exclude={"require"}),
    ("prepare", "train"),
    lambda run: (run.metrics, run.test_probabilities),
    _later("pipeline.evaluation.evaluate", "evaluate"),
    version=2,
)
EXPORT = Stage(
    "export",
    lambda config: None,
    ("prepare", "train", "evaluate"),
    lambda run: (run.saved_model, run.unverified_bundle),
    _later("pipeline.export_stage", "export"),
)
QUANTIZE = Stage(
    "quantize",
    lambda config: config.quantize.model_dump(),
    ("prepare", "export"),
    lambda run: (run.unverified_int8_bundle, run.quantization),
    _later("pipeline.export_stage", "quantize"),
    version=2,
)
VERIFY = Stage(
    "verify",
    lambda config: {**config.verify.model_dump(), "require": config.evaluate.require},
    ("prepare", "train", "evaluate", "export", "quantize"),
    lambda run: (run.bundle, run.int8_bundle, run.parity, run.requirements),
    _later("pipeline.export_stage", "verify"),
)
REPORT = Stage(
    "report",
    lambda config: config.model_dump(),
    ("prepare", "train", "evaluate", "quantize", "verify"),
    lambda run: (run.report,),
    _later("pipeline.report.page", "write_report"),  # it draws what the augmentation does
)


def main(arguments: list[str] | None = None) -> int:
    """The command. Exit code 1 if the proof fails or the model does not meet what the config
    requires of it, after the report has been written.
    """
    invocation = parse(arguments)
    try:
        with stop_signals.received():
            execute(invocation)
    except Stopped as stopped:
        stopped.say_how_to_continue("pipeline.run", arguments)
        return stopped.exit_code
    _say_what_is_there(RunDirectory(invocation.run_dir))
    return 0


def execute(invocation: Invocation) -> None:
    """Run the stages that are not done.

    Raises:
        ConfigError: what was asked for cannot be done.
        ParityError: the proof failed; the report is written all the same.
        RequirementsNotMetError: the model is not what `evaluate.require` asks for; likewise.
        Stopped: a signal asked for it.
    """
    config, run = invocation.config, RunDirectory(invocation.run_dir)
    sources.identity(config.data)  # data that are not there claim no run directory
    check_place(run.path, "run", run.config)
    check_model(config, weights=standing(TRAIN, config, run) != "done")
    with claimed(run):
        _enter(run, invocation)
        stages = (PREPARE, TRAIN, EVALUATE, EXPORT, QUANTIZE, VERIFY, REPORT)
        runner = StageRunner(config, run, stages)
        try:
            for stage in stages:
                runner.run(stage)
                if stage is PREPARE:
                    check_required_classes(config, run)
                if stage is TRAIN:
                    checkpoints.forget(run)  # several times the size of the model
                if stage is EVALUATE:
                    _say_the_verdict(run)
        except (ParityError, RequirementsNotMetError):
            REPORT.run(config, run)  # the page shows what differs; it is not a finished stage
            raise


def _say_the_verdict(run: RunDirectory) -> None:
    findings = json.loads(run.metrics.read_bytes())["verdict"]
    print(*verdict_lines([Finding(**finding) for finding in findings]), sep="\n", flush=True)


def _say_what_is_there(run: RunDirectory) -> None:
    print(f"\nbundle     {run.bundle}")
    if run.int8_bundle.is_file():
        print(f"int8       {run.int8_bundle}")
    print(f"report     {run.report}")
    bundle = shlex.quote(str(run.bundle))
    print(f"try        python -m serve.batch {bundle} FOLDER --output predictions.csv")
    print(f"serve      python -m serve.http {bundle}")


def check_place(path: Path, kind: str, mark: Path) -> None:
    """Let a command begin in `path`, or go on there.

    Args:
        kind: of what it makes: a run, a sweep.
        mark: a file that there is wherever such a thing is.

    Raises:
        ConfigError: something else is there.
    """
    files = list(path.iterdir()) if path.is_dir() else []
    is_foreign = files not in ([], [RunDirectory(path).lock]) and not mark.is_file()
    is_file = any(place.exists() and not place.is_dir() for place in (path, *path.parents))
    if is_foreign or is_file:
        raise ConfigError(
            f"{path}: expected a new directory or one with a {kind} in it, and found other "
            "files; name another with --run-dir"
        )


def _enter(run: RunDirectory, invocation: Invocation) -> None:
    """Write the config, if the run is one on the same data.

    Raises:
        ConfigError: it is on other data, or has a training that another config began.
    """
    config = invocation.config
    if run.config.is_file():
        previous = resolve(load_recipe(str(run.config)), {}, origin=str(run.config))
        if not sources.same(previous.data, config.data):
            raise ConfigError(
                f"{run.path}: holds a run on {previous.data}, expected one on {config.data}; "
                "name another directory with --run-dir, or delete this one"
            )
        if invocation.fresh:
            checkpoints.forget(run)
        checkpoints.refuse_other_config(run, config)
        changed = differing_keys(previous.model_dump(), config.model_dump())
        if changed:
            print(f"config     changed since the last run: {', '.join(changed)}")
    print(f"run        {run.path}", flush=True)
    text = to_yaml(config)
    if not run.config.is_file() or run.config.read_text("utf-8") != text:
        write_text(run.config, text)


if __name__ == "__main__":
    run_command(main)
