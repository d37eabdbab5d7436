"""Where a run keeps its files: every name in a run directory, written down once."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunDirectory:
    """The paths of one run; see `docs/architecture.md` for what each file holds."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def lock(self) -> Path:
        return self.path / ".lock"

    @property
    def stages(self) -> Path:
        return self.path / "stages.json"

    @property
    def data(self) -> Path:
        return self.path / "data"

    @property
    def rejected(self) -> Path:
        return self.path / "rejected.csv"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def history(self) -> Path:
        return self.path / "history.csv"

    @property
    def pretraining(self) -> Path:
        return self.path / "pretraining.csv"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def model(self) -> Path:
        return self.path / "model.keras"

    @property
    def training(self) -> Path:
        return self.path / "training.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.json"

    @property
    def test_probabilities(self) -> Path:
        return self.path / "test_probabilities.npy"

    @property
    def saved_model(self) -> Path:
        return self.path / "saved_model"

    @property
    def unverified_bundle(self) -> Path:
        return self.path / "model.unverified.onnx"

    @property
    def bundle(self) -> Path:
        return self.path / "model.onnx"

    @property
    def unverified_int8_bundle(self) -> Path:
        return self.path / "model.int8.unverified.onnx"

    @property
    def int8_bundle(self) -> Path:
        return self.path / "model.int8.onnx"

    @property
    def quantization(self) -> Path:
        return self.path / "quantization.json"

    @property
    def parity(self) -> Path:
        return self.path / "parity.json"

    @property
    def requirements(self) -> Path:
        return self.path / "requirements.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"
