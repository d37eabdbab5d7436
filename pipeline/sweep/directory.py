"""Where a sweep keeps its files."""

from dataclasses import dataclass
from pathlib import Path

from export.run_directory import RunDirectory


@dataclass(frozen=True)
class SweepDirectory:
    """The paths of one sweep.

    sweep.yaml    what is searched, every default written out: a space file itself
    trials.db     Optuna's storage: parameters, figures and states of all trials
    trials/0007/  an ordinary run that ends with the training; its output is in log.txt
    data/         prepared images, shared by the trials that prepare alike
    trials.csv    all trials, best first
    best.yaml     the config of the best one, as a recipe
    sweep.html    one self-contained page
    """

    path: Path

    @property
    def search(self) -> Path:
        return self.path / "sweep.yaml"

    @property
    def storage(self) -> Path:
        return self.path / "trials.db"

    @property
    def draw_lock(self) -> Path:
        """Held by the worker that takes its next trial."""
        return self.path / ".draw.lock"

    @property
    def trials(self) -> Path:
        return self.path / "trials"

    @property
    def data(self) -> Path:
        return self.path / "data"

    @property
    def table(self) -> Path:
        return self.path / "trials.csv"

    @property
    def best(self) -> Path:
        return self.path / "best.yaml"

    @property
    def page(self) -> Path:
        return self.path / "sweep.html"

    def trial(self, number: int) -> RunDirectory:
        """The run of a trial."""
        return RunDirectory(self.trials / f"{number:04}")

    def prepared(self, fingerprint: str) -> RunDirectory:
        """Images prepared once, for all trials with this fingerprint of what prepare reads."""
        return RunDirectory(self.data / fingerprint[:16])
