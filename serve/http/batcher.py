"""Dynamic batching: images of several requests in one call of the model, and every request alone.

A request waits in one bounded queue per model, ordered by priority and then by arrival. Whoever is
free takes what waits, up to a batch, from one request or from many; a large request is taken in
slices, so that it holds up nobody for long. A batch that fails is run again request by request:
only the one that made it fail gets the error. What nobody waits for any more is not computed.
"""

import asyncio
import heapq
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from serve.http.messages import busy

SLICE = 32
"""Images of one request that are computed in one call, at most."""

TURN = 0.01
"""Seconds that the model may keep the event loop, where it runs in it."""

Images = NDArray[np.uint8]
Probabilities = NDArray[np.float32]
Predict = Callable[[Images], Probabilities]


@dataclass(frozen=True)
class Plan:
    """How a model is run on this machine.

    Attributes:
        threads: within one call of the model.
        callers: calls at the same time.
        batch: images of different requests in one call, at most; 1 never mixes requests.
        max_delay: seconds that a request waits for others to fill its batch.
        inline: call the model in the event loop: on a single core, handing over to a thread costs
            more than it gains.
        seconds_per_image: measured; tells a refused client when to come back.
    """

    threads: int = 1
    callers: int = 1
    batch: int = 1
    max_delay: float = 0.0
    inline: bool = False
    seconds_per_image: float = 0.001


@dataclass(slots=True, order=True)
class _Job:
    """A request in the queue; smaller goes first."""

    priority: int
    number: int
    images: Images = field(compare=False)
    future: "asyncio.Future[Probabilities]" = field(compare=False)
    timing: "Timing" = field(compare=False)
    taken: int = field(default=0, compare=False)
    done: int = field(default=0, compare=False)
    answer: Probabilities | None = field(default=None, compare=False)


@dataclass(slots=True)
class Timing:
    """When a request got where, in seconds of `time.perf_counter`; `decoding` is a duration."""

    decoding: float = 0.0
    queued: float = 0.0
    started: float = 0.0
    finished: float = 0.0

    def stages(self) -> dict[str, float]:
        """Seconds in each stage."""
        return {
            "decode": self.decoding,
            "queue": self.started - self.queued,
            "compute": self.finished - self.started,
        }


@dataclass(slots=True)
class _Slice:
    job: _Job
    start: int
    stop: int

    @property
    def images(self) -> Images:
        return self.job.images[self.start : self.stop]


_Result = Probabilities | Exception


