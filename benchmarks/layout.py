"""Bundles that change the layout of the pixels before they scale them, against after.

python benchmarks/layout.py
"""

import argparse
import time
from collections.abc import Callable

import keras
import numpy as np
import onnx
import onnxruntime
import tensorflow as tf
from rounds import compare

import models
from export.channels_first import put_channels_first
from export.serving_function import serving_function
from export.to_onnx import from_function
from models.options import CnnOptions
from serve.bundle import INPUT

BATCHES = (1, 32)
SECONDS = 0.5
"""Of one measurement."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=9, help="interleaved passes (default: 9)")
    rounds = parser.parse_args().rounds
    cnn = models.build(CnnOptions(), (28, 28, 1), 10, mean=[0.3], std=[0.3])
    measure("cnn, 28x28x1", cnn, rounds)
    measure("MobileNetV2, 224x224x3", mobilenet(), rounds)


def mobilenet() -> keras.Model:
    image = keras.Input((224, 224, 3), dtype="uint8")
    scaled = keras.layers.Rescaling([1 / 127.5] * 3, [-1.0] * 3)(image)
    network = keras.applications.MobileNetV2(weights=None, classifier_activation=None)
    return keras.Model(image, network(scaled))


def measure(name: str, model: keras.Model, rounds: int) -> None:
    """Print images per second on one thread, and whether the answers are the same."""
    shape = model.input_shape[1:]
    after = from_function(
        serving_function(model), [tf.TensorSpec([None, *shape], tf.uint8, name=INPUT)]
    )
    before = onnx.ModelProto()
    before.CopyFrom(after)
    put_channels_first(before.graph, shape)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = {
        order: onnxruntime.InferenceSession(
            graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        for order, graph in (("after", after), ("before", before))
    }
    for batch in BATCHES:
        images = np.random.default_rng(0).integers(0, 256, (batch, *shape), np.uint8)
        answers = [session.run(None, {INPUT: images})[0] for session in sessions.values()]
        equal = "same bits" if np.array_equal(*answers) else "OTHER ANSWERS"
        print(f"\n{name}, batches of {batch}, one thread: {equal}")
        compare(
            {order: rate(session, images) for order, session in sessions.items()},
            baseline="after",
            rounds=rounds,
            unit="images/s",
        )


def rate(session: onnxruntime.InferenceSession, images: np.ndarray) -> Callable[[], float]:
    def timed() -> float:
        start, count = time.perf_counter(), 0
        while time.perf_counter() < start + SECONDS:
            session.run(None, {INPUT: images})
            count += len(images)
        return count / (time.perf_counter() - start)

    return timed


if __name__ == "__main__":
    main()
