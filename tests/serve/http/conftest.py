"""What the tests of the server share: small bundles, and servers as processes of their own."""

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import serve
from serve.bundle import BundleDocument, Rejection, seal
from serve.image_spec import ImageSpec

SHORT = ("--allowed-host", "x")
"""Lets raw requests be short."""

ROOT = Path(serve.__file__).parents[1]
WriteBundle = Callable[..., Path]


def write_bundle(
    path: Path,
    *,
    shape: tuple[int, int, int] = (8, 8, 1),
    names: tuple[str, ...] = tuple("abcdefghij"),
    seed: int = 0,
    work: int = 0,
    white: str = "",
    rejection: Rejection | None = None,
    thresholds: tuple[float, ...] = (),
    described: bool = True,
) -> Path:
    """A bundle with a linear classifier: every image has an answer of its own.

    Args:
        seed: of the weights; another one gives other answers.
        work: convolutions that only cost time (about 1 ms each for 8x8 pixels), to make it slow.
        white: what a wholly white image does to the batch it is in: "error" has onnxruntime fail,
            "nan" spoils that image's own answer; "" nothing.
        thresholds: makes it multi-label, one for each label.
        described: write the document; else it is an ONNX file like any other.
    """
    random = np.random.default_rng(seed)
    count = int(np.prod(shape))
    constants = [
        numpy_helper.from_array(
            random.normal(0, 0.002, (count, len(names))).astype("f"), "weights"
        ),
        numpy_helper.from_array(random.normal(0, 0.5, len(names)).astype("f"), "offsets"),
    ]
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["pixels"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["product"]),
        helper.make_node("Add", ["product", "offsets"], ["scores"]),
    ]
    scores = "scores"
    if work:
        kernel = (random.normal(0, 0.01, (256, 256, 3, 3))).astype("f")
        constants += [
            numpy_helper.from_array(kernel, "kernel"),
            numpy_helper.from_array(np.zeros((1,), "f"), "zero"),
            numpy_helper.from_array(np.array([0, 1, 1, 1], np.int64), "first"),
            numpy_helper.from_array(np.ones((1, 256, 8, 8), "f"), "wide"),
        ]
        nodes += [
            helper.make_node("Slice", ["flat", "from", "to", "axis"], ["one"]),
            helper.make_node("Reshape", ["one", "first"], ["corner"]),
            helper.make_node("Mul", ["corner", "wide"], ["layer0"]),
        ]
        constants += [
            numpy_helper.from_array(np.array([number], np.int64), name)
            for name, number in (("from", 0), ("to", 1), ("axis", 1))
        ]
        for number in range(work):
            layers = [f"layer{number}", "kernel"]
            nodes.append(
                helper.make_node("Conv", layers, [f"layer{number + 1}"], pads=[1, 1, 1, 1])
            )
        nodes += [
            helper.make_node("ReduceMean", [f"layer{work}"], ["mean"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
            helper.make_node("Unsqueeze", ["nothing", "axis"], ["column"]),
            helper.make_node("Add", [scores, "column"], ["worked"]),
        ]
        scores = "worked"
    if white:
        nodes.append(helper.make_node("ReduceMin", ["flat"], ["darkest"], axes=[1], keepdims=1))
        if white == "nan":
            constants.append(numpy_helper.from_array(np.array([255], "f"), "most"))
            nodes += [
                helper.make_node("Sub", ["most", "darkest"], ["distance"]),
                helper.make_node("Div", ["distance", "distance"], ["one_or_nan"]),
                helper.make_node("Mul", [scores, "one_or_nan"], ["spoiled"]),
            ]
        else:
            constants.append(numpy_helper.from_array(np.ones((255,), "f"), "table"))
            nodes += [
                helper.make_node("Cast", ["darkest"], ["index"], to=TensorProto.INT64),
                helper.make_node("Gather", ["table", "index"], ["found"]),
                helper.make_node("Mul", [scores, "found"], ["spoiled"]),
            ]
        scores = "spoiled"
    last = "Sigmoid" if thresholds else "Softmax"
    nodes.append(helper.make_node(last, [scores], ["probabilities"]))
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", *shape])
    answer = helper.make_tensor_value_info(
        "probabilities", TensorProto.FLOAT, ["batch", len(names)]
    )
    model = helper.make_model(
        helper.make_graph(nodes, "linear", [image], [answer], constants),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    document = BundleDocument(
        class_names=names,
        image=ImageSpec(*shape),
        mean=(0.5,) * shape[2],
        std=(0.25,) * shape[2],
        dataset_fingerprint="ab" * 32,
        config_hash="cd" * 32,
        metrics={"accuracy": 0.98, "ece": 0.02, "examples": 359},
        versions={"lockstep": serve.__version__},
        created="2026-01-02T03:04:05+00:00",
        rejection=rejection,
        task="multi-label" if thresholds else "single-label",
        thresholds=thresholds,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    content = model.SerializeToString()
    path.write_bytes(seal(content, document.to_json()) if described else content)
    return path


class Server:
    """`python -m serve.http` as a user starts it, on any free port.

    Attributes:
        address: like "127.0.0.1:40123".
        url: the same with its scheme.
        lines: what it has written to standard error so far.
    """

    def __init__(self, *arguments: str | Path, wait: bool = True) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "serve.http", *map(str, arguments), "--port", "0", *SHORT],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self.url = ""
        self._ready: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if wait:
            self.wait_until_ready()

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))
            if found := re.search(r"ready: (https?://\S+)", line):
                self._ready.put(found[1])
        self._ready.put("")

    def wait_until_ready(self) -> None:
        self.url = self._ready.get(timeout=180)
        assert self.url, "the server ended: " + "\n".join(self.lines)

    @property
    def address(self) -> str:
        return self.url.partition("://")[2]

    @property
    def memory(self) -> int:
        """Resident bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text("ascii")
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found
        return 1024 * int(found[1])

    def stop(self, number: int = signal.SIGTERM, timeout: float = 60) -> int:
        """Send a signal and wait for the end. Returns the exit code."""
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
        code = self.process.wait(timeout)
        self._reader.join(10)
        return code


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small bundle called "letters"; treat it as read-only."""
    return write_bundle(tmp_path_factory.mktemp("bundle") / "letters.onnx")


@pytest.fixture(scope="module")
def start() -> Iterator[Callable[..., Server]]:
    """Start servers that are stopped at the end of the module, if the test did not."""
    started: list[Server] = []

    def start(*arguments: str | Path, wait: bool = True) -> Server:
        started.append(Server(*arguments, wait=wait))
        return started[-1]

    yield start
    for server in started:
        server.process.kill()
        server.process.wait()
        for stream in (server.process.stdout, server.process.stderr):
            if stream:
                stream.close()


@pytest.fixture(scope="module")
def server(start: Callable[..., Server], bundle: Path) -> Server:
    """A server of `bundle` with every default."""
    return start(bundle)


@pytest.fixture(scope="session")
def make_bundle() -> WriteBundle:
    """`write_bundle`."""
    return write_bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with version 1 of the model `letters`."""
    write_bundle(tmp_path / "models" / "letters" / "1" / "model.onnx", seed=1)
    return tmp_path / "models"
