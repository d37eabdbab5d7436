"""How the setting that serves a model best is found: on models whose speed is known, by a clock
that only they advance, so that nothing here depends on how busy the machine is."""

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from serve.bundle import BundleError
from serve.classifier import Classifier
from serve.http import tuning
from serve.http.batcher import Plan
from serve.http.tuning import CALL_SECONDS, Trial, Wishes, available_cores, tune

Seconds = Callable[[int, int], float]
"""Of a call, by its threads and its images."""


class Clock:
    """Stands for the module `time`: each thread has a time of its own, and only `sleep` costs any.

    The main thread, which waits for the others, sees the latest of all.
    """

    def __init__(self) -> None:
        self._own = threading.local()
        self._lock = threading.Lock()
        self._main = self._latest = 0.0

    def perf_counter(self) -> float:
        if threading.current_thread() is threading.main_thread():
            self._main = max(self._main, self._latest)
            return self._main
        return float(getattr(self._own, "time", self._main))

    def sleep(self, seconds: float) -> None:
        self._own.time = self.perf_counter() + seconds
        with self._lock:
            self._latest = max(self._latest, self._own.time)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(tuning, "time", clock)
    return clock


class Timed:
    """A model that takes so long, on as many cores as it wants: it only sleeps.

    Every call waits until all callers call.
    """

    def __init__(self, threads: int, callers: int, seconds: Seconds) -> None:
        self.threads = threads
        self.sizes: list[int] = []
        self._seconds = seconds
        self._all_callers = threading.Barrier(callers, timeout=60)
        self.document = SimpleNamespace(image=SimpleNamespace(shape=(4, 4, 1)))

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        seconds = self._seconds(self.threads, len(images))
        self._all_callers.wait()
        self.sizes.append(len(images))
        cast(Clock, tuning.time).sleep(seconds)
        return np.ones((len(images), 1), np.float32)


