"""One version of a model while it is served: how it is opened, called, counted and let go."""

import asyncio
import dataclasses
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter

from serve.bundle import BundleError
from serve.classifier import Classifier
from serve.description import Description
from serve.http import metrics
from serve.http.batcher import SLICE, Batcher, Images, Plan, Timing
from serve.http.limits import Limits, Memory
from serve.http.statistics import Statistics
from serve.http.tuning import Trial, Wishes, call_seconds, tune
from serve.images import ImageError, read_image
from serve.multi_label import MULTI_LABEL
from serve.probabilities import are_shares, sums_to_one

QUEUE_SECONDS = 0.1
"""Work that may wait, where the user sets no other bound: nobody waits much longer than this."""

FEWEST_QUEUED = 64

SLOWER, NOTICED = 5, 0.005
"""A call that takes so many times as long as the plan says, and so many seconds, needs another."""


@dataclasses.dataclass(frozen=True)
class Opened:
    """A model that was checked, measured and warmed up.

    Attributes:
        trials: what was measured; empty if the plan is that of an earlier version.
    """

    classifier: Classifier
    plan: Plan
    trials: Sequence[Trial] = ()


def open_model(
    path: Path,
    description: Description | None,
    wishes: Wishes,
    plan: Plan | None = None,
    *,
    thresholds: Sequence[float] = (),
) -> Opened:
    """Open a file and prove that it answers; takes up to a second.

    Args:
        plan: how an earlier version runs, so that nothing is measured while others are served,
            unless this version is much slower.
        thresholds: as in `Classifier`.

    Raises:
        BundleError: it is no model, or its answers are no probabilities.
    """

    def open_classifier(threads: int) -> Classifier:
        return Classifier(path, threads=threads, description=description, thresholds=thresholds)

    opened = Opened(open_classifier(plan.threads), plan) if plan else None
    if opened is None or not _fits(opened):
        opened = Opened(*tune(open_classifier, wishes))
    for size in {1, opened.plan.batch}:
        shape = (size, *opened.classifier.document.image.shape)
        answers = opened.classifier.predict(np.zeros(shape, np.uint8))
        _check(answers, opened.classifier)
    return opened


def _check(answers: NDArray[np.float32], classifier: Classifier) -> None:
    if classifier.document.task == MULTI_LABEL:
        if not are_shares(answers):
            raise BundleError(f"{classifier.path}: expected probabilities between 0 and 1")
    elif not sums_to_one(answers):
        raise BundleError(
            f"{classifier.path}: expected probabilities that sum to 1 for every image"
        )


def _fits(opened: Opened) -> bool:
    """Whether a model is about as quick as its plan says. Other models may be busy meanwhile: the
    best of some calls counts."""
    plan = opened.plan
    images = np.zeros((plan.batch, *opened.classifier.document.image.shape), np.uint8)
    planned = plan.seconds_per_image * plan.callers * plan.batch
    most = max(SLOWER * planned, NOTICED)
    return any(call_seconds(opened.classifier, images) <= most for _ in range(3))


class Served:
    """A version that answers.

    Attributes:
        name, version: as clients say them.
        document: what the bundle says of itself.
    """

    def __init__(
        self,
        name: str,
        version: int,
        opened: Opened,
        *,
        limits: Limits,
        memory: Memory,
        threads: ThreadPoolExecutor,
        max_queue: int | None = None,
    ) -> None:
        self.name, self.version = name, str(version)
        self.classifier, self.plan = opened.classifier, opened.plan
        self.document = opened.classifier.document
        self.statistics = Statistics()
        self._memory, self._threads = memory, threads
        spec = self.document.image
        self._spec = dataclasses.replace(spec, max_pixels=limits.max_pixels or spec.max_pixels)
        by_time = max(FEWEST_QUEUED, round(QUEUE_SECONDS / self.plan.seconds_per_image))
        self._batcher = Batcher(
            self.classifier.predict, self.plan, max_queue or by_time, threads, self._observe_call
        )
        self._image_size = math.prod(spec.shape)
        self._retired = False
        label = (name, self.version)
        self._stages = {
            stage: metrics.stage_seconds.labels(*label, stage) for stage in metrics.STAGES
        }
        self._outcomes: dict[str, Counter] = {}
        self._batch_images = metrics.batch_images.labels(*label)
        self._images = metrics.images.labels(*label)
        self._queue_images = metrics.queue_images.labels(*label)

    @property
    def max_queue(self) -> int:
        return self._batcher.max_queue

    @property
    def pending(self) -> int:
        """Images that wait or are computed."""
        return self._batcher.pending

    def check_room(self) -> None:
        """Raises HttpError: 429; not even one more image can be taken."""
        self._batcher.check_room(1)

    def admitted(self, images: int) -> "_Admitted":
        """There is room and memory for a request of so many images, until the end of the block.

        Raises:
            HttpError: 429 or 503.
        """
        self._batcher.check_room(images)
        self._memory.take(images * self._image_size)
        self._batcher.pending += images
        return _Admitted(self, images)

    def release(self, images: int) -> None:
        """A request that was admitted is over."""
        self._memory.give(images * self._image_size)
        self._batcher.pending -= images
        if self._retired:
            self.report()  # nobody else does any more

    async def decode(self, images: Sequence[bytes], timing: Timing) -> list[Images | ImageError]:
        """Read encoded images, side by side; each gets its pixels or the reason why not."""
        started = time.perf_counter()
        loop = asyncio.get_running_loop()
        found: list[Images | ImageError] = []
        for first in range(0, len(images), SLICE):  # others get their turn in between
            part = images[first : first + SLICE]
            found += await asyncio.gather(
                *(loop.run_in_executor(self._threads, self._read, image) for image in part)
            )
        timing.decoding = time.perf_counter() - started
        self._stages["decode"].observe(timing.decoding)
        return found

    def _read(self, image: bytes) -> Images | ImageError:
        try:
            return read_image(image, self._spec)
        except ImageError as error:
            return error

    async def predict(self, images: Images, priority: int, timing: Timing) -> NDArray[np.float32]:
        """Probabilities `[batch, classes]` of uint8 `[batch, height, width, channels]`."""
        answer = await self._batcher.predict(images, priority, timing)
        self._stages["queue"].observe(timing.started - timing.queued)
        self._stages["compute"].observe(timing.finished - timing.started)
        self._images.inc(len(images))
        self.statistics.add("queue", timing.started - timing.queued)
        self.statistics.add("compute_input", timing.decoding)
        self.statistics.add("compute_infer", timing.finished - timing.started)
        return answer

    def report(self) -> None:
        """Tell the metrics what changes too often to tell each time."""
        self._queue_images.set(self.pending)

    def count(self, outcome: str, seconds: float) -> None:
        """Count a request that was answered, one way or another."""
        if outcome not in self._outcomes:
            labels = (self.name, self.version, outcome)
            self._outcomes[outcome] = metrics.requests.labels(*labels)
        self._outcomes[outcome].inc()
        self.statistics.add("success" if outcome == "ok" else "fail", seconds)

    def _observe_call(self, size: int, seconds: float) -> None:
        self._batch_images.observe(size)
        self.statistics.add_call(size, seconds)

    def retire(self) -> None:
        """Nobody new will ask it; who asked already gets an answer."""
        self._retired = True
        self.report()


class _Admitted:
    """Releases in the end; a context manager made of a generator would cost five times as much."""

    __slots__ = ("_images", "_served")

    def __init__(self, served: Served, images: int) -> None:
        self._served, self._images = served, images

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exception: object) -> None:
        self._served.release(self._images)
