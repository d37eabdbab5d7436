"""The queue of a model: who is computed when, with whom, and who gets which answer or error."""

import asyncio
import contextlib
import gc
import random
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import pytest
import uvloop
from numpy.typing import NDArray

from serve.bundle import BundleError
from serve.classifier import Classifier
from serve.http.batcher import SLICE, Batcher, Plan, Timing
from serve.http.messages import HttpError

T = TypeVar("T")
Images = NDArray[np.uint8]
Probabilities = NDArray[np.float32]

LONG = 10.0
"""Seconds after which something hangs."""

QUEUE = 10**6
MODES = {"inline": Plan(inline=True), "one thread": Plan(), "three threads": Plan(callers=3)}


def run(work: Awaitable[T]) -> T:
    """In the event loop that the server uses; what hangs fails, and so does what goes wrong in a
    callback."""
    trouble: list[dict[str, Any]] = []

    async def limited() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: trouble.append(context))
        async with asyncio.timeout(LONG):
            return await work

    gc.freeze()  # what is there now need not be looked through below
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            answer = runner.run(limited())
        gc.collect()  # an error that nobody asked for is told when it is collected
    finally:
        gc.unfreeze()
    assert not trouble
    return answer


def plan(mode: str, **changes: Any) -> Plan:
    base = MODES[mode]
    return Plan(callers=base.callers, inline=base.inline, **changes)


def make_batcher(
    predict: Callable[[Images], Probabilities],
    plan: Plan,
    observe: Callable[[int, float], None] = lambda size, seconds: None,
    max_queue: int = QUEUE,
) -> Batcher:
    return Batcher(predict, plan, max_queue, ThreadPoolExecutor(plan.callers), observe)


def images_of(*numbers: int) -> Images:
    """One image for each number: its bytes."""
    return np.array(numbers, np.int64).view(np.uint8).reshape(-1, 2, 2, 2)


def numbers_of(images: Images) -> list[int]:
    return images.reshape(len(images), 8).view(np.int64).ravel().tolist()


def answer_of(images: Images) -> Probabilities:
    """As many different ones as there are images."""
    return images.reshape(len(images), 8).astype(np.float32)


class Model:
    """Answers with what it was given, and remembers it.

    Args:
        bad: numbers of images, and what comes of a batch that holds one of them.
        seconds: that a call takes.

    Attributes:
        calls: the numbers of the images of each call, in order.
        gate: calls wait while it is closed; only for models in threads.
    """

    def __init__(self, bad: dict[int, Exception] | None = None, seconds: float = 0.0) -> None:
        self.calls: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self._entered = threading.Semaphore(0)
        self._bad = {} if bad is None else bad
        self._seconds = seconds

    def predict(self, images: Images) -> Probabilities:
        numbers = numbers_of(images)
        self.calls.append(numbers)
        self._entered.release()
        assert self.gate.wait(LONG)
        time.sleep(self._seconds)
        for number in numbers:
            if number in self._bad:
                raise self._bad[number]
        return answer_of(images)

    @property
    def computed(self) -> list[int]:
        """Every number that was seen."""
        return [number for call in self.calls for number in call]

    def reset(self) -> None:
        """Forget all calls."""
        self.calls.clear()
        self._entered = threading.Semaphore(0)

    async def entered(self) -> None:
        """Once another call has begun."""
        assert await asyncio.to_thread(self._entered.acquire, timeout=LONG)


def ask(batcher: Batcher, *numbers: int, priority: int = 5) -> asyncio.Task[Probabilities]:
    return asyncio.create_task(batcher.predict(images_of(*numbers), priority, Timing()))


@contextlib.asynccontextmanager
async def busy(batcher: Batcher, model: Model) -> Any:
    """Everybody is busy inside, so that what is asked there waits; forgotten in `calls`."""
    plugs = []
    if not batcher.plan.inline:  # the event loop is busy itself until it is awaited
        model.reset()
        model.gate.clear()
        for number in range(batcher.plan.callers):
            plugs.append(ask(batcher, *[-1 - number] * batcher.plan.batch))
            await model.entered()
    model.reset()
    yield
    await asyncio.sleep(0)  # the tasks begin, and wait
    model.gate.set()
    await asyncio.gather(*plugs)


def check(numbers: Sequence[int], answer: object) -> None:
    assert isinstance(answer, np.ndarray)
    np.testing.assert_array_equal(answer, answer_of(images_of(*numbers)))


both = pytest.mark.parametrize("mode", ["inline", "one thread"])
every = pytest.mark.parametrize("mode", MODES)


