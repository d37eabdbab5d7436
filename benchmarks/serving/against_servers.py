"""Lockstep's server against MLServer, LitServe, BentoML and KServe, each in its fastest form.

python -m benchmarks.serving.environments --folder FOLDER
python -m benchmarks.serving.against_servers runs/fashion-mnist/model.onnx --folder FOLDER

First the saturation of each, in turns. Then, in turns too, the latency of each competitor at 50, 80
and 95 % of its own saturation, and Lockstep's at those same rates.
"""

import argparse
import itertools
import statistics
import sys
from collections import defaultdict
from pathlib import Path

from benchmarks.serving.contestants import COMPETITORS, ROWS, Contestant, lockstep, serving
from benchmarks.serving.environments import version_of
from benchmarks.serving.load import Load
from benchmarks.serving.photo_model import photo_model
from benchmarks.serving.questions import Question, about
from benchmarks.serving.saturation import saturate
from benchmarks.serving.server_process import LOAD_CORE, on_core

SHARES = (0.50, 0.80, 0.95)
CONNECTIONS = 64
WARM_UP = 2
Figures = tuple[float, float, float]
"""p50 and p99 in milliseconds, and the share that was refused (429 or 503)."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path, help="a bundle of the 28x28x1 Fashion-MNIST model")
    parser.add_argument("--folder", type=Path, required=True, help="where the environments are")
    parser.add_argument("--seconds", type=int, default=10, help="of one measurement (default: 10)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved (default: 3)")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--servers", nargs="+", choices=COMPETITORS, default=list(COMPETITORS))
    parser.add_argument("--photo", default="640,480", help="width,height (default: 640,480)")
    parser.add_argument("--server-options", default="", help="further options of serve.http")
    options = parser.parse_args()
    for row in options.rows:
        print(f"\n{ROWS[row]}{' of ' + options.photo if row == 'photo' else ''}")
        Row(options, row).measure()
    return 0


class Row:
    """One model and one kind of content, on every server."""

    def __init__(self, options: argparse.Namespace, row: str) -> None:
        self._options, self._row = options, row
        self._model = options.model if row == "tensor" else photo_model(options.folder)
        self._ours = lockstep(options.server_options)
        self._competitors = [COMPETITORS[name] for name in options.servers]

    def measure(self) -> None:
        """Print both tables."""
        rates, costs = self._saturations()
        for contestant in [self._ours, *self._competitors]:
            name, (form, _) = contestant.name, contestant.asks[self._row]
            version = "" if contestant is self._ours else version_of(self._options.folder, name)
            ratio = rates[self._ours.name] / rates[name]
            print(
                f"{name:<9} {version:<8} {rates[name]:8,.1f}/s   lockstep {ratio:5.2f}   "
                f"{costs[name]:7.3f} ms of processor   {form}"
            )
        sys.stdout.flush()
        self._print_latencies(rates)

    def _saturations(self) -> tuple[dict[str, float], dict[str, float]]:
        """Answers per second, and milliseconds of processor time for each, by server."""
        rates: dict[str, list[float]] = defaultdict(list)
        costs: dict[str, list[float]] = defaultdict(list)
        for _ in range(self._options.rounds):
            for contestant in [self._ours, *self._competitors]:
                question = self._questions(contestant, 1)[0]
                with serving(contestant, self._row, self._model, self._options.folder) as server:
                    saturate(server.port, question, WARM_UP)
                    cpu = server.cpu_seconds()
                    result = saturate(server.port, question, self._options.seconds)
                    cpu = server.cpu_seconds() - cpu
                rates[contestant.name].append(result.rate)
                costs[contestant.name].append(cpu / result.answers * 1e3)
        medians = [
            {name: statistics.median(values) for name, values in table.items()}
            for table in (rates, costs)
        ]
        return medians[0], medians[1]

    def _print_latencies(self, saturation: dict[str, float]) -> None:
        print(f"{'at':<30}{'p50, p99 in ms':>20}{'lockstep':>20}   p99 ratio")
        measured: dict[tuple[str, str, float], list[Figures]] = defaultdict(list)
        for _ in range(self._options.rounds):
            for competitor in self._competitors:
                name = competitor.name
                for contestant in (competitor, self._ours):
                    found = self._latencies(contestant, saturation[name])
                    for share, percentiles in zip(SHARES, found, strict=True):
                        measured[name, contestant.name, share].append(percentiles)
        for competitor, share in itertools.product(self._competitors, SHARES):
            name = competitor.name
            their_p50, their_p99, _ = _medians(measured[name, name, share])
            p50, p99, refused = _medians(measured[name, self._ours.name, share])
            print(
                f"{share:.0%} of {name:<9} {share * saturation[name]:10,.1f}/s {their_p50:10.2f} "
                f"{their_p99:9.2f} {p50:10.2f} {p99:9.2f}   {p99 / their_p99:.2f}"
                + (f"   LOCKSTEP REFUSED {refused:.1%}" if refused else "")
            )

    def _latencies(self, contestant: Contestant, saturation: float) -> list[Figures]:
        """The figures at each share of this saturation."""
        asked, found = itertools.cycle(self._questions(contestant)), list[Figures]()
        with serving(contestant, self._row, self._model, self._options.folder) as server:
            for share in (SHARES[0], *SHARES):  # the first warms up
                rate, seconds = share * saturation, self._options.seconds if found else WARM_UP
                load = Load(server.port, lambda: next(asked), connections=CONNECTIONS, rate=rate)
                with on_core(LOAD_CORE):
                    load.run(seconds=seconds)
                if load.wrong or load.broken or load.unanswered:
                    raise RuntimeError(
                        f"{contestant.name} at {rate:.0f}/s: expected right answers, got "
                        f"{load.counts()}, {load.wrong} wrong, {load.broken} broken, "
                        f"{load.unanswered} missing"
                    )
                counts = load.counts()
                refused = 1 - counts.get(200, 0) / sum(counts.values())
                found.append((load.milliseconds(50, 200), load.milliseconds(99, 200), refused))
        return found[1:]

    def _questions(self, contestant: Contestant, count: int = 16) -> list[Question]:
        ask = contestant.asks[self._row][1]
        return about(self._row, ask, self._model, self._options.photo, count)


def _medians(values: list[Figures]) -> Figures:
    """The median of each figure, and all that was refused."""
    p50s, p99s, refused = zip(*values, strict=True)
    return statistics.median(p50s), statistics.median(p99s), statistics.mean(refused)


if __name__ == "__main__":
    sys.exit(main())