class Batcher:
    """The queue of one model, and those who empty it.

    Args:
        predict: images to probabilities; safe to call from several threads.
        max_queue: images that may wait or be computed; a request that comes to an empty queue is
            always taken.
        observe: told the size and the seconds of every call of the model.

    Attributes:
        pending: images of requests that were admitted and are not answered.
    """

    def __init__(
        self,
        predict: Predict,
        plan: Plan,
        max_queue: int,
        observe: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        self.plan = plan
        self.max_queue = max_queue
        self.pending = 0
        self._predict = predict
        self._observe = observe
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._heap: list[_Job] = []
        self._waiting = 0
        self._number = 0
        self._due = 0.0
        self._free = 1 if plan.inline else plan.callers
        self._pool = None if plan.inline else ThreadPoolExecutor(plan.callers, "model")
        self._turn_ended = 0.0

    def check_room(self, images: int) -> None:
        """Raises HttpError: 429; the queue is too full for a request of so many images."""
        if self.pending and self.pending + images > self.max_queue:
            seconds = self.pending * self.plan.seconds_per_image
            raise busy(429, f"the queue is full: {self.pending} images wait", seconds)

    async def predict(self, images: Images, priority: int, timing: Timing) -> Probabilities:
        """Probabilities of a request's images, whatever else is computed with them.

        Raises:
            BundleError: the model fails on these images.
        """
        job = _Job(priority, self._number, images, self._loop.create_future(), timing)
        self._number += 1
        timing.queued = time.perf_counter()
        with self._lock:
            if not self._heap:
                self._due = timing.queued + self.plan.max_delay
                if self.plan.max_delay:
                    self._loop.call_later(self.plan.max_delay, self._start)
            heapq.heappush(self._heap, job)
            self._waiting += len(images)
        self._start()
        return await job.future

    def close(self) -> None:
        """Let go of the threads, once what they compute is done."""
        if self._pool:
            self._pool.shutdown(wait=False)

    def _start(self) -> None:
        """Have somebody who is free empty the queue."""
        with self._lock:
            if not self._free or not self._heap or not self._is_due():
                return
            self._free -= 1
        if self._pool:
            self._pool.submit(self._work)
        else:
            self._loop.call_soon(self._work_inline)

    def _is_due(self) -> bool:
        return self._waiting >= self.plan.batch or time.perf_counter() >= self._due

    def _work(self) -> None:
        """In a thread: batches, until nothing is left to do."""
        while slices := self._take():
            self._loop.call_soon_threadsafe(self._deliver, slices, *self._run(slices))

    def _work_inline(self) -> None:
        """In the event loop: batches, for as long as everything else took since the last turn, so
        that neither refusals nor answers starve."""
        begun = time.perf_counter()
        turn = min(begun - self._turn_ended, TURN)
        while slices := self._take():
            self._deliver(slices, *self._run(slices))
            self._turn_ended = time.perf_counter()
            if self._turn_ended - begun >= turn:
                self._loop.call_soon(self._work_inline)
                return

    def _take(self) -> list[_Slice]:
        """The next batch. Whoever gets an empty one is free, and is counted so."""
        slices: list[_Slice] = []
        with self._lock:
            if self._heap and self._is_due():
                size, most = 0, max(self.plan.batch, SLICE)
                while self._heap:
                    job = self._heap[0]
                    if job.future.done():  # expired, given up, or failed in an earlier slice
                        heapq.heappop(self._heap)
                        self._waiting -= len(job.images) - job.taken
                        continue
                    stop = min(len(job.images), job.taken + most - size)
                    if stop <= job.taken:
                        break
                    slices.append(_Slice(job, job.taken, stop))
                    size += stop - job.taken
                    self._waiting -= stop - job.taken
                    job.taken = stop
                    if stop == len(job.images):
                        heapq.heappop(self._heap)
                    most = self.plan.batch  # only one request of its own may be larger
                self._due = 0.0  # what is left has waited while this batch filled
            if not slices:
                self._free += 1
        return slices

    def _run(self, slices: Sequence[_Slice]) -> tuple[list[_Result], float]:
        """A result for each slice, and how long they took together."""
        started = time.perf_counter()
        for part in slices:
            part.job.timing.started = part.job.timing.started or started
        results = self._answers(slices)
        finished = time.perf_counter()
        for part in slices:
            part.job.timing.finished = finished
        return results, finished - started

    def _answers(self, slices: Sequence[_Slice]) -> list[_Result]:
        try:
            if len(slices) == 1:
                return [self._predict(slices[0].images)]
            together = self._predict(np.concatenate([part.images for part in slices]))
        except Exception as error:  # noqa: BLE001 (raised again where somebody waits for it)
            if len(slices) == 1:
                return [error]
            return [result for part in slices for result in self._answers([part])]
        results: list[_Result] = []
        position = 0
        for part in slices:
            size = part.stop - part.start
            results.append(together[position : position + size])
            position += size
        return results

    def _deliver(
        self, slices: Sequence[_Slice], results: Sequence[_Result], seconds: float
    ) -> None:
        self._observe(sum(part.stop - part.start for part in slices), seconds)
        for part, result in zip(slices, results, strict=True):
            job = part.job
            if job.future.done():
                continue
            if isinstance(result, Exception):
                job.future.set_exception(result)
                continue
            if len(result) == len(job.images):
                job.future.set_result(result)
                continue
            if job.answer is None:
                job.answer = np.empty((len(job.images), result.shape[1]), np.float32)
            job.answer[part.start : part.stop] = result
            job.done += part.stop - part.start
            if job.done == len(job.images):
                job.future.set_result(job.answer)
