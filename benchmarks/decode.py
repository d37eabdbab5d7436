"""Reading large JPEGs with the decoder's own shrinking (`scaled_decode`) against without it.

python benchmarks/decode.py
python benchmarks/decode.py --run runs/fashion-mnist
python benchmarks/decode.py --run runs/fashion-mnist --train
"""

import argparse
import dataclasses
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import sklearn
from numpy.typing import NDArray
from PIL import Image
from rounds import compare

from export.prepared_data import PreparedData, evenly_spaced
from export.run_directory import RunDirectory
from serve.classifier import Classifier
from serve.image_spec import ImageSpec
from serve.images import read_image, to_pillow

Pixels = NDArray[np.uint8]

PHOTOS = Path(sklearn.__file__).parent / "datasets" / "images"
SIZES = ((4000, 3000), (1600, 1200))
TARGETS = (224, 96)
TRAINED = 6000
ENLARGED = 448
"""Side of the test images of a run once enlarged, in pixels."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved passes (default: 5)")
    parser.add_argument("--run", type=Path, help="a finished run: label its enlarged test images")
    parser.add_argument("--train", action="store_true", help="also train on enlarged images")
    parser.add_argument("--images", type=int, default=1000, help="of them (default: 1000)")
    options = parser.parse_args()
    for size in SIZES:
        photos = make_photos(*size)
        megabytes = sum(map(len, photos)) / len(photos) / 1e6
        print(f"{size[0]}x{size[1]}, {len(photos)} photos of {megabytes:.1f} MB, one thread")
        for side in TARGETS:
            print(f"\nto {side}x{side}")
            measure(photos, ImageSpec(side, side, 3), options.rounds)
        print()
    if options.run:
        measure_accuracy(RunDirectory(options.run), options.images)
    if options.run and options.train:
        train_both_ways(RunDirectory(options.run))


def make_photos(width: int, height: int) -> list[bytes]:
    """scikit-learn's two photos enlarged, with a little noise as a sensor has it."""
    generator = np.random.default_rng(0)
    photos = []
    for name in ("china.jpg", "flower.jpg"):
        with Image.open(PHOTOS / name) as image:
            large = image.resize((width, height), Image.Resampling.LANCZOS)
        noisy = np.asarray(large) + generator.normal(0, 3, (height, width, 3))
        photos.append(encode_jpeg(Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))))
    return photos


def encode_jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def on_and_off(spec: ImageSpec) -> dict[str, ImageSpec]:
    return {
        "full decode": dataclasses.replace(spec, scaled_decode=False),
        "scaled decode": dataclasses.replace(spec, scaled_decode=True),
    }


def measure(photos: list[bytes], spec: ImageSpec, rounds: int) -> None:
    """Speed and pixels of both, for one target."""

    def rate(spec: ImageSpec) -> Callable[[], float]:
        def timed() -> float:
            start = time.perf_counter()
            for photo in photos:
                read_image(photo, spec)
            return len(photos) / (time.perf_counter() - start)

        return timed

    specs = on_and_off(spec)
    compare(
        {name: rate(spec) for name, spec in specs.items()},
        baseline="full decode",
        rounds=rounds,
        unit="images/s",
    )
    full, scaled = (read_all(photos, spec) for spec in specs.values())
    print_difference(full, scaled)


def read_all(photos: list[bytes], spec: ImageSpec) -> Pixels:
    return np.stack([read_image(photo, spec) for photo in photos])


def print_difference(full: Pixels, scaled: Pixels) -> None:
    away = np.abs(scaled.astype(np.int64) - full)
    print(f"pixels differ by {away.mean():.2f} grey steps in the mean, {away.max()} at most")


def measure_accuracy(run: RunDirectory, count: int) -> None:
    """Label the same enlarged images, read with and without scaled decode."""
    data = PreparedData.open(run.data)
    indices = evenly_spaced(data.indices("test"), count)
    photos = [enlarge(data.images[index]) for index in indices]
    classifier = Classifier(run.bundle)
    print(f"{run.bundle}: {len(photos)} test images as JPEG of {ENLARGED}x{ENLARGED}")

    def labels(images: Pixels) -> NDArray[np.int64]:
        return classifier.predict(images).argmax(axis=1)

    specs = on_and_off(classifier.document.image)
    images = {name: read_all(photos, spec) for name, spec in specs.items()}
    print_difference(*images.values())
    found = {name: labels(pixels) for name, pixels in images.items()}
    for name, given in {"as prepared": labels(data.images[indices]), **found}.items():
        print(f"{name:<14} accuracy {(given == data.labels[indices]).mean():.4f}")
    equal = (found["full decode"] == found["scaled decode"]).mean()
    print(f"same label with full and scaled decode: {equal:.2%}")


def train_both_ways(run: RunDirectory) -> None:
    """Test accuracy of small models that were trained and tested on enlarged images of a run."""
    data = PreparedData.open(run.data)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "enlarged")
        for split, count in (("train", TRAINED), ("test", TRAINED // 4)):
            for index in evenly_spaced(data.indices(split), count):
                path = root / split / data.manifest.class_names[data.labels[index]]
                path.mkdir(parents=True, exist_ok=True)
                (path / f"{index}.jpg").write_bytes(enlarge(data.images[index]))
        spec = data.manifest.image_spec()
        print(f"\ntrained on {TRAINED} JPEGs of {ENLARGED}x{ENLARGED}, tested on {TRAINED // 4}")
        for name, value in (("full decode", "false"), ("scaled decode", "true")):
            accuracies = []
            for seed in range(3):
                finished = Path(folder, f"{value}{seed}")
                options = {
                    "data": f"folder:{root}",
                    "run-dir": str(finished),
                    "seed": str(seed),
                    "prepare.image_size": f"[{spec.height}, {spec.width}]",
                    "prepare.channels": str(spec.channels),
                    "prepare.scaled_decode": value,
                    "model.filters": "[32, 64]",
                    "train.epochs": "8",
                    "quantize.enabled": "false",
                    "verify.max_examples": "100",
                }
                arguments = [text for key, item in options.items() for text in (f"--{key}", item)]
                command = [sys.executable, "-m", "pipeline.run", *arguments]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                accuracies.append(
                    json.loads(RunDirectory(finished).metrics.read_bytes())["accuracy"]
                )
            shown = ", ".join(f"{accuracy:.4f}" for accuracy in accuracies)
            print(f"{name:<14} accuracy {shown} (mean {statistics.mean(accuracies):.4f})")


def enlarge(pixels: Pixels) -> bytes:
    return encode_jpeg(to_pillow(pixels).resize((ENLARGED, ENLARGED), Image.Resampling.BICUBIC))


if __name__ == "__main__":
    main()
