"""How to start each server, and the fastest form in which it takes each row's content."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.serving.environments import python_of
from benchmarks.serving.questions import Ask, as_json, raw, v2_base64, v2_binary
from benchmarks.serving.server_process import ServerProcess, free_port, running

HERE = Path(__file__).parent
INFER, READY = "/v2/models/model/infer", "/v2/models/model/ready"
ROWS = {"tensor": "small model, one uint8 tensor of 28x28x1", "photo": "224x224 model, one JPEG"}


@dataclass(frozen=True)
class Contestant:
    """A server.

    Attributes:
        name: as printed, and the name of its environment; Lockstep runs where this does.
        program: arguments of the interpreter; `{port}`, `{model}` and `{folder}` are filled in.
        ready: a path that answers 200 when it is ready.
        asks: for each row the form, in words, and what makes questions in it.
    """

    name: str
    program: Sequence[str]
    ready: str
    asks: Mapping[str, tuple[str, Ask]]


def lockstep(extra: str = "") -> Contestant:
    """Lockstep, one thread within one prediction; `extra` are further options of serve.http."""
    program = ["-m", "serve.http", "model={model}", "--port", "{port}", "--threads", "1"]
    photo = raw("/predict?top=5", lambda text: int(json.loads(text)["results"][0]["label"]))
    photo_v2 = v2_binary(INFER, lambda text: int(np.frombuffer(text[-4000:], "<f4").argmax()))
    asks = {
        "tensor": ("V2, binary", v2_binary(INFER)),
        "photo": ("raw body", photo),
        "photo-v2": ("V2, binary", photo_v2),
    }
    return Contestant("lockstep", [*program, *extra.split()], READY, asks)


def _mlserver() -> Contestant:
    """Its REST form of V2 knows no binary tensors."""
    start = "from mlserver.cli import main; main()"
    tensor = as_json(
        INFER,
        lambda text: int(np.argmax(json.loads(text)["outputs"][0]["data"])),
        v2_base64("tensor"),
    )
    photo = as_json(
        INFER, lambda text: int(json.loads(text)["outputs"][0]["data"][0]), v2_base64("photo")
    )
    form = "V2, base64 in JSON"
    asks = {"tensor": (form, tensor), "photo": (form, photo)}
    return Contestant("mlserver", ("-c", start, "start", "{folder}"), READY, asks)


def _litserve() -> Contestant:
    tensor = raw("/predict", lambda text: int(np.argmax(json.loads(text)["probabilities"])))
    photo = raw("/predict", lambda text: int(json.loads(text)["top"][0][0]))
    asks = {"tensor": ("raw body", tensor), "photo": ("raw body", photo)}
    return Contestant("litserve", [str(HERE / "litserve_service.py")], "/health", asks)


def _bentoml() -> Contestant:
    """It refuses its binary form (pickle) from outside."""
    program = ["-m", "bentoml", "serve", "bentoml_service:Model", "--host", "127.0.0.1"]
    program += ["--port", "{port}", "--working-dir", str(HERE)]
    form = "base64 in JSON"
    tensor = as_json(
        "/tensor", lambda text: int(np.argmax(json.loads(text))), lambda text: {"content": text}
    )
    photo = as_json(
        "/photo", lambda text: int(json.loads(text)[0][0]), lambda text: {"content": text}
    )
    asks = {"tensor": (form, tensor), "photo": (form, photo)}
    return Contestant("bentoml", program, "/readyz", asks)


def _kserve() -> Contestant:
    """A binary BYTES tensor that is no UTF-8 text is a 500, and one of UINT8 is slower by half."""
    photo = as_json(
        INFER, lambda text: int(np.frombuffer(text[-20:], "<i4")[0]), v2_base64("image")
    )
    asks = {
        "tensor": ("V2, binary", v2_binary(INFER)),
        "photo": ("V2, base64 in JSON, binary out", photo),
    }
    return Contestant("kserve", [str(HERE / "kserve_service.py")], READY, asks)


COMPETITORS = {each.name: each for each in (_mlserver(), _litserve(), _bentoml(), _kserve())}


@contextlib.contextmanager
def serving(contestant: Contestant, row: str, model: Path, folder: Path) -> Iterator[ServerProcess]:
    """The contestant with this model, ready, for the time of the block.

    Args:
        folder: where the environments are and the logs go.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ours = contestant.name == "lockstep"
    python = Path(sys.executable) if ours else python_of(folder, contestant.name)
    port, place = free_port(), folder / "mlserver"
    if contestant.name == "mlserver":
        _configure_mlserver(place, port)
    environment = {
        "PYTHONPATH": str(HERE.parent.parent if ours else HERE),
        "MODEL": str(model.absolute()),
        "ROW": row,
        "PORT": str(port),
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "BENTOML_DO_NOT_TRACK": "true",
        "OMP_NUM_THREADS": "1",
    }
    values = {"port": port, "model": model.absolute(), "folder": place}
    command = [str(python), *(text.format(**values) for text in contestant.program)]
    log = folder / f"{contestant.name}-{row}.log"
    with running(command, port, contestant.ready, environment, log) as server:
        yield server


def _configure_mlserver(place: Path, port: int) -> None:
    """One process (its workers are slower on one core), and nothing that only costs."""
    place.mkdir(parents=True, exist_ok=True)
    settings = {"host": "127.0.0.1", "http_port": port, "grpc_port": free_port(), "debug": False}
    settings |= {"metrics_port": free_port(), "parallel_workers": 0, "gzip_enabled": False}
    (place / "settings.json").write_text(json.dumps(settings))
    model = {"name": "model", "implementation": "mlserver_service.Model"}
    (place / "model-settings.json").write_text(json.dumps(model))
