"""How long do models take? Measured in turns, so that a busy machine troubles all of them alike."""

import statistics
import time
from collections.abc import Mapping

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from serve.bundle import INPUT, OUTPUT

FEWEST_ROUNDS, MOST_ROUNDS = 5, 2000
SECONDS = 2.0
"""About how long the models are measured."""


def latency(
    contestants: Mapping[str, onnxruntime.InferenceSession], images: NDArray[np.uint8]
) -> dict[str, float]:
    """Median latency of each session on one batch, in milliseconds.

    Single runs alternate, so that whatever else the machine does meets both in the same way.

    Args:
        images: uint8 `[batch, height, width, channels]`.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for contestant in contestants.values():  # the first run allocates
        contestant.run([OUTPUT], {INPUT: images})
    end = time.perf_counter() + SECONDS
    for number in range(MOST_ROUNDS):
        if number >= FEWEST_ROUNDS and time.perf_counter() > end:
            break
        for name, contestant in contestants.items():
            started = time.perf_counter()
            contestant.run([OUTPUT], {INPUT: images})
            times[name].append(time.perf_counter() - started)
    return {name: 1000 * statistics.median(values) for name, values in times.items()}
