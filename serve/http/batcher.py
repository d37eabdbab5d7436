"""Dynamic batching: images of several requests in one call of the model, and every request alone.

A request waits in one bounded queue per model, ordered by priority and then by arrival. Whoever is
free takes what waits, up to a batch, from one request or from many; a large request is taken in
slices, and others get their turn between them. A batch that fails is run again request by request:
only the one that made it fail gets the error. What nobody waits for any more is not computed.
"""

import asyncio
import itertools
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serve.command import one_line
from serve.http.messages import busy

SLICE = 32
"""Images of one request that are computed in one call, at most."""

TURN = 0.05
"""Seconds that the model may keep the event loop, where it runs in it and much else is to do."""

TICK = 0.001
"""Seconds that the timers of uvloop count in. They may ring a tick too early."""

_log = logging.getLogger("lockstep")

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


@dataclass(slots=True, eq=False)
class _Job:
    """A request."""

    priority: int
    images: Images
    future: "asyncio.Future[Probabilities]"
    timing: "Timing"
    taken: int = 0
    done: int = 0
    answer: Probabilities | None = None

    @property
    def left(self) -> int:
        """Images that wait."""
        return len(self.images) - self.taken


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


class _Queue:
    """Requests by priority, lowest number first, and then by arrival.

    Attributes:
        images: that wait.
    """

    def __init__(self) -> None:
        self.images = 0
        self._lines: dict[int, OrderedDict[_Job, None]] = {}

    def add(self, job: _Job) -> None:
        self._lines.setdefault(job.priority, OrderedDict())[job] = None
        self.images += job.left

    def first(self) -> _Job:
        return next(iter(self._lines[min(self._lines)]))

    def take(self, job: _Job, count: int) -> _Slice:
        """The next images of a request."""
        if count == job.left:
            self.discard(job)
        else:
            self.images -= count
        job.taken += count
        return _Slice(job, job.taken - count, job.taken)

    def put_back(self, job: _Job) -> None:
        """Behind all others of its priority."""
        self._lines[job.priority].move_to_end(job)

    def discard(self, job: _Job) -> None:
        """Take a request out, if it is in the queue."""
        line = self._lines.get(job.priority)
        if line and job in line:
            self.images -= job.left
            del line[job]
            if not line:
                del self._lines[job.priority]


class Batcher:
    """The queue of one model, and those who empty it.

    Args:
        predict: images to probabilities; safe to call from several threads.
        max_queue: images that may wait or be computed; a request that comes to an empty queue is
            always taken.
        threads: that compute, unless the plan has the event loop do it. Best as many as there are
            cores, for all work of all models: more would only fight for them.
        observe: told the size and the seconds of every call of the model.

    Attributes:
        pending: images of requests that were admitted and are not answered.
    """

    def __init__(
        self,
        predict: Predict,
        plan: Plan,
        max_queue: int,
        threads: ThreadPoolExecutor,
        observe: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        self.plan = plan
        self.max_queue = max_queue
        self.pending = 0
        self._predict = predict
        self._observe = observe
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._queue = _Queue()
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._free = 1 if plan.inline else plan.callers
        self._threads = threads
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
        job = _Job(priority, images, self._loop.create_future(), timing)
        timing.queued = time.perf_counter()
        with self._lock:
            if not self._queue.images:
                self._due = timing.queued + self.plan.max_delay
            self._queue.add(job)
        self._start()
        if self.plan.max_delay and not self._timer:
            self._start_when_due()
        try:
            return await job.future
        finally:
            if job.taken < len(images):  # expired, given up, or failed in an earlier slice
                with self._lock:
                    self._queue.discard(job)
            del job  # an error holds this frame, and the future in the job holds the error

    def _start_when_due(self) -> None:
        """There is one timer at most, however many requests come and go."""
        left = self._due - time.perf_counter() if self._queue.images else 0.0
        if left > 0:
            self._timer = self._loop.call_later(max(left, TICK), self._start_when_due)
        else:
            self._timer = None
            self._start()

    def _start(self) -> None:
        """Have somebody who is free empty the queue."""
        with self._lock:
            if not self._free or not self._queue.images or not self._is_due():
                return
            self._free -= 1
        if self.plan.inline:
            self._loop.call_soon(self._work_inline)
        else:
            self._threads.submit(self._work)

    def _is_due(self) -> bool:
        return self._queue.images >= self.plan.batch or time.perf_counter() >= self._due

    def _work(self) -> None:
        """In a thread: one batch after the other, each behind what else waits for the threads."""
        slices = self._take()
        if slices:
            self._start()  # another one who is free takes what is left
            self._loop.call_soon_threadsafe(self._deliver, slices, *self._run(slices))
            self._threads.submit(self._work)

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
        queue = self._queue
        with self._lock:
            if queue.images and self._is_due():
                size, room = 0, max(self.plan.batch, SLICE)
                while queue.images and room > 0:
                    job = queue.first()
                    if job.future.done():
                        queue.discard(job)
                        continue
                    slices.append(queue.take(job, min(job.left, room)))
                    size += slices[-1].stop - slices[-1].start
                    room = self.plan.batch - size  # only one request of its own may be larger
                if len(slices) == 1 and slices[0].job.left:
                    queue.put_back(slices[0].job)
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
        if len(slices) == 1:
            return [self._answer(slices[0])]
        try:
            together = self._predict(np.concatenate([part.images for part in slices]))
        except Exception as error:  # noqa: BLE001 (whoever is guilty fails again)
            failure = one_line(error)
        else:
            ends = itertools.accumulate(part.stop - part.start for part in slices)
            return [
                together[end - part.stop + part.start : end]
                for part, end in zip(slices, ends, strict=True)
            ]
        results = [self._answer(part) for part in slices]
        if not any(isinstance(result, Exception) for result in results):
            _log.error("a batch failed whose requests do not: %s", failure)
        return results

    def _answer(self, part: _Slice) -> _Result:
        try:
            return self._predict(part.images)
        except Exception as error:  # noqa: BLE001 (raised again where somebody waits for it)
            return error.with_traceback(None)  # which holds the images as long as the error lives

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
