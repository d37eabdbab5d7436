"""When a training ends before its last epoch."""

import json

import keras
import pytest

from pipeline.training.callbacks import StopRules, stop_rules


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(stop_rules.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def rules(
    minutes: float | None = None, loss: float | None = None, change: float | None = None
) -> StopRules:
    callback = StopRules(minutes, loss, change)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.stop_training = False
    callback.set_model(model)
    return callback


def epochs_until_stop(callback: StopRules, losses: list[float]) -> int | None:
    for epoch, loss in enumerate(losses):
        callback.on_epoch_end(epoch, {"loss": loss})
        if callback.model.stop_training:
            return epoch + 1
    return None


def test_without_a_rule_nothing_stops(clock: Clock) -> None:
    callback = rules()
    clock.now += 1e9
    callback.on_train_batch_end(0)
    assert epochs_until_stop(callback, [1.0, 1.0, 0.0]) is None
    assert callback.reason is None


def test_a_loss_below_the_threshold_stops() -> None:
    callback = rules(loss=0.5)
    assert epochs_until_stop(callback, [0.9, 0.5, 0.49, 0.1]) == 3
    assert callback.reason == "the training loss 0.49 is below 0.5"


@pytest.mark.parametrize(
    ("losses", "stop"),
    [
        ([1.0, 0.5, 0.46, 0.1], 3),  # 8 %
        ([1.0, 0.9, 0.81], None),  # 10 % exactly is not less
        ([1.0, 1.05], 2),  # a rise is a change, too
        ([1.0, 1.2, 1.4], None),
        ([1.0], None),
    ],
)
def test_a_change_below_the_tolerance_stops(losses: list[float], stop: int | None) -> None:
    assert epochs_until_stop(rules(change=0.0999), losses) == stop


def test_time_that_is_over_stops_between_two_steps(clock: Clock) -> None:
    callback = rules(minutes=2)
    clock.now += 119.9
    callback.on_train_batch_end(0)
    assert not callback.model.stop_training
    clock.now += 0.1
    callback.on_train_batch_end(1)
    assert callback.model.stop_training
    assert callback.reason == "2 minutes are over"


def test_time_before_a_kill_counts_and_time_after_it_does_not(clock: Clock) -> None:
    before = rules(minutes=2)
    clock.now += 100
    state = json.loads(json.dumps(before.state()))
    clock.now += 10_000
    after = rules(minutes=2)
    after.restore(state, [])
    clock.now += 19
    after.on_train_batch_end(0)
    assert not after.model.stop_training
    clock.now += 1
    after.on_train_batch_end(1)
    assert after.model.stop_training


def test_what_it_compares_with_outlives_a_kill() -> None:
    before = rules(change=0.1)
    before.on_epoch_end(0, {"loss": 1.0})
    after = rules(change=0.1)
    after.restore(json.loads(json.dumps(before.state())), [])
    assert epochs_until_stop(after, [0.95]) == 1


def test_a_stop_in_an_epoch_outlives_a_kill_in_its_validation(clock: Clock) -> None:
    before = rules(minutes=1)
    clock.now += 61
    before.on_train_batch_end(3)
    after = rules(minutes=1)
    after.restore(json.loads(json.dumps(before.state())), [])
    assert epochs_until_stop(after, [0.7]) == 1
    assert after.reason == "1 minutes are over"
