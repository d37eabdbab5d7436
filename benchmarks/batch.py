"""The batch command's loop against a bare loop of Pillow + onnxruntime on the same files.

python benchmarks/batch.py runs/fashion-mnist
python benchmarks/batch.py runs/fashion-mnist --photos 200
"""

import argparse
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

from export.prepared_data import PreparedData
from export.run_directory import RunDirectory
from serve.batch import predict_files
from serve.classifier import Classifier
from serve.rows import CsvWriter


def bare_loop(bundle: Path, paths: list[str], batch_size: int, shape: tuple[int, int, int]) -> None:
    """What anybody would write first: no checks, no policy, one thread for reading."""
    session = onnxruntime.InferenceSession(str(bundle), providers=["CPUExecutionProvider"])
    mode, size = ("L" if shape[2] == 1 else "RGB"), (shape[1], shape[0])
    for start in range(0, len(paths), batch_size):
        images = [
            np.asarray(Image.open(path).convert(mode).resize(size)).reshape(shape)
            for path in paths[start : start + batch_size]
        ]
        session.run(None, {"image": np.stack(images)})


def batch_command(bundle: Path, paths: list[str], batch_size: int, workers: int) -> None:
    """The loop of `python -m serve.batch`, its output included."""
    classifier = Classifier(bundle)
    names = classifier.document.class_names
    writer = CsvWriter(io.StringIO(), names, top=1, all_probabilities=False)
    for prediction in predict_files(classifier, paths, batch_size=batch_size, workers=workers):
        writer.write(prediction)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run_dir", type=Path, help="a finished run directory")
    parser.add_argument("--images", type=int, default=5000, help="files per pass (default: 5000)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved passes (default: 5)")
    parser.add_argument("--photos", type=int, help="make so many JPEGs of 1600x1200 and use them")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(options, Path(folder))


def make_photos(folder: Path, count: int) -> list[str]:
    """JPEGs with the size and about the detail of photos."""
    generator = np.random.default_rng(0)
    paths = []
    for number in range(count):
        coarse = generator.integers(0, 256, (150, 200, 3), np.uint8)
        path = folder / f"{number}.jpg"
        Image.fromarray(coarse).resize((1600, 1200), Image.Resampling.BICUBIC).save(path)
        paths.append(str(path))
    return paths


def compare(options: argparse.Namespace, folder: Path) -> None:
    """Time both on the same files, interleaved, and print the ratio."""
    run = RunDirectory(options.run_dir)
    data = PreparedData.open(run.data)
    paths = [str(data.proof_path(file)) for file in data.manifest.proof_files][: options.images]
    if options.photos:
        paths = make_photos(folder, options.photos)
    shape = data.manifest.image_spec().shape
    workers = os.cpu_count() or 1
    contestants: dict[str, Callable[[], None]] = {
        "bare loop": lambda: bare_loop(run.bundle, paths, 32, shape),
        "batch command": lambda: batch_command(run.bundle, paths, 32, workers),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(options.rounds + 1):
        for name, contestant in contestants.items():
            start = time.perf_counter()
            contestant()
            if number:  # the first round warms files and libraries up
                seconds[name].append(time.perf_counter() - start)
    baseline = statistics.median(seconds["bare loop"])
    print(f"{len(paths)} files, batches of 32, medians of {options.rounds} rounds")
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name:<14} {len(paths) / median:8.0f} images/s   ratio {baseline / median:.2f}")


if __name__ == "__main__":
    main()
