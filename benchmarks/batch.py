"""The batch command's loop against a bare loop of Pillow + onnxruntime on the same files.

python benchmarks/batch.py runs/fashion-mnist
python benchmarks/batch.py runs/fashion-mnist --photos 200
"""

import argparse
import io
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image
from rounds import compare

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
        measure(options, Path(folder))


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


def measure(options: argparse.Namespace, folder: Path) -> None:
    """Both on the same files."""
    run = RunDirectory(options.run_dir)
    data = PreparedData.open(run.data)
    paths = [str(data.proof_path(file)) for file in data.manifest.proof_files][: options.images]
    if options.photos:
        paths = make_photos(folder, options.photos)
    shape = data.manifest.image_spec().shape
    workers = os.cpu_count() or 1

    def rate(work: Callable[[], None]) -> Callable[[], float]:
        def timed() -> float:
            start = time.perf_counter()
            work()
            return len(paths) / (time.perf_counter() - start)

        return timed

    print(f"{len(paths)} files, batches of 32, medians of {options.rounds} rounds")
    compare(
        {
            "bare loop": rate(lambda: bare_loop(run.bundle, paths, 32, shape)),
            "batch command": rate(lambda: batch_command(run.bundle, paths, 32, workers)),
        },
        baseline="bare loop",
        rounds=options.rounds,
        unit="images/s",
    )


if __name__ == "__main__":
    main()
