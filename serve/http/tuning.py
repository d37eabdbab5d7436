"""Which batch size and how many threads serve a model best on this machine? Measured at start.

A small network on a CPU gains little from a batch, and several single-threaded calls side by side
often beat one call on all cores; a large one is different. So it is tried: every split of the cores
into callers and threads, with batches that grow for as long as they gain something.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serve.classifier import Classifier
from serve.http.batcher import SLICE, TURN, Plan

BATCHES = (1, 2, 4, 8, 16, 32)
SECONDS = 0.6
"""About how long the search takes for one model."""

SAMPLE, MOST_CALLS = 0.03, 50
"""Seconds, and calls, after which a setting is known."""

CLOSE = 0.9
"""Share of the best throughput that is as good as the best: among such, the shortest latency."""


@dataclass(frozen=True)
class Wishes:
    """What the user decided; None is to be found out.

    Attributes:
        batch: images of different requests in one call; 1 is no batching.
        threads: within one call.
        cores: how many may be used.
        max_delay: in seconds.
    """

    batch: int | None = None
    threads: int | None = None
    cores: int = 1
    max_delay: float = 0.0


@dataclass(frozen=True)
class Trial:
    """One setting, measured.

    Attributes:
        latency: median seconds of a call with a full batch while all callers call.
    """

    threads: int
    callers: int
    batch: int
    latency: float

    @property
    def throughput(self) -> float:
        """Images per second."""
        return self.callers * self.batch / self.latency


def available_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def tune(
    open_classifier: Callable[[int], Classifier], wishes: Wishes
) -> tuple[Classifier, Plan, list[Trial]]:
    """Open a model the way it serves best.

    Args:
        open_classifier: opens it with so many threads.

    Returns:
        The classifier, how to call it, and everything that was tried, in order.
    """
    splits = _splits(wishes)
    opened: dict[int, Classifier] = {}
    trials: list[Trial] = []
    for threads, callers in splits:
        opened[threads] = open_classifier(threads)
        trials += _trials(opened[threads], callers, threads, wishes, SECONDS / len(splits))
    best = max(trial.throughput for trial in trials)
    good = [trial for trial in trials if trial.throughput >= CLOSE * best]
    chosen = min(good, key=lambda trial: trial.latency)
    plan = Plan(
        threads=chosen.threads,
        callers=chosen.callers,
        batch=chosen.batch,
        max_delay=wishes.max_delay,
        inline=wishes.cores == 1 and SLICE / chosen.throughput <= 2 * TURN,
        seconds_per_image=1 / chosen.throughput,
    )
    return opened[chosen.threads], plan, trials


def _splits(wishes: Wishes) -> list[tuple[int, int]]:
    """Threads in a call, and calls at a time."""
    if wishes.threads:
        return [(wishes.threads, max(1, wishes.cores // wishes.threads))]
    return sorted({(1, wishes.cores), (wishes.cores, 1)})


def _trials(
    classifier: Classifier, callers: int, threads: int, wishes: Wishes, seconds: float
) -> Iterator[Trial]:
    end = time.perf_counter() + seconds
    best = 0.0
    with ThreadPoolExecutor(callers) as pool:
        for batch in BATCHES if wishes.batch is None else (wishes.batch,):
            shape = (batch, *classifier.document.image.shape)
            images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
            calls = [pool.submit(_latency, classifier, images) for _ in range(callers)]
            latency = statistics.fmean(call.result() for call in calls)
            trial = Trial(threads, callers, batch, latency)
            yield trial
            # The next is about twice as long.
            too_long = time.perf_counter() + 2 * max(SAMPLE, 4 * latency) > end
            if too_long or trial.throughput < 0.95 * best:
                return
            best = max(best, trial.throughput)


def _latency(classifier: Classifier, images: NDArray[np.uint8]) -> float:
    """Median seconds of a call."""
    classifier.predict(images)  # the first one allocates
    times: list[float] = []
    while not times or (sum(times) < SAMPLE and len(times) < MOST_CALLS):
        started = time.perf_counter()
        classifier.predict(images)
        times.append(time.perf_counter() - started)
    return statistics.median(times)
