"""The command line of `pipeline.compare`."""

from dataclasses import dataclass, field
from pathlib import Path

from pipeline.command_line import (
    Invocation,
    add_config_options,
    parse_known,
    read_overrides,
    run_name,
)
from pipeline.compare.recipe import comparison_names, load_comparison
from pipeline.recipe import ConfigError
from serve.command import CommandParser

EPILOG = """\
examples:
  python -m pipeline.compare runs/digits runs/other
  python -m pipeline.compare runs/*/ --output digits-runs
  python -m pipeline.compare --recipe optimizers
  python -m pipeline.compare --recipe optimizers --data fashion-mnist --train.epochs 4

Writes comparison.html (curves, final figures, which config keys differ), comparison.csv (one row
for each run) and curves.csv (one for each epoch of each run). Unfinished runs show what there is.

A comparison recipe is a YAML file:

  recipe: digits                  # optional: an ordinary recipe that all runs start from
  common: {train.epochs: 20}      # optional: options of all runs
  runs:                           # a name for each run, and its own options, dotted or nested
    slow: {train.optimizer.learning_rate: 0.01}
    fast: {train: {optimizer: {learning_rate: 0.3}}}

Each run is an ordinary one, in a directory of its own below --run-dir. The same command again
continues, whatever ended the one before. A run that fails leaves the others alone; the exit code is
then 1.
"""


@dataclass(frozen=True)
class Request:
    """What the person asked for.

    Attributes:
        runs: directories of runs that are there.
        planned: name to a run that is to be made.
        output: the directory for the page and the tables.
    """

    output: Path
    runs: list[Path] = field(default_factory=list)
    planned: dict[str, Invocation] = field(default_factory=dict)
    debug: bool = False


def parse(arguments: list[str] | None = None) -> Request:
    """Read the command line, and the comparison recipe that it names.

    Raises:
        ConfigError: it asks for what cannot be, or the recipe does not fit.
    """
    options = parse_known(_parser(), arguments)
    overrides = read_overrides(options)
    if options.recipe is None:
        for_recipes = [*overrides, *(["run-dir"] if options.run_dir else []),
                       *(["fresh"] if options.fresh else [])]  # fmt: skip
        if for_recipes:
            raise ConfigError(f"--{for_recipes[0]}: expected --recipe with it, which makes runs")
        output = Path(options.output or "runs/compare")
        return Request(output, [Path(run) for run in options.runs], debug=options.debug)
    if options.runs:
        raise ConfigError(
            f"expected directories of runs or --recipe, got {options.runs[0]} and --recipe; "
            "compare those that it makes with others afterwards"
        )
    comparison = load_comparison(options.recipe, overrides)
    name = f"compare-{Path(options.recipe).stem}-{run_name(comparison.data)}"
    folder = Path(options.run_dir or Path("runs") / name)
    planned = {
        run: Invocation(config, folder / run, options.fresh)
        for run, config in comparison.runs.items()
    }
    return Request(Path(options.output or folder), planned=planned, debug=options.debug)


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="python -m pipeline.compare",
        description="Runs side by side: curves, final figures, and in which options they differ.",
        epilog=EPILOG,
        usage=(
            "%(prog)s RUN RUN ... [--output DIR]\n"
            "       %(prog)s --recipe NAME|FILE [--run-dir DIR] [--fresh] [--KEY VALUE ...]"
        ),
    )
    parser.add_argument("runs", metavar="RUN", nargs="*", help="the directory of a run")
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="where the page and the tables go (default: runs/compare; with --recipe: --run-dir)",
    )
    parser.add_argument(
        "--recipe",
        metavar="NAME|FILE",
        help="first make the runs of a comparison recipe "
        f"({', '.join(comparison_names())}) or a YAML file",
    )
    parser.add_argument(
        "--run-dir",
        metavar="DIR",
        help="where they live (default: runs/compare-<recipe>-<data>)",
    )
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="start unfinished trainings over, from their first step",
    )
    add_config_options(parser)
    return parser
