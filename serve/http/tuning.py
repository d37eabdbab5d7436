"""Which batch size and how many threads serve a model best on this machine? Measured at start.

A small network on a CPU gains little from a batch, and several single-threaded calls side by side
often beat one call on all cores; a large one is different. So it is tried: some splits of the cores
into callers and threads, with batches that grow for as long as they gain something. A model that is
so slow that there is no time to try gets all cores in each call.
"""

import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serve.classifier import Classifier
from serve.http.batcher import SLICE, Plan

CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")
"""A container's share: microseconds in a period of microseconds, or "max"."""

BATCHES = (1, 2, 4, 8, 16, 32)
SECONDS = 0.6
"""About how long the search takes for one model."""

MOST_SECONDS = 1.0
"""No further split of the cores is tried that would end later."""

SAMPLE, FEWEST_CALLS, MOST_CALLS = 0.03, 5, 50
"""Seconds, and calls, after which a setting is known."""

LONG = 0.2
"""Seconds after which even a single call must do."""

SHORT = 0.02
"""Seconds that a full slice may take at most to be computed in the event loop."""

CALL_SECONDS = 5e-5
"""What the batcher itself needs for a call, whatever its size; it makes small batches pay."""

CLOSE = 0.9
"""Share of the best throughput that is as good as the best: among such splits of the cores, the one
with the shortest latency is taken."""

CLOSE_BATCH = 0.97
"""The same for batches, of which the smallest is taken. It is a bound: at little load they stay
smaller by themselves."""


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
        """Images per second, with what it costs to bring a call about."""
        return self.callers * self.batch / (self.latency + CALL_SECONDS)


def available_cores() -> int:
    """Cores that this process may use, as its affinity and its container (cgroup 2) say."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cores = len(os.sched_getaffinity(0))
    if CPU_LIMIT.is_file():
        quota, period = CPU_LIMIT.read_text("ascii").split()
        if quota != "max":
            cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(1, cores)


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
    end = time.perf_counter() + MOST_SECONDS
    single = 0.0  # seconds of a call, times its threads: of a call with one thread, at most
    for threads, callers in splits:
        if time.perf_counter() + single / threads > end:
            break
        opened[threads] = open_classifier(threads)
        found = list(_trials(opened[threads], callers, threads, wishes, SECONDS / len(splits)))
        trials += found
        single = found[0].latency * threads
    threads = min(_close_to_best(trials, CLOSE), key=lambda trial: trial.latency).threads
    same = [trial for trial in trials if trial.threads == threads]
    chosen = min(_close_to_best(same, CLOSE_BATCH), key=lambda trial: trial.batch)
    plan = Plan(
        threads=chosen.threads,
        callers=chosen.callers,
        batch=chosen.batch,
        max_delay=wishes.max_delay,
        inline=wishes.cores == 1 and SLICE / chosen.throughput <= SHORT,
        seconds_per_image=1 / chosen.throughput,
    )
    return opened[chosen.threads], plan, trials


def _close_to_best(trials: Sequence[Trial], share: float) -> list[Trial]:
    best = max(trial.throughput for trial in trials)
    return [trial for trial in trials if trial.throughput >= share * best]


def _splits(wishes: Wishes) -> list[tuple[int, int]]:
    """Threads in a call, most first, and calls at a time."""
    if wishes.threads:
        return [(wishes.threads, max(1, wishes.cores // wishes.threads))]
    some = {1, math.isqrt(wishes.cores), wishes.cores}
    return [(threads, wishes.cores // threads) for threads in sorted(some, reverse=True)]


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
    first = call_seconds(classifier, images)  # allocates, too
    if first >= LONG:
        return first
    times: list[float] = []
    while _wants_more(len(times), sum(times)):
        times.append(call_seconds(classifier, images))
    return statistics.median(times)


def call_seconds(classifier: Classifier, images: NDArray[np.uint8]) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    classifier.predict(images)
    return time.perf_counter() - started


def _wants_more(calls: int, seconds: float) -> bool:
    """One call alone may just have met something else that the machine was doing."""
    if calls < FEWEST_CALLS:
        return not calls or seconds < LONG
    return seconds < SAMPLE and calls < MOST_CALLS
