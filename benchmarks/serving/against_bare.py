"""Lockstep's server against a bare loop of the same reader and onnxruntime on the same core.

python -m benchmarks.serving.against_bare runs/fashion-mnist/model.onnx --folder FOLDER
"""

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.rounds import compare
from benchmarks.serving.contestants import lockstep, serving
from benchmarks.serving.onnx_answer import open_session, read_photo
from benchmarks.serving.photo_model import photo_model
from benchmarks.serving.questions import Question, about_photos, about_tensors, raw
from benchmarks.serving.saturation import saturate
from benchmarks.serving.server_process import SERVER_CORE, ServerProcess, on_core
from serve.classifier import Classifier
from serve.images import read_image

SIZES = ((640, 480), (1600, 1200))
BASELINE = "bare loop"


class Costs:
    """Makes contestants that return a rate, and keeps the processor time of each answer."""

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds
        self._milliseconds: dict[str, list[float]] = defaultdict(list)

    def bare(self, name: str, best: Callable[[bytes], int], plain: Question) -> Callable[[], float]:
        """A loop in this process, on the server's core, over one content as wrk has one."""

        def rate() -> float:
            with on_core(SERVER_CORE):
                count, start, cpu = 0, time.perf_counter(), time.process_time()
                while time.perf_counter() - start < self._seconds:
                    best(plain.body)
                    count += 1
                seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
            self._milliseconds[name].append(cpu / count * 1e3)
            return count / seconds

        return rate

    def served(self, name: str, server: ServerProcess, question: Question) -> Callable[[], float]:
        """wrk on the other core."""

        def rate() -> float:
            cpu = server.cpu_seconds()
            result = saturate(server.port, question, self._seconds)
            self._milliseconds[name].append((server.cpu_seconds() - cpu) / result.answers * 1e3)
            return result.rate

        return rate

    def show(self) -> None:
        """Medians, without the round that warmed up."""
        medians = {name: statistics.median(all_[1:]) for name, all_ in self._milliseconds.items()}
        for name, median in medians.items():
            ratio = median / medians[BASELINE]
            print(f"{name:<14} {median:10.3f} ms of processor   ratio {ratio:.2f}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path, help="a bundle of the 28x28x1 Fashion-MNIST model")
    parser.add_argument("--folder", type=Path, required=True, help="for the photo model and logs")
    parser.add_argument("--seconds", type=int, default=10, help="of one measurement (default: 10)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved (default: 5)")
    parser.add_argument("--server-options", default="", help="further options of serve.http")
    options = parser.parse_args()
    tensor_row(options)
    for size in SIZES:
        photo_row(options, *size)
    return 0


def tensor_row(options: argparse.Namespace) -> None:
    """One image a request, uint8, binary."""
    session, ours = open_session(str(options.model)), lockstep(options.server_options)
    plain = about_tensors(raw("", int), options.model, 1)[0]
    image, costs = np.frombuffer(plain.body, np.uint8).reshape(1, 28, 28, 1), Costs(options.seconds)
    with serving(ours, "tensor", options.model, options.folder) as server:
        question = about_tensors(ours.asks["tensor"][1], options.model, 1)[0]
        contestants = {
            BASELINE: costs.bare(BASELINE, lambda _: session.run(None, {"image": image}), plain),
            "V2, binary": costs.served("V2, binary", server, question),
        }
        print("\nsmall model, one uint8 tensor of 28x28x1")
        compare(contestants, baseline=BASELINE, rounds=options.rounds, unit="requests/s")
    costs.show()


def photo_row(options: argparse.Namespace, width: int, height: int) -> None:
    """JPEGs of one size to the 224x224 model. The baseline reads them with Lockstep's reader."""
    model = photo_model(options.folder)
    session, spec = open_session(str(model)), Classifier(model, threads=1).document.image

    def same_reader(content: bytes) -> int:
        return int(session.run(None, {"image": read_image(content, spec)[None]})[0].argmax())

    def plain_pillow(content: bytes) -> int:
        pixels = read_photo(content, shrink=False)[None]
        return int(session.run(None, {"image": pixels})[0].argmax())

    plain = about_photos(raw("", int), model, width, height, 1)[0]
    if same_reader(plain.body) != plain.expected:
        raise RuntimeError("expected the same class from both readers")
    ours, costs = lockstep(options.server_options), Costs(options.seconds)
    contestants = {
        BASELINE: costs.bare(BASELINE, same_reader, plain),
        "plain Pillow": costs.bare("plain Pillow", plain_pillow, plain),
    }
    with serving(ours, "photo", model, options.folder) as server:
        for name, row in (("POST /predict", "photo"), ("V2, binary", "photo-v2")):
            question = about_photos(ours.asks[row][1], model, width, height, 1)[0]
            contestants[name] = costs.served(name, server, question)
        print(f"\n224x224 model, JPEG of {width}x{height}, {len(plain.body) // 1024} KiB")
        compare(contestants, baseline=BASELINE, rounds=options.rounds, unit="images/s")
    costs.show()


if __name__ == "__main__":
    sys.exit(main())
