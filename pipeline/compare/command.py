"""Runs side by side: those that are there, or those that a comparison recipe describes.

    python -m pipeline.compare runs/digits runs/other
    python -m pipeline.compare --recipe optimizers

Writes a page and two tables.
"""

import dataclasses
import logging
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from export.run_directory import RunDirectory
from pipeline.checks import check_model, check_writable
from pipeline.command_line import Invocation
from pipeline.compare.command_line import Request, parse
from pipeline.compare.page import page
from pipeline.compare.runs import ComparedRun, CompareError, read_run, read_runs
from pipeline.compare.tables import curves_table, runs_table
from pipeline.data import sources
from pipeline.run import TRAIN, check_place, execute
from pipeline.stages import standing
from pipeline.stopping import Stopped, stop_signals
from serve.atomic import write_text
from serve.command import LockstepError, one_line, printable
from serve.rounding import share

PAGE, RUNS_TABLE, CURVES_TABLE = "comparison.html", "comparison.csv", "curves.csv"


def main(arguments: list[str] | None = None) -> int:
    """The command. Exit code 1 if a run of the recipe failed, after all others are done."""
    request = parse(arguments)
    if not request.planned:
        paths = _without_comparisons(request.runs)
        _check_outside(request.output, paths, "--output")
        runs = read_runs(paths)
        write_comparison(runs, request.output)
        _say(runs, request.output)
        return 0
    try:
        with stop_signals.received():
            return _make_and_compare(request)
    except Stopped as stopped:
        stopped.say_how_to_continue("pipeline.compare", arguments)
        return stopped.exit_code


def write_comparison(runs: Sequence[ComparedRun], output: Path) -> None:
    """Write the page and both tables."""
    write_text(output / RUNS_TABLE, runs_table(runs))
    write_text(output / CURVES_TABLE, curves_table(runs))
    write_text(output / PAGE, page(runs))


def _make_and_compare(request: Request) -> int:
    """Make one run after the other; the page is written anew after each."""
    directories = [invocation.run_dir for invocation in request.planned.values()]
    _check_outside(request.output, directories, "--output")
    _check_outside(directories[0].parent, [], "--run-dir")
    for invocation in request.planned.values():
        config, run = invocation.config, RunDirectory(invocation.run_dir)
        sources.identity(config.data)  # what is missing is missing before hours of work
        check_place(run.path, "run", run.config)
        check_model(config, weights=standing(TRAIN, config, run) != "done")
    check_writable(request.output)
    logging.getLogger("tensorflow").addFilter(_is_worth_saying)
    runs: list[ComparedRun] = []
    failures = 0
    for number, (name, invocation) in enumerate(request.planned.items(), 1):
        print(f"\n{name} ({number} of {len(request.planned)})", flush=True)
        failure = _make(invocation, debug=request.debug)
        runs.append(_made(name, invocation, failure))
        failures += failure is not None
        write_comparison(runs, request.output)
    print()
    _say(runs, request.output)
    return 1 if failures else 0


def _make(invocation: Invocation, *, debug: bool) -> str | None:
    """Make a run; if it fails, print why and return it in one line."""
    try:
        execute(invocation)
        return None
    except (LockstepError, OSError, MemoryError) as error:
        if debug:
            traceback.print_exc()
        print(f"error: {one_line(error)}", file=sys.stderr, flush=True)
        return one_line(error)
    finally:
        if "keras" in sys.modules:  # the next one should find this process as this one did
            sys.modules["keras"].utils.clear_session()


def _is_worth_saying(record: logging.LogRecord) -> bool:
    """TensorFlow wonders at functions that are traced often; here every run has its own model."""
    return "triggered tf.function retracing" not in record.getMessage()


def _made(name: str, invocation: Invocation, failure: str | None) -> ComparedRun:
    run = RunDirectory(invocation.run_dir)
    if failure is None:
        return read_run(run.path, name)
    state = f"failed: {failure}"
    if not run.config.is_file():
        return ComparedRun(name, run.path, invocation.config, state, source=invocation.config.data)
    return dataclasses.replace(read_run(run.path, name), state=state)


def _check_outside(folder: Path, runs: Sequence[Path], option: str) -> None:
    """Raises CompareError: what is written to `folder` would lie in a run."""
    within = any(folder.resolve().is_relative_to(run.resolve()) for run in runs)
    if within or RunDirectory(folder).config.is_file():
        raise CompareError(
            f"{folder}: expected a directory outside the runs, got one in a run; name another "
            f"with {option}"
        )


def _without_comparisons(paths: Sequence[Path]) -> list[Path]:
    """Without what this command wrote: `runs/*` names that, too.

    Raises:
        CompareError: fewer than two are left.
    """
    runs = []
    for path in paths:
        if (path / PAGE).is_file() and not RunDirectory(path).config.is_file():
            print(f"{path}: passed over, a comparison and no run")
        else:
            runs.append(path)
    if len(runs) < 2:
        raise CompareError(
            f"expected the directories of at least two runs, or --recipe, got {len(runs)}; "
            "see python -m pipeline.compare --help"
        )
    return runs


def _say(runs: Sequence[ComparedRun], output: Path) -> None:
    names = [printable(run.name) for run in runs]
    width = max(map(len, names))
    for name, run in zip(names, runs, strict=True):
        result = ""
        if run.metrics:
            count = run.metrics.get("examples", 0)
            result = f"test accuracy {share(run.metrics['accuracy'], count)}"
            result += f" on {count:,} images, " if count else ", "
        print(f"{name:<{width}}  {result}{run.state}")
    print(f"page       {output / PAGE}")
    print(f"tables     {output / RUNS_TABLE}, {output / CURVES_TABLE}")
