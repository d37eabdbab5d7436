"""A run with an int8 bundle, and ways to change a bundle that its digest does not give away."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from serve.bundle import bundle_document, seal

EditDocument = Callable[[Path, Callable[[dict[str, Any]], None]], None]
EditGraph = Callable[[Path, Callable[[onnx.ModelProto], None]], None]


@pytest.fixture(scope="session")
def edit_document() -> EditDocument:
    """Change the plain values of a bundle's document, then seal it again."""

    def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
        content = path.read_bytes()
        document = bundle_document(content).to_json()
        change(document)
        path.write_bytes(seal(content, document))

    return edit


@pytest.fixture(scope="session")
def edit_graph() -> EditGraph:
    """Change the model of a bundle, then seal it again with the document that it had."""

    def edit(path: Path, change: Callable[[onnx.ModelProto], None]) -> None:
        content = path.read_bytes()
        document = bundle_document(content).to_json()
        model = onnx.load_model_from_string(content)
        change(model)
        path.write_bytes(seal(model.SerializeToString(deterministic=True), document))

    return edit


@pytest.fixture(scope="session")
def int8_run(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained run with both bundles released, whatever the clock says here; read-only."""
    from export import quantize as search
    from export import verify
    from export.run_directory import RunDirectory
    from pipeline.config import Config
    from pipeline.export_stage import quantize
    from pipeline.export_stage import verify as prove

    run_dir = tmp_path_factory.mktemp("int8") / "run"
    shutil.copytree(trained_run, run_dir)
    config = Config.model_validate({"verify": {"max_examples": 60}})
    with pytest.MonkeyPatch.context() as patch:
        rounds = [{1: [time] * 9, 32: [time] * 9} for time in (2.0, 1.0)]
        latency = search.measured(*rounds)
        patch.setattr(search._Search, "_measure", lambda self, session: latency)
        # One of 60 images is more than half a point, and another processor rounds otherwise.
        for module in (search, verify):
            patch.setattr(module, "MAX_DROP", 0.05)
        quantize(config, RunDirectory(run_dir))
        prove(config, RunDirectory(run_dir))
    assert (run_dir / "model.int8.onnx").is_file()
    return run_dir


@pytest.fixture
def int8_copy(int8_run: Path, tmp_path: Path) -> Path:
    """A copy of that run, to change and to break."""
    return Path(shutil.copytree(int8_run, tmp_path / "int8"))
