"""python -m pipeline.sweep: search over config keys."""

import argparse
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from export.run_directory import RunDirectory
from export.run_lock import claimed
from pipeline.checks import check_model
from pipeline.command_line import accept_config_options, parse_known, read_overrides
from pipeline.data import sources
from pipeline.options.training import MONITORS
from pipeline.recipe import (
    ConfigError,
    differing_keys,
    dump_yaml,
    fingerprint,
)
from pipeline.run import check_place
from pipeline.stopping import Stopped, stop_signals
from pipeline.sweep.directory import SweepDirectory
from pipeline.sweep.images import prepare_images
from pipeline.sweep.results import write_results
from pipeline.sweep.search import Search, load_search, space_names
from pipeline.sweep.study import REASON, Study
from pipeline.sweep.workers import wait_for_workers, work, work_in_processes
from serve.atomic import remove, write_text
from serve.command import CommandParser

DESCRIPTION = """\
Search over any keys of the config tree: each trial is a short run, prepare and train, judged by a
figure of the validation split. The test split is not looked at."""

EPILOG = """\
examples:
  python -m pipeline.sweep digits
  python -m pipeline.sweep my-space.yaml --trials 50 --workers 2
  python -m pipeline.sweep digits --run-dir sweeps/long --train.epochs 20

a space file:
  recipe: fashion-mnist            # where every trial begins
  config: {train: {epochs: 5}}     # what all have in common, as in a recipe
  objective: val_accuracy          # or val_loss, accuracy, loss; default: train.monitor
  trials: 40
  sampler: tpe                     # learns from the trials before; or random, grid
  seed: 0
  pruner: {name: median, startup_trials: 5, warmup_epochs: 2}     # or hyperband, none
  space:
    train.optimizer.learning_rate: {low: 1e-3, high: 1, log: true}
    train.optimizer.name: [momentum, adam]
    train.optimizer.momentum: {low: 0.5, high: 0.99}   # only drawn with a form that has it
    train.epochs: {low: 4, high: 12, step: 4}
    model.filters: [[16, 32], [32, 64], [16, 32, 64]]

The keys are those of `python -m pipeline.run --help`; a key given on the command line holds for all
trials. The same command again continues, whatever ended the one before, and a larger --trials adds
to it. With one worker the same space and seed give the same trials.

It leaves sweeps/NAME/sweep.html, trials.csv, and best.yaml: a recipe for python -m pipeline.run.
"""


@dataclass(frozen=True)
class Invocation:
    """What the person asked for."""

    search: Search
    directory: SweepDirectory
    workers: int
    fresh: bool


def main(arguments: list[str] | None = None) -> int:
    """The command. Exit code 1 if no trial trained to its end."""
    invocation = parse(arguments)
    try:
        with stop_signals.received():
            return _run(invocation)
    except Stopped as stopped:
        stopped.say_how_to_continue("pipeline.sweep", arguments)
        return stopped.exit_code


def parse(arguments: list[str] | None = None) -> Invocation:
    """Read the command line and the space file that it names.

    Raises:
        ConfigError: whatever is wrong with them.
    """
    options = parse_known(_parser(), arguments)
    search = load_search(options.space, read_overrides(options), trials=options.trials)
    name = Path(options.space).stem
    return Invocation(
        search,
        SweepDirectory(Path(options.run_dir or Path("sweeps") / name)),
        options.workers,
        options.fresh,
    )


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="python -m pipeline.sweep",
        description=DESCRIPTION,
        epilog=EPILOG,
        usage="%(prog)s SPACE [--trials N] [--workers N] [--run-dir DIR] [--fresh] "
        "[--KEY VALUE ...]",
    )
    parser.add_argument(
        "space", metavar="SPACE", help=f"a YAML file, or one of: {', '.join(space_names())}"
    )
    parser.add_argument(
        "--trials", type=_count, metavar="N", help="how many (default: what the space says, or 20)"
    )
    parser.add_argument(
        "--workers",
        type=_count,
        default=1,
        metavar="N",
        help="processes, each with its share of the cores (default: 1)",
    )
    parser.add_argument(
        "--run-dir", metavar="DIR", help="where the sweep lives (default: sweeps/<space>)"
    )
    parser.add_argument(
        "--fresh", action="store_true", help="forget the sweep that is there and start over"
    )
    accept_config_options(parser)
    return parser


def _count(text: str) -> int:
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text}")
    return value


def _run(invocation: Invocation) -> int:
    sweep, search = invocation.directory, invocation.search
    content = sources.identity(search.base.data)  # data that are not there claim no directory
    check_place(sweep.path, "sweep", sweep.search)
    if not any(key.startswith(("model.", "train.optimizer.")) for key in search.space):
        check_model(search.base)  # else every trial is judged by what it draws
    with claimed(RunDirectory(sweep.path)):
        search = _enter(invocation)
        study = Study(sweep, search)
        study.belongs_to(fingerprint(content))
        wait_for_workers(sweep)
        print(f"sweep      {sweep.path}: {_progress(study, search)}", flush=True)
        if not any(key.startswith("prepare.") for key in search.space):
            prepare_images(search.base, sweep)  # what is wrong with them is said before any trial
        try:
            if invocation.workers == 1:
                work(sweep, search)
            else:
                work_in_processes(sweep, search, invocation.workers)
        finally:
            write_results(study, sweep, search)
    return _say_what_is_there(study, sweep, search)


def _enter(invocation: Invocation) -> Search:
    """The sweep as it is written down: now, or by the command that began it.

    Raises:
        ConfigError: the sweep that is there looks for something else.
    """
    sweep, search = invocation.directory, invocation.search
    if sweep.search.is_file() and invocation.fresh:
        _forget(sweep)
    elif sweep.search.is_file():
        began = load_search(str(sweep.search)).document()
        changed = differing_keys(began, search.document())
        if changed:
            raise ConfigError(
                f"{sweep.path}: holds a sweep with other values: {', '.join(changed)}; give it its "
                "own back, start it over with --fresh, or name another --run-dir"
            )
    if not sweep.search.is_file() or invocation.fresh:
        write_text(sweep.search, dump_yaml(search.document()))
    return load_search(str(sweep.search), trials=search.trials)


def _forget(sweep: SweepDirectory) -> None:
    """Do away with all trials; the prepared images stay."""
    wait_for_workers(sweep)
    for path in (sweep.storage, sweep.trials, sweep.table, sweep.best, sweep.page):
        remove(path)


def _progress(study: Study, search: Search) -> str:
    trials = study.trials
    ended = sum(trial.state.is_finished() for trial in trials)
    words = [f"{search.trials} trials for the {_direction(search)} {search.objective}"]
    if trials:
        words.append(f"{ended} have ended, {len(trials) - ended} are under way")
    return "; ".join(words)


def _direction(search: Search) -> str:
    return "highest" if MONITORS[search.objective] == "max" else "lowest"


def _say_what_is_there(study: Study, sweep: SweepDirectory, search: Search) -> int:
    best = study.best()
    print(f"\npage       {sweep.page}")
    print(f"table      {sweep.table}")
    if best is None:
        reasons = [trial.user_attrs[REASON] for trial in study.trials if REASON in trial.user_attrs]
        why = f"; first: {reasons[0]}" if reasons else ": all were pruned"
        print(f"error: no trial trained to its end{why}", file=sys.stderr)
        return 1
    print(f"best       trial {best.number}, {search.objective} {best.value:.4f}: {sweep.best}")
    print(f"run it     python -m pipeline.run --recipe {shlex.quote(str(sweep.best))}")
    return 0
