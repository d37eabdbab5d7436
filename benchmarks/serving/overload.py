"""Ten times more requests than the server can answer, and then a crowd of connections at once.

python -m benchmarks.serving.overload runs/fashion-mnist/model.onnx --folder FOLDER
python -m benchmarks.serving.overload ... --row photo
"""

import argparse
import itertools
import resource
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.serving.contestants import ROWS, lockstep, serving
from benchmarks.serving.load import REFUSED, Load
from benchmarks.serving.photo_model import photo_model
from benchmarks.serving.questions import about
from benchmarks.serving.saturation import saturate
from benchmarks.serving.server_process import LOAD_CORE, ServerProcess, memory_of, on_core


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path, help="a bundle of the 28x28x1 Fashion-MNIST model")
    parser.add_argument("--folder", type=Path, required=True, help="for the log")
    parser.add_argument("--row", choices=ROWS, default="tensor", help="(default: tensor)")
    parser.add_argument("--photo", default="640,480", help="width,height (default: 640,480)")
    parser.add_argument("--seconds", type=int, default=60, help="of each overload (default: 60)")
    parser.add_argument("--times", type=float, default=10, help="times saturation (default: 10)")
    parser.add_argument("--connections", type=int, default=1000, help="for that (default: 1000)")
    parser.add_argument("--crowd", type=int, default=4000, help="connections (default: 4000)")
    parser.add_argument("--server-options", default="", help="further options of serve.http")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ours = lockstep(options.server_options)
    model = options.model if options.row == "tensor" else photo_model(options.folder)
    ask = ours.asks[options.row][1]
    asked = itertools.cycle(about(options.row, ask, model, options.photo))
    with serving(ours, options.row, model, options.folder) as server:
        saturate(server.port, next(asked), 2)
        rate = saturate(server.port, next(asked), 5).rate
        print(f"saturation {rate:,.0f}/s")
        calm: dict[str, Any] = {"connections": 64, "rate": rate / 2}
        flood = {"connections": options.connections, "rate": options.times * rate, "skip": True}
        for name, settings, seconds in (
            ("before: half of saturation", calm, 10),
            (f"{options.times:g}x, {options.connections} connections", flood, options.seconds),
            ("after: half of saturation", calm, 10),
            (f"{options.crowd} connections", {"connections": options.crowd}, options.seconds),
            ("after: half of saturation", calm, 10),
        ):
            load = Load(server.port, lambda: next(asked), **settings)
            with memory_of(server) as memory, on_core(LOAD_CORE):
                load.run(seconds=seconds)
            show(name, load, [mib for _, mib in memory])
            wait_until_idle(server)
    return 0


def wait_until_idle(server: ServerProcess) -> None:
    """Until the server uses no processor worth speaking of, 30 s at most; says how long it took."""
    start = time.monotonic()
    while time.monotonic() < start + 30:
        cpu = server.cpu_seconds()
        time.sleep(0.5)
        if server.cpu_seconds() - cpu < 0.05:
            break
    print(f"  idle after {time.monotonic() - start:.1f} s, {server.resident_mib():.0f} MiB")


def show(name: str, load: Load, memory: list[float]) -> None:
    """One phase."""
    counts = load.counts()
    sent = sum(counts.values())
    refused = sum(counts.get(status, 0) for status in REFUSED) / max(sent, 1)
    print(
        f"{name}: sent {sent / load.seconds:,.0f}/s, accepted "
        f"{counts.get(200, 0) / load.seconds:,.0f}/s, refused {refused:.1%}"
    )
    print(
        f"  {counts}, wrong {load.wrong}, broken {load.broken}, unanswered {load.unanswered}, "
        f"never sent for want of a connection {load.skipped:,}"
    )
    for title, statuses in (("accepted", (200,)), ("refused", REFUSED)):
        took = [load.milliseconds(percent, *statuses, service=True) for percent in (50, 99)]
        due = [load.milliseconds(percent, *statuses) for percent in (50, 99)]
        print(
            f"  {title}: p50 {took[0]:.2f} ms, p99 {took[1]:.2f} ms "
            f"(from when it was due {due[0]:.2f}, {due[1]:.2f})"
        )
    print(f"  memory {memory[0]:.0f} MiB, at most {max(memory):.0f} MiB", flush=True)


if __name__ == "__main__":
    sys.exit(main())
