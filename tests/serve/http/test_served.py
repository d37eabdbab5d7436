"""A version of a model while it is served: opened, called, counted and let go."""

import asyncio
import gc
import io
import json
import random
import struct
import weakref
import zlib
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
import pytest
import uvloop
from PIL import Image
from prometheus_client import REGISTRY

from serve.bundle import METADATA_KEY, BundleError, seal
from serve.http.batcher import SLICE, Plan, Timing
from serve.http.limits import Limits, Memory
from serve.http.messages import HttpError
from serve.http.served import FEWEST_QUEUED, QUEUE_SECONDS, Served, open_model
from serve.http.tuning import Wishes
from serve.images import ImageError

T = TypeVar("T")
MakeBundle = Callable[..., Path]
WISHES = Wishes(batch=4, threads=1, cores=2)


def run(work: Awaitable[T]) -> T:
    async def limited() -> T:
        async with asyncio.timeout(20):
            return await work

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(limited())


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def serve(
    path: Path,
    threads: ThreadPoolExecutor,
    *,
    plan: Plan | None = None,
    memory: Memory | None = None,
    limits: Limits | None = None,
    max_queue: int | None = None,
) -> Served:
    return Served(
        path.stem,
        1,
        open_model(path, None, WISHES, plan or Plan(batch=4)),
        limits=limits or Limits(),
        memory=memory or Memory(10**9),
        threads=threads,
        max_queue=max_queue,
    )


def png(seed: int = 0, size: tuple[int, int] = (8, 8)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, size[::-1], np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    return encoded.getvalue()


def some_images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 1), np.uint8)


# Opening


@pytest.mark.parametrize("kind", ["Identity", "Sigmoid", "negative"])
@pytest.mark.parametrize("plan", [None, Plan()], ids=["measured", "planned"])
def test_answers_that_are_no_probabilities_are_refused(
    kind: str, plan: Plan | None, bundle: Path, tmp_path: Path
) -> None:
    model = onnx.load_model(bundle)
    (document,) = (item.value for item in model.metadata_props if item.key == METADATA_KEY)
    del model.metadata_props[:]
    (softmax,) = (node for node in model.graph.node if node.op_type == "Softmax")
    if kind == "negative":  # and yet they sum to 1
        softmax.output[0] = "positive"
        shift = onnx.numpy_helper.from_array(np.array([1, -1, *[0] * 8], "f"), "shift")
        model.graph.initializer.append(shift)
        model.graph.node.append(
            onnx.helper.make_node("Add", ["positive", "shift"], ["probabilities"])
        )
    else:
        softmax.op_type = kind
    path = tmp_path / "no-probabilities.onnx"
    path.write_bytes(seal(model.SerializeToString(), json.loads(document)))
    with pytest.raises(BundleError, match="expected probabilities"):
        open_model(path, None, WISHES, plan)


def test_a_model_without_a_plan_is_measured(bundle: Path) -> None:
    opened = open_model(bundle, None, WISHES)
    assert opened.plan.batch == 4
    assert (opened.plan.threads, opened.plan.callers) == (1, 2)
    assert [trial.batch for trial in opened.trials] == [4]


def test_the_plan_of_an_earlier_version_is_taken_over(bundle: Path) -> None:
    plan = Plan(callers=3, batch=2, seconds_per_image=1e-5)
    opened = open_model(bundle, None, WISHES, plan)
    assert opened.plan is plan
    assert opened.trials == ()


def test_a_version_that_is_much_slower_gets_a_plan_of_its_own(
    make_bundle: MakeBundle, tmp_path: Path
) -> None:
    slow = make_bundle(tmp_path / "slow.onnx", work=60)
    plan = Plan(inline=True, seconds_per_image=1e-5)
    opened = open_model(slow, None, WISHES, plan)
    assert opened.trials
    assert not opened.plan.inline
    assert opened.plan.seconds_per_image > 10 * plan.seconds_per_image
    assert open_model(slow, None, WISHES, opened.plan).plan is opened.plan


