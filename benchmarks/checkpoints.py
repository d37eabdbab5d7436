"""What it costs to write the state of a training: after every epoch, and more often.

python benchmarks/checkpoints.py runs/fashion-mnist
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from unittest import mock

from export.run_directory import RunDirectory
from pipeline.config import Config
from pipeline.recipe import load_recipe, resolve
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.train import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path, help="a run whose config and images are taken")
    parser.add_argument("--epochs", type=int, default=2, help="of each training (default: 2)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved (default: 3)")
    options = parser.parse_args()
    run = RunDirectory(options.run)
    values = load_recipe(str(run.config))
    minutes = {"the default": Config().train.checkpoint_minutes, "every 3 seconds": 0.05}
    shares: dict[str, list[float]] = {name: [] for name in minutes}
    for _ in range(options.rounds):
        for name, value in minutes.items():
            more = {"train.epochs": options.epochs, "train.checkpoint_minutes": value}
            shares[name].append(share_of_checkpoints(resolve(values, more), run.data))
    for name, found in shares.items():
        print(f"{name:<16} {statistics.median(found):.2%} of the training time")


def share_of_checkpoints(config: Config, data: Path) -> float:
    """Seconds of writing over seconds of training."""
    written: list[float] = []
    write = Checkpoints.write

    def timed(self: Checkpoints, training: object) -> None:
        started = time.perf_counter()
        write(self, training)  # type: ignore[arg-type]
        written.append(time.perf_counter() - started)

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(Checkpoints, "write", timed):
        (Path(folder) / "data").symlink_to(data.resolve())
        started = time.perf_counter()
        train(config, RunDirectory(Path(folder)))
        seconds = time.perf_counter() - started
        size = (Path(folder) / "checkpoints" / "state.npz").stat().st_size
    print(f"{len(written)} states of {size / 1e6:.1f} MB, {sum(written):.2f} of {seconds:.1f} s")
    return sum(written) / seconds


if __name__ == "__main__":
    main()
