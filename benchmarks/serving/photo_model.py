"""Photos, and the 224x224 model: MobileNetV2 with random weights, proven by export.bundle.

Random weights are as fast as trained ones. The batch normalizations take their statistics from a
few photos and the last layer is widened, so that the best class of a photo is clear and another
answer is a wrong one.
"""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.serving.onnx_answer import SIDE, read_photo

CLASSES = 1000


def make_photo(seed: int, width: int, height: int) -> bytes:
    """A JPEG of quality 85, about as detailed as a photo: blobs in a tint of its own, and grain."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 128, (height // 8, width // 8, 3))
    coarse += generator.integers(0, 128, 3)
    smooth = Image.fromarray(coarse.astype(np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    grain = generator.normal(0, 4, (height, width, 1))
    stream = io.BytesIO()
    pixels = np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG", quality=85)
    return stream.getvalue()


def photo_model(folder: Path) -> Path:
    """The bundle in this folder; made there if it is missing (a minute).

    Raises:
        subprocess.CalledProcessError: it could not be made.
    """
    place = folder / "mobilenet"
    bundle, images, labels = place / "mobilenet.onnx", place / "images", place / "labels.txt"
    if not bundle.exists():
        images.mkdir(parents=True, exist_ok=True)
        for number in range(8):
            (images / f"{number}.jpg").write_bytes(make_photo(number, 640, 480))
        labels.write_text("".join(f"{number}\n" for number in range(CLASSES)))
        keras_file = str(place / "mobilenet.keras")
        subprocess.run([sys.executable, "-m", __spec__.name, keras_file], check=True)
        command = [sys.executable, "-m", "export.bundle", keras_file, "--labels", str(labels)]
        command += ["--images", str(images), "--image-size", str(SIDE), "--input-range=-1,1"]
        subprocess.run([*command, "--output", str(bundle)], check=True)
    return bundle


def _save_keras(path: Path) -> None:
    import keras  # only here: the benchmarks themselves have no use for TensorFlow

    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNetV2(
        input_shape=(SIDE, SIDE, 3), weights=None, classes=CLASSES, classifier_activation=None
    )
    photos = np.stack([read_photo(make_photo(number, 640, 480)) for number in range(32)])
    normalizations = [
        layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)
    ]
    for layer in normalizations:
        layer.momentum = 0.0
    model(photos.astype(np.float32) / 127.5 - 1, training=True)
    for layer in normalizations:
        layer.momentum = 0.99
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel * 10, bias])
    model.save(path)


if __name__ == "__main__":
    _save_keras(Path(sys.argv[1]))