def tuned(seconds: Seconds, wishes: Wishes) -> tuple[Plan, list[Trial], list[Timed]]:
    """The plan, what was tried, and the models that were opened; checks that they fit."""
    opened: list[Timed] = []

    def open_classifier(threads: int) -> Classifier:
        opened.append(Timed(threads, max(1, wishes.cores // threads), seconds))
        return cast(Classifier, opened[-1])

    classifier, plan, trials = tune(open_classifier, wishes)
    assert cast(Timed, classifier).threads == plan.threads
    chosen = [trial for trial in trials if trial.threads == plan.threads]
    assert {trial.callers for trial in chosen} == {plan.callers}
    for model in opened:
        assert set(model.sizes) == {t.batch for t in trials if t.threads == model.threads}
    return plan, trials, opened


def test_how_cores_are_split() -> None:
    _, trials, opened = tuned(lambda threads, batch: 0.005, Wishes(cores=9))
    assert [model.threads for model in opened] == [9, 3, 1]
    assert {(trial.threads, trial.callers) for trial in trials} == {(9, 1), (3, 3), (1, 9)}


@pytest.mark.parametrize(("cores", "threads", "callers"), [(6, 2, 3), (4, 8, 1), (5, 2, 2)])
def test_threads_that_are_wished_are_given(cores: int, threads: int, callers: int) -> None:
    wishes = Wishes(cores=cores, threads=threads)
    plan, _, opened = tuned(lambda threads, batch: 0.002, wishes)
    assert [model.threads for model in opened] == [threads] == [plan.threads]
    assert plan.callers == callers


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_a_batch_that_is_wished_is_given(batch: int) -> None:
    plan, trials, _ = tuned(lambda threads, batch: 0.002, Wishes(cores=2, batch=batch))
    assert plan.batch == batch
    assert {trial.batch for trial in trials} == {batch}


def test_a_batch_that_costs_no_more_than_one_image_is_large() -> None:
    plan, trials, _ = tuned(lambda threads, batch: 0.002, Wishes())
    assert plan.batch >= 4
    assert [trial.batch for trial in trials] == [1, 2, 4, 8, 16, 32][: len(trials)]


def test_a_batch_that_gains_nothing_is_not_made() -> None:
    plan, trials, _ = tuned(lambda threads, batch: 0.01 * batch**1.15, Wishes())
    assert plan.batch == 1
    assert len(trials) > 1


def test_what_gets_worse_is_not_pursued() -> None:
    plan, trials, _ = tuned(lambda threads, batch: 0.01 * batch**2, Wishes())
    assert plan.batch == 1
    assert [trial.batch for trial in trials] == [1, 2]


def test_threads_that_scale_are_used_for_latency() -> None:
    plan, _, _ = tuned(lambda threads, batch: 0.08 * batch / threads**1.2, Wishes(cores=4))
    assert (plan.threads, plan.callers) == (4, 1)


def test_threads_that_do_not_scale_become_callers() -> None:
    plan, trials, _ = tuned(lambda threads, batch: 0.005 * batch, Wishes(cores=4))
    assert (plan.threads, plan.callers) == (1, 4)
    assert {trial.threads for trial in trials} == {1, 2, 4}


def test_the_plan_says_what_was_measured() -> None:
    plan, trials, _ = tuned(
        lambda threads, batch: 0.01, Wishes(cores=2, threads=1, batch=4, max_delay=0.003)
    )
    (trial,) = trials
    assert plan == Plan(1, 2, 4, 0.003, False, 1 / trial.throughput)
    assert trial.throughput == 8 / (trial.latency + CALL_SECONDS)
    assert 0.01 <= trial.latency < 0.1


@pytest.mark.parametrize(
    ("cores", "seconds", "inline"),
    [(1, 0.0001, True), (1, 0.005, False), (2, 0.0001, False)],
    ids=["quick on one core", "slow on one core", "two cores"],
)
def test_the_event_loop_computes_what_is_quick_on_one_core(
    cores: int, seconds: float, inline: bool
) -> None:
    plan, _, _ = tuned(lambda threads, batch: seconds * batch, Wishes(cores=cores))
    assert plan.inline == inline


@pytest.mark.parametrize(("cores", "batch"), [(1, None), (4, 8)])
def test_a_slow_model_is_called_once(cores: int, batch: int | None, clock: Clock) -> None:
    plan, trials, (model,) = tuned(lambda threads, batch: 1.5, Wishes(cores=cores, batch=batch))
    assert clock.perf_counter() == 1.5
    assert model.sizes == [batch or 1]
    assert len(trials) == 1
    assert (plan.threads, plan.callers, plan.batch) == (cores, 1, batch or 1)


@pytest.mark.parametrize("milliseconds", [5, 150, 400])
def test_the_search_takes_about_a_second_at_most(milliseconds: int, clock: Clock) -> None:
    """A model whose threads gain nothing, and one whose threads gain all they can."""
    for seconds in (
        lambda threads, batch: milliseconds / 1000,
        lambda threads, batch: batch * milliseconds / 1000 / threads,
    ):
        started = clock.perf_counter()
        tuned(seconds, Wishes(cores=4))
        assert clock.perf_counter() - started < 1.5


def test_a_model_that_fails_says_so() -> None:
    def fail(threads: int, batch: int) -> float:
        raise BundleError("no")

    with pytest.raises(BundleError, match="no"):
        tuned(fail, Wishes(cores=2))


@pytest.mark.parametrize(
    ("text", "cores"), [("max 100000", 4), ("150000 100000", 2), ("1000 100000", 1)]
)
def test_a_containers_share_of_the_cores(
    text: str, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = tmp_path / "cpu.max"
    limit.write_text(text + "\n")
    monkeypatch.setattr(tuning, "CPU_LIMIT", limit)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 2, 4, 6})
    assert available_cores() == cores
    limit.unlink()
    assert available_cores() == 4
