"""From images to a proven ONNX bundle.

    python -m pipeline.run                            # recipe "digits": embedded data, no download
    python -m pipeline.run --recipe fashion-mnist     # 60,000 real images
    python -m pipeline.run --data folder:photos       # one subfolder per class

Stages: prepare, train, evaluate, export, verify, report. The same command again continues.
"""

import shlex
from typing import Any

from export.quiet_tensorflow import import_tensorflow
from export.run_directory import RunDirectory
from export.verify import ParityError
from pipeline.command_line import parse
from pipeline.config import Config
from pipeline.data import sources
from pipeline.recipe import ConfigError, differing_keys, load_recipe, resolve, to_yaml
from pipeline.stages import Stage, StageRunner
from serve.atomic import write_text
from serve.command import run_command

# The stages import what they need when they run: TensorFlow takes seconds to import, and a run
# that skips everything should not wait for it.


def _prepare(config: Config, run: RunDirectory) -> str:
    from pipeline.data.prepare import prepare

    return prepare(config, run)


def _train(config: Config, run: RunDirectory) -> str:
    import_tensorflow()
    from pipeline.training.train import train

    return train(config, run)


def _evaluate(config: Config, run: RunDirectory) -> str:
    import_tensorflow()
    from pipeline.evaluation.evaluate import evaluate

    return evaluate(config, run)


def _export(config: Config, run: RunDirectory) -> str:
    import_tensorflow()
    from pipeline.export_stage import export

    return export(config, run)


def _verify(config: Config, run: RunDirectory) -> str:
    import_tensorflow()
    from pipeline.export_stage import verify

    return verify(config, run)


def _report(config: Config, run: RunDirectory) -> str:
    from pipeline.report.page import write_report

    return write_report(config, run)


def _read_by_prepare(config: Config) -> Any:
    return {
        "data": config.data,
        "content": sources.identity(config.data),
        "prepare": config.prepare.model_dump(),
        "seed": config.seed,
    }


def _read_by_train(config: Config) -> Any:
    return config.model_dump(include={"seed", "augment", "model", "train"})


PREPARE = Stage("prepare", _read_by_prepare, (), lambda run: (run.data,), _prepare)
TRAIN = Stage(
    "train",
    _read_by_train,
    ("prepare",),
    lambda run: (run.model, run.history, run.training),
    _train,
)
EVALUATE = Stage(
    "evaluate",
    lambda config: None,
    ("train",),
    lambda run: (run.metrics, run.test_probabilities),
    _evaluate,
)
EXPORT = Stage(
    "export",
    lambda config: None,
    ("train", "evaluate"),
    lambda run: (run.saved_model, run.unverified_bundle),
    _export,
)
VERIFY = Stage(
    "verify",
    lambda config: config.verify.model_dump(),
    ("export",),
    lambda run: (run.bundle, run.parity),
    _verify,
)
REPORT = Stage(
    "report",
    lambda config: config.model_dump(),
    ("verify",),
    lambda run: (run.report,),
    _report,
)


def main(arguments: list[str] | None = None) -> int:
    """The command. Exit code 1 if the proof fails, after the report has been written."""
    invocation = parse(arguments)
    config, run = invocation.config, RunDirectory(invocation.run_dir)
    sources.identity(config.data)  # data that are not there claim no run directory
    _enter(run, config)
    runner = StageRunner(config, run)
    for stage in (PREPARE, TRAIN, EVALUATE, EXPORT):
        runner.run(stage)
    try:
        runner.run(VERIFY)
    except ParityError:
        _report(config, run)  # the page shows what differs; it is not a finished stage
        raise
    runner.run(REPORT)
    print(f"\nbundle     {run.bundle}\nreport     {run.report}")
    bundle = shlex.quote(str(run.bundle))
    print(f"try        python -m serve.batch {bundle} FOLDER --output predictions.csv")
    return 0


def _enter(run: RunDirectory, config: Config) -> None:
    """Claim the run directory: a new one, or one that holds a run on the same data.

    Raises:
        ConfigError: the directory holds something else.
    """
    if not run.config.is_file():
        if run.path.exists() and (not run.path.is_dir() or any(run.path.iterdir())):
            raise ConfigError(
                f"{run.path}: expected a new directory or one with a run in it, and found other "
                "files; name another with --run-dir"
            )
    else:
        previous = resolve(load_recipe(str(run.config)), {})
        if previous.data != config.data:
            raise ConfigError(
                f"{run.path}: holds a run on {previous.data}, expected one on {config.data}; "
                "name another directory with --run-dir, or delete this one"
            )
        changed = differing_keys(previous, config)
        if changed:
            print(f"config     changed since the last run: {', '.join(changed)}")
    print(f"run        {run.path}", flush=True)
    write_text(run.config, to_yaml(config))


if __name__ == "__main__":
    run_command(main)