# Admission


def test_a_request_takes_room_and_memory_and_gives_them_back(
    bundle: Path, threads: ThreadPoolExecutor
) -> None:
    async def test() -> None:
        memory = Memory(64 * 100)
        served = serve(bundle, threads, memory=memory, max_queue=10)
        with served.admitted(6):
            assert (served.pending, memory.held) == (6, 6 * 64)
            with pytest.raises(ZeroDivisionError), served.admitted(4):
                assert (served.pending, memory.held) == (10, 10 * 64)
                with pytest.raises(HttpError, match="queue is full") as refused:
                    served.check_room()
                assert refused.value.status == 429
                with pytest.raises(HttpError, match="queue is full"):
                    served.admitted(1)
                raise ZeroDivisionError
            assert (served.pending, memory.held) == (6, 6 * 64)
        with pytest.raises(HttpError, match="hold 0 of 6400 bytes") as refused:
            served.admitted(101)
        assert refused.value.status == 503
        assert (served.pending, memory.held) == (0, 0)
        with served.admitted(100):  # more than the queue, which is empty
            assert served.pending == 100
        assert (served.pending, memory.held) == (0, 0)
        served.retire()

    run(test())


def test_the_queue_is_bounded_by_time(bundle: Path, threads: ThreadPoolExecutor) -> None:
    async def test() -> None:
        for seconds, most in ((0.001, round(QUEUE_SECONDS / 0.001)), (1.0, FEWEST_QUEUED)):
            served = serve(bundle, threads, plan=Plan(seconds_per_image=seconds))
            assert served.max_queue == most
            served.retire()
        served = serve(bundle, threads, max_queue=7)
        assert served.max_queue == 7
        served.retire()

    run(test())


# Decoding