@both
def test_order_is_priority_and_then_arrival(mode: str) -> None:
    async def test() -> None:
        model = Model()
        batcher = make_batcher(model.predict, plan(mode))
        async with busy(batcher, model):
            priorities = [5, 5, 9, 1, 5, 1, 9, 3]
            asked = [ask(batcher, *[n], priority=p) for n, p in enumerate(priorities)]
        await asyncio.gather(*asked)
        assert model.computed == [3, 5, 7, 0, 1, 4, 2, 6]
        assert all(len(call) == 1 for call in model.calls)  # the plan says one

    run(test())


@both
def test_a_batch_is_filled_and_no_larger_than_planned(mode: str) -> None:
    async def test() -> None:
        model = Model()
        batcher = make_batcher(model.predict, plan(mode, batch=8))
        async with busy(batcher, model):
            asked = [ask(batcher, *range(10 * n, 10 * n + 3)) for n in range(9)]
        for number, answer in enumerate(await asyncio.gather(*asked)):
            check(range(10 * number, 10 * number + 3), answer)
        assert [len(call) for call in model.calls] == [8, 8, 8, 3]

    run(test())


@both
@pytest.mark.parametrize("batch", [1, 8, 2 * SLICE])
def test_a_large_request_is_computed_in_slices(mode: str, batch: int) -> None:
    async def test() -> None:
        model = Model()
        observed: list[int] = []
        batcher = make_batcher(
            model.predict, plan(mode, batch=batch), lambda size, _: observed.append(size)
        )
        most = max(batch, SLICE)
        numbers = range(5 * most + 3)
        check(numbers, await ask(batcher, *numbers))
        assert [len(call) for call in model.calls] == [most] * 5 + [3] == observed

    run(test())


