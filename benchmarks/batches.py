"""Training images per second, plain and under each augmentation, against those of training steps.

python benchmarks/batches.py
"""

import argparse
import os
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from rounds import compare

import models
from models.options import CnnOptions
from pipeline.config import AugmentOptions
from pipeline.input.batches import Examples, training_batches
from pipeline.options.augment import alone, telling

BATCH = 128
SIDE = 28
CONTESTANTS = {
    "plain": AugmentOptions(),
    **{name: alone(telling(SIDE, SIDE), name) for name in AugmentOptions.model_fields},
    "crop and flip": AugmentOptions(crop_padding=2, horizontal_flip=True),
    "all": telling(SIDE, SIDE),
}
"""Nothing, each augmentation alone, those of the Fashion-MNIST recipe, and all at once."""


def read_all(dataset: tf.data.Dataset) -> float:
    """Images per second over the whole data set, the first batch left out."""
    iterator = iter(dataset)
    next(iterator)
    start, count = time.perf_counter(), 0
    for images, _ in iterator:
        count += len(images)
    return count / (time.perf_counter() - start)


def train(examples: Examples) -> float:
    """Images per second of the Fashion-MNIST recipe's model on one batch, over and over."""
    options = CnnOptions(convolutions=[1, 1, 2])
    channels = examples.images.shape[-1]
    model = models.build(
        options, examples.images.shape[1:], 10, mean=[0.3] * channels, std=[0.35] * channels
    )
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    images, labels = examples.images[:BATCH], np.eye(10)[examples.labels[:BATCH]]
    model.train_on_batch(images, labels)
    start = time.perf_counter()
    for _ in range(20):
        model.train_on_batch(images, labels)
    return 20 * BATCH / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=20_000, help="per pass (default: 20000)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved passes (default: 5)")
    parser.add_argument("--channels", type=int, choices=(1, 3), default=1, help="(default: 1)")
    options = parser.parse_args()
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (options.images, SIDE, SIDE, options.channels), np.uint8)
    labels = generator.integers(0, 10, options.images)
    examples = Examples(images, labels, np.arange(options.images), 10)

    def batches(augmentation: AugmentOptions) -> Callable[[], float]:
        return lambda: read_all(
            training_batches(
                examples, batch_size=BATCH, epochs=1, seed=0, augmentation=augmentation
            )
        )

    print(
        f"{SIDE}x{SIDE}x{options.channels}, batches of {BATCH}, medians of {options.rounds} rounds"
    )
    compare(
        {
            "training": lambda: train(examples),
            **{name: batches(augmentation) for name, augmentation in CONTESTANTS.items()},
        },
        baseline="training",
        rounds=options.rounds,
        unit="images/s",
    )


if __name__ == "__main__":
    main()