def promise(width: int, height: int) -> bytes:
    """A PNG of black and white that ends before its pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = (header, b"IDAT" + zlib.compress(b"\0" * 8))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part))
        for part in parts
    )


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        (None, "image of 8000x7000 = 56,000,000 pixels: expected at most 50,000,000; "),
        (55_999_999, "image of 8000x7000 = 56,000,000 pixels: expected at most 55,999,999; "),
        (250_000_000, "corrupt image: "),
    ],
)
def test_the_servers_limit_of_pixels_may_be_above_the_models(
    bundle: Path, threads: ThreadPoolExecutor, limit: int | None, reason: str
) -> None:
    async def test() -> None:
        served = serve(bundle, threads, limits=Limits(max_pixels=limit))
        (found,) = await served.decode([promise(8000, 7000)], Timing())
        assert str(found).startswith(reason)
        served.retire()

    run(test())


def test_each_image_gets_its_pixels_or_a_reason(bundle: Path, threads: ThreadPoolExecutor) -> None:
    async def test() -> None:
        served = serve(bundle, threads, limits=Limits(max_pixels=100))
        timing = Timing()
        images = [png(1), b"no image", png(2)[:-30], png(3, (20, 20)), b"", png(4)]
        found = await served.decode(images, timing)
        good = [number for number, image in enumerate(found) if not isinstance(image, ImageError)]
        assert good == [0, 5]
        for number, seed in ((0, 1), (5, 4)):
            pixels = np.random.default_rng(seed).integers(0, 256, (8, 8), np.uint8)
            np.testing.assert_array_equal(np.asarray(found[number])[:, :, 0], pixels)
        assert "100" in str(found[3])  # the server's limit, instead of the bundle's
        assert timing.decoding > 0
        served.retire()

    run(test())


def test_others_get_their_turn_while_many_images_are_decoded(
    bundle: Path, threads: ThreadPoolExecutor
) -> None:
    async def test() -> None:
        served = serve(bundle, threads)
        order: list[str] = []

        async def decode(name: str, count: int) -> None:
            found = await served.decode([png()] * count, Timing())
            assert len(found) == count
            order.append(name)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(decode("large", 20 * SLICE))
            await asyncio.sleep(0)
            tasks.create_task(decode("small", 1))
        assert order == ["small", "large"]
        served.retire()

    run(test())


# Predicting, and the end


@pytest.mark.parametrize("inline", [True, False], ids=["inline", "threads"])
def test_nothing_is_held_after_thousands_of_requests(
    inline: bool, bundle: Path, threads: ThreadPoolExecutor
) -> None:
    """Whether they are answered, given up, or expire: and each answer is the one of its image."""
    random_ = random.Random(0)
    pool = some_images(500)

    async def test() -> None:
        memory = Memory(10**9)
        plan = Plan(callers=1 if inline else 2, batch=8, inline=inline, max_delay=0.001)
        served = serve(bundle, threads, plan=plan, memory=memory, max_queue=10**6)
        alone = np.concatenate([served.classifier.predict(pool[n : n + 1]) for n in range(500)])
        answered = 0

        async def request() -> None:
            nonlocal answered
            size = random_.choice([1, 1, 1, 2, 9, 40])
            chosen = np.array([random_.randrange(500) for _ in range(size)])
            seconds = random_.choice([None, None, None, 0.0005, 0.002])
            with served.admitted(size):
                async with asyncio.timeout(seconds):
                    answer = await served.predict(pool[chosen], random_.randint(1, 9), Timing())
            np.testing.assert_allclose(answer, alone[chosen], rtol=0, atol=1e-6)
            answered += 1

        async def client() -> None:
            for _ in range(50):
                task = asyncio.create_task(request())
                if random_.random() < 0.2:
                    await asyncio.sleep(random_.choice([0, 0.001]))
                    task.cancel()
                await asyncio.wait([task])
                if not task.cancelled() and task.exception():
                    assert isinstance(task.exception(), TimeoutError)

        await asyncio.gather(*(client() for _ in range(40)))
        assert answered > 700
        assert (served.pending, memory.held) == (0, 0)
        served.retire()

    run(test())


def test_a_version_that_is_retired_answers_those_it_has(
    make_bundle: MakeBundle, tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    async def test() -> None:
        path = make_bundle(tmp_path / "retired.onnx")
        served = serve(path, threads)
        images = some_images(3)
        with served.admitted(3):
            await served.predict(images, 5, Timing())
            served.report()
            served.retire()
            answer = await served.predict(images, 5, Timing())
            np.testing.assert_array_equal(answer, served.classifier.predict(images))
        labels = {"model": "retired", "version": "1"}
        assert REGISTRY.get_sample_value("lockstep_queue_images", labels) == 0
        session = weakref.ref(served.classifier)
        del served
        while session():  # its memory is free, once the threads have let go of it
            gc.collect()
            await asyncio.sleep(0.001)

    run(test())


def test_statistics_say_what_was_computed(bundle: Path, threads: ThreadPoolExecutor) -> None:
    async def test() -> None:
        served = serve(bundle, threads, plan=Plan(batch=4))
        for size in (1, 3, 3):
            with served.admitted(size):
                await served.predict(some_images(size), 5, Timing())
            served.count("ok", 0.25)
        served.count("failed", 0.5)
        told = served.statistics.to_json("letters", "1")
        assert (told["inference_count"], told["execution_count"]) == (7, 3)
        assert [(item["batch_size"], item["compute_infer"]["count"])
                for item in told["batch_stats"]] == [(1, 1), (3, 2)]  # fmt: skip
        stats = told["inference_stats"]
        assert stats["success"] == {"count": 3, "ns": 750_000_000}
        assert stats["fail"] == {"count": 1, "ns": 500_000_000}
        assert stats["queue"]["count"] == stats["compute_infer"]["count"] == 3
        assert stats["compute_infer"]["ns"] > 0
        served.retire()

    run(test())