@both
def test_others_get_their_turn_between_the_slices_of_a_large_request(mode: str) -> None:
    async def test() -> None:
        model = Model()
        batcher = make_batcher(model.predict, plan(mode))
        async with busy(batcher, model):
            large = ask(batcher, *range(6 * SLICE))
            other = ask(batcher, *range(1000, 1000 + 3 * SLICE))
            small = ask(batcher, 2000)
            urgent = ask(batcher, 3000, priority=1)
        await asyncio.gather(large, other, small, urgent)
        firsts = [call[0] // 1000 for call in model.calls]
        assert firsts[:4] == [3, 0, 1, 2]  # nobody waits for all of a large one
        assert firsts[4:] == [0, 1, 0, 1, 0, 0, 0]
        check(range(6 * SLICE), large.result())
        check(range(1000, 1000 + 3 * SLICE), other.result())

    run(test())


def test_everybody_who_is_free_helps_with_a_large_request() -> None:
    async def test() -> None:
        together = threading.Barrier(3)

        def predict(images: Images) -> Probabilities:
            together.wait(LONG / 2)  # breaks if it stays alone
            return answer_of(images)

        batcher = make_batcher(predict, plan("three threads"))
        check(range(3 * SLICE), await ask(batcher, *range(3 * SLICE)))

    run(test())


ERRORS = [BundleError("no"), MemoryError(), ZeroDivisionError("no"), KeyError("no")]


@both
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_only_the_request_that_makes_a_batch_fail_fails(mode: str, error: Exception) -> None:
    async def test() -> None:
        model = Model(bad={31: error})
        batcher = make_batcher(model.predict, plan(mode, batch=8))
        async with busy(batcher, model):
            asked = [ask(batcher, 10 * n, 10 * n + 1) for n in range(8)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert answers.pop(3) is error
        for number, answer in zip((0, 1, 2, 4, 5, 6, 7), answers, strict=True):
            check((10 * number, 10 * number + 1), answer)
        # Together, then each of them alone; the second batch is none of its business.
        assert list(map(len, model.calls)) == [8, 2, 2, 2, 2, 8]
        check((99,), await ask(batcher, 99))

    run(test())


@both
def test_a_model_that_fails_on_batches_alone_answers_and_is_told(
    mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    def predict(images: Images) -> Probabilities:
        if len(images) > 1:
            raise BundleError("only one image at a time")
        return answer_of(images)

    async def test() -> None:
        batcher = make_batcher(predict, plan(mode, batch=8))
        asked = [ask(batcher, number) for number in range(20)]
        for number, answer in enumerate(await asyncio.gather(*asked)):
            check((number,), answer)

    run(test())
    assert "only one image at a time" in caplog.text


@every
def test_every_request_of_a_batch_can_be_guilty(mode: str) -> None:
    async def test() -> None:
        model = Model(bad={number: BundleError(str(number)) for number in range(8)})
        batcher = make_batcher(model.predict, plan(mode, batch=8))
        async with busy(batcher, model):
            asked = [ask(batcher, number) for number in range(8)]
        for number, answer in enumerate(await asyncio.gather(*asked, return_exceptions=True)):
            assert isinstance(answer, BundleError)
            assert str(answer) == str(number)
        check((99,), await ask(batcher, 99))

    run(test())


@both
def test_a_large_request_fails_once_and_the_rest_of_it_is_not_computed(mode: str) -> None:
    async def test() -> None:
        model = Model(bad={SLICE + 3: BundleError("no")}, seconds=0.005)
        batcher = make_batcher(model.predict, plan(mode, batch=8))
        async with busy(batcher, model):
            large = ask(batcher, *range(20 * SLICE))
            small = ask(batcher, 5000)
        with pytest.raises(BundleError, match="no"):
            await large
        check((5000,), await small)
        check((5001,), await ask(batcher, 5001))
        # In a thread, more of it may have begun before the failure was told.
        assert len(model.computed) <= 10 * SLICE

    run(test())


@every
def test_what_nobody_waits_for_is_not_computed(mode: str) -> None:
    async def test() -> None:
        model = Model()
        batcher = make_batcher(model.predict, plan(mode, batch=4))
        async with busy(batcher, model):
            asked = [ask(batcher, 10 * n, 10 * n + 1) for n in range(40)]
            await asyncio.sleep(0)
            for task in asked[::2]:
                task.cancel()
        left = await asyncio.gather(*asked[1::2])
        for number, answer in zip(range(1, 40, 2), left, strict=True):
            check((10 * number, 10 * number + 1), answer)
        assert sorted(model.computed) == [10 * n + i for n in range(1, 40, 2) for i in (0, 1)]
        assert all(task.cancelled() for task in asked[::2])

    run(test())


@both
def test_an_expired_request_is_not_computed(mode: str) -> None:
    async def test() -> None:
        model = Model()
        batcher = make_batcher(model.predict, plan(mode, batch=4, max_delay=0.05))

        async def impatient() -> None:
            async with asyncio.timeout(0.001):
                await batcher.predict(images_of(1, 2), 5, Timing())

        expired = asyncio.create_task(impatient())
        lasting = ask(batcher, 3)
        with pytest.raises(TimeoutError):
            await expired
        check((3,), await lasting)
        assert model.computed == [3]

    run(test())


def test_the_rest_of_a_large_request_is_not_computed_once_it_is_cancelled() -> None:
    async def test() -> None:
        model = Model()
        batcher = make_batcher(model.predict, plan("one thread"))
        model.gate.clear()
        large = ask(batcher, *range(10 * SLICE))
        await model.entered()
        large.cancel()
        await asyncio.wait([large])
        model.gate.set()
        check((5000,), await ask(batcher, 5000))
        assert model.computed == [*range(SLICE), 5000]

    run(test())


def test_a_request_that_is_given_up_lets_go_of_its_images() -> None:
    """However long those before it in the queue may take."""

    async def test() -> None:
        model = Model()
        batcher = make_batcher(model.predict, plan("one thread"))
        async with busy(batcher, model):
            first = ask(batcher, 1, priority=1)
            with alone_in_memory(images_of(*range(100, 200))) as hold:
                late = asyncio.create_task(batcher.predict(hold.pop(), 9, Timing()))
                await asyncio.sleep(0)
                late.cancel()
                await asyncio.wait([late])
                del late
        check((1,), await first)
        assert model.computed == [1]

    run(test())


@both
@pytest.mark.parametrize("size", [1, 3 * SLICE])
def test_a_request_that_failed_lets_go_of_its_images(mode: str, size: int) -> None:
    async def test() -> None:
        model = Model()

        def predict(images: Images) -> Probabilities:
            if 100 in numbers_of(images):
                raise BundleError("no")
            return model.predict(images)

        async def fail(images: Images) -> None:
            try:
                await batcher.predict(images, 5, Timing())
            except BundleError:
                return
            raise AssertionError

        batcher = make_batcher(predict, plan(mode, batch=8))
        with alone_in_memory(images_of(*range(100, 100 + size))) as hold:
            async with busy(batcher, model):
                failing = asyncio.create_task(fail(hold.pop()))
                await asyncio.sleep(0)
                asked = [ask(batcher, number) for number in range(10)]
            await asyncio.gather(failing, *asked)
            check((11,), await ask(batcher, 11))  # the thread has let go of the batch before
            del failing

    run(test())


@contextlib.contextmanager
def alone_in_memory(images: Images) -> Iterator[list[Images]]:
    """At the end nothing holds these images any more, without any garbage collection."""
    hold = [images.copy()]
    del images
    gone = weakref.ref(hold[0])
    gc.disable()
    try:
        yield hold
        assert gone() is None
    finally:
        gc.enable()


# How long a request waits for others.


@both
def test_a_delay_fills_a_batch_and_ends_when_it_is_full(mode: str) -> None:
    async def test() -> None:
        model = Model()
        batcher = make_batcher(model.predict, plan(mode, batch=4, max_delay=10 * LONG))
        asked = []
        for number in range(4):
            assert not model.calls
            asked.append(ask(batcher, number))
            await asyncio.sleep(0.01)
        await asyncio.gather(*asked)
        assert model.calls == [[0, 1, 2, 3]]

    run(test())


@both
def test_what_is_left_of_a_full_batch_has_waited_enough(mode: str) -> None:
    async def test() -> None:
        model = Model()
        batcher = make_batcher(model.predict, plan(mode, batch=4, max_delay=10 * LONG))
        async with busy(batcher, model):
            asked = [ask(batcher, number) for number in range(6)]
        await asyncio.gather(*asked)
        assert model.calls == [[0, 1, 2, 3], [4, 5]]

    run(test())


@both
def test_a_request_that_is_alone_waits_for_the_delay(mode: str) -> None:
    async def test() -> None:
        model = Model()
        batcher = make_batcher(model.predict, plan(mode, batch=4, max_delay=0.05))
        for number in range(3):
            timing = Timing()
            check((number,), await batcher.predict(images_of(number), 5, timing))
            assert timing.stages()["queue"] >= 0.05

    run(test())


@both
@pytest.mark.parametrize("milliseconds", [0.01, 0.3, 0.5, 0.9, 1.1, 1.4, 1.5, 2, 2.7])
def test_a_delay_ends_however_coarse_the_clock_is(mode: str, milliseconds: float) -> None:
    """uvloop's timers count whole milliseconds, and ring too early when something else wakes it."""

    async def test() -> None:
        model = Model()
        batcher = make_batcher(model.predict, plan(mode, batch=4, max_delay=milliseconds / 1000))
        stop = threading.Event()
        loop = asyncio.get_running_loop()

        def wake() -> None:
            while not stop.wait(0.0003):
                loop.call_soon_threadsafe(lambda: None)

        waker = threading.Thread(target=wake)
        waker.start()
        try:
            for number in range(40):
                check((number,), await ask(batcher, number))
        finally:
            stop.set()
            waker.join()

    run(test())


@both
def test_who_gave_up_fills_no_batch(mode: str) -> None:
    async def test() -> None:
        model = Model()
        batcher = make_batcher(model.predict, plan(mode, batch=4, max_delay=LONG))
        gone = [ask(batcher, number) for number in range(3)]
        await asyncio.sleep(0)
        for task in gone:
            task.cancel()
        await asyncio.wait(gone)
        asked = [ask(batcher, 10)]
        await asyncio.sleep(0.02)
        asked += [ask(batcher, number) for number in (11, 12, 13)]
        await asyncio.gather(*asked)
        assert model.calls == [[10, 11, 12, 13]]

    run(test())


def test_a_delay_needs_no_more_timers_the_more_requests_come() -> None:
    async def test() -> None:
        model = Model()
        batcher = make_batcher(model.predict, plan("inline", batch=2, max_delay=LONG))
        loop = asyncio.get_running_loop()
        timers = 0
        call_later = loop.call_later

        def counted(*arguments: Any) -> asyncio.TimerHandle:
            nonlocal timers
            timers += 1
            return call_later(*arguments)

        batcher._loop = CountingLoop(loop, counted)  # type: ignore[assignment]
        for number in range(100):
            await asyncio.gather(ask(batcher, number), ask(batcher, number))
        assert timers <= 1

    run(test())


class CountingLoop:
    """The event loop, but for one method: uvloop's loops take no new attributes."""

    def __init__(self, loop: asyncio.AbstractEventLoop, call_later: Callable[..., Any]) -> None:
        self._loop, self.call_later = loop, call_later

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


# The bound of the queue.


def test_a_full_queue_says_when_to_come_back() -> None:
    async def test() -> None:
        batcher = make_batcher(answer_of, Plan(seconds_per_image=0.25), max_queue=20)
        batcher.check_room(1000)  # nobody waits: then even a request beyond the bound is taken
        batcher.pending = 12
        batcher.check_room(8)
        with pytest.raises(HttpError, match="12 images") as refused:
            batcher.check_room(9)
        assert refused.value.status == 429
        assert refused.value.headers == (("Retry-After", "3"),)

    run(test())


@every
def test_a_timer_that_was_set_for_requests_that_were_given_up(mode: str) -> None:
    async def test() -> None:
        model = Model()
        batcher = make_batcher(model.predict, plan(mode, batch=4, max_delay=0.02))
        asked = [ask(batcher, number) for number in range(2)]
        await asyncio.sleep(0)
        for task in asked:
            task.cancel()
        await asyncio.wait(asked)
        await asyncio.sleep(0.06)
        assert not model.calls

    run(test())


# Everything at once.


@every
@pytest.mark.parametrize("seed", range(2))
def test_answers_are_never_swapped(mode: str, seed: int) -> None:
    """Random sizes, priorities, cancellations and failures; the queue is empty in the end."""
    random_ = random.Random(seed)
    bad: dict[int, Exception] = {}
    seen = 0

    class Jittery(Model):
        def predict(self, images: Images) -> Probabilities:
            if random_.random() < 0.02:
                time.sleep(0.001)
            return super().predict(images)

    async def test() -> None:
        nonlocal seen
        model = Jittery(bad)
        batch = random_.choice([2, 5, 8])
        delay = random_.choice([0, 0.0007, 0.002])
        batcher = make_batcher(model.predict, plan(mode, batch=batch, max_delay=delay))
        owner: dict[int, int] = {}
        numbers = iter(range(10**9))

        async def client(name: int) -> None:
            nonlocal seen
            for _ in range(40):
                size = random_.choice([1, 1, 1, 2, 3, 7, 8, 9, 70])
                mine = [next(numbers) for _ in range(size)]
                owner.update(dict.fromkeys(mine, mine[0]))
                guilty = random_.random() < 0.1
                if guilty:
                    bad[random_.choice(mine)] = BundleError(str(mine[0]))
                task = ask(batcher, *mine, priority=random_.randint(1, 9))
                if random_.random() < 0.2:
                    await asyncio.sleep(random_.choice([0, 0, 0.0005, 0.003]))
                    task.cancel()
                await asyncio.wait([task])
                if task.cancelled():
                    continue
                if guilty:
                    with pytest.raises(BundleError, match=f"^{mine[0]}$"):
                        task.result()
                else:
                    check(mine, task.result())
                seen += 1

        await asyncio.gather(*map(client, range(50)))
        for call in model.calls:
            alone = len({owner[number] for number in call}) == 1
            assert len(call) <= (max(batch, SLICE) if alone else batch)
        assert any(len({owner[number] for number in call}) > 1 for call in model.calls)
        # Everybody came back, and can be busy again.
        async with busy(batcher, model):
            pass

    run(test())
    assert seen > 1500


class Gap:
    """A lock that leaves time for others to come in between, once a thread lets go of it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exception: object) -> None:
        self._lock.release()
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.0005)


@every
@pytest.mark.parametrize("gaps", [False, True], ids=["quick", "slow to let go"])
def test_nobody_sleeps_while_a_request_waits(mode: str, gaps: bool) -> None:
    """Requests that come just when the one who computes is done, thousands of times."""

    async def test() -> None:
        batcher = make_batcher(answer_of, plan(mode, batch=4))
        if gaps:
            batcher._lock = Gap()  # type: ignore[assignment]

        async def client(name: int) -> None:
            for number in range(100 if gaps else 500):
                numbers = (1000 * name + number,)
                check(numbers, await batcher.predict(images_of(*numbers), 5, Timing()))

        await asyncio.gather(*map(client, range(3)))

    run(test())


# With a model.


@both
@pytest.mark.parametrize("white", ["error", "nan"])
def test_a_model_that_fails_on_white_images(
    mode: str, white: str, make_bundle: Callable[..., Any], tmp_path: Any
) -> None:
    classifier = Classifier(make_bundle(tmp_path / "letters.onnx", white=white), threads=1)
    images = np.random.default_rng(0).integers(0, 255, (60, 8, 8, 1), np.uint8)
    images[::7] = 255
    calls: list[int] = []

    async def test() -> None:
        batcher = make_batcher(
            classifier.predict, plan(mode, batch=8), lambda size, _: calls.append(size)
        )
        asked = [batcher.predict(images[n : n + 1], 5, Timing()) for n in range(60)]
        for number, answer in enumerate(await asyncio.gather(*asked, return_exceptions=True)):
            if number % 7 == 0:
                assert isinstance(answer, BundleError)
            else:
                assert isinstance(answer, np.ndarray)
                alone = classifier.predict(images[number : number + 1])
                np.testing.assert_allclose(answer, alone, rtol=0, atol=1e-6)
        assert max(calls) == 8

    run(test())
