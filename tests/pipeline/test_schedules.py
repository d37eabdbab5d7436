"""Every schedule against its closed form, at every step."""

import math
from itertools import pairwise
from typing import get_args

import keras
import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from pipeline.options.schedules import (
    AdaptiveCosineOptions,
    ByStepOptions,
    ConstantOptions,
    CosineOptions,
    CosineRestartsOptions,
    ExponentialOptions,
    InverseTimeOptions,
    OneCycleOptions,
    PolynomialOptions,
    StepOptions,
)
from pipeline.recipe import ConfigError, resolve
from pipeline.training.callbacks import AdaptiveCosine, Plateau
from pipeline.training.schedules import (
    adaptive_cycles,
    build_schedule,
    cosine_annealing,
    cosine_decay,
    one_cycle,
    restarts,
)

STEPS, EPOCHS, PEAK = 7, 30, 0.4
"""Steps in an epoch, epochs, and the peak rate of the tables below."""


def schedule_of(options: ByStepOptions) -> NDArray[np.float64]:
    schedule = build_schedule(options, peak=PEAK, steps_per_epoch=STEPS, steps=STEPS * EPOCHS)
    return np.array([schedule(step) for step in range(STEPS * EPOCHS)])


def epochs() -> NDArray[np.float64]:
    return np.arange(STEPS * EPOCHS) / STEPS


def progress_after(warmup: int) -> NDArray[np.float64]:
    """0 at the first step after the warmup, 1 at the last of all."""
    return np.linspace(0, 1, STEPS * EPOCHS - warmup)


def half_cosine(count: int) -> NDArray[np.float64]:
    """From 1 towards 0, which the next value would be."""
    return (1 + np.cos(np.pi * np.arange(count) / count)) / 2


CLOSED_FORMS: list[tuple[ByStepOptions, NDArray[np.float64]]] = [
    (ConstantOptions(), np.full(STEPS * EPOCHS, PEAK)),
    (
        StepOptions(every_epochs=10, factor=0.5),
        np.repeat([PEAK, PEAK / 2, PEAK / 4], 10 * STEPS),
    ),
    (StepOptions(every_epochs=40), np.full(STEPS * EPOCHS, PEAK)),
    (StepOptions(every=1 / 3, factor=0.5), np.repeat([PEAK, PEAK / 2, PEAK / 4], 10 * STEPS)),
    (ExponentialOptions(factor=0.8), PEAK * np.exp(epochs() * math.log(0.8))),
    (InverseTimeOptions(decay=0.25), PEAK * 4 / (4 + epochs())),
    (PolynomialOptions(), PEAK * (1 - progress_after(0))),
    (
        PolynomialOptions(power=2, warmup_epochs=2, floor=0.1),
        PEAK
        * np.concatenate([np.arange(1, 15) / 14, 0.1 + 0.9 * np.square(1 - progress_after(14))]),
    ),
    (
        CosineOptions(warmup_epochs=1, floor=0.2),
        PEAK * np.concatenate([np.arange(1, 8) / 7, 0.6 + 0.4 * np.cos(np.pi * progress_after(7))]),
    ),
    (
        # cycles of 2, 4, 8, 16 epochs
        CosineRestartsOptions(cycle_epochs=2, multiplier=2, decay=0.5, floor=0.05),
        PEAK
        * np.concatenate(
            [
                0.05 + (height - 0.05) * half_cosine(length * STEPS)
                for height, length in ((1, 2), (0.5, 4), (0.25, 8), (0.125, 16))
            ]
        ),
    ),
    (
        CosineRestartsOptions(cycle_epochs=3, multiplier=1),
        PEAK * np.tile(half_cosine(3 * STEPS), 10),
    ),
    (
        # two cycles, of a third and two thirds of the run
        CosineRestartsOptions(cycles=2, decay=0.5),
        PEAK * np.concatenate([half_cosine(10 * STEPS), half_cosine(20 * STEPS) / 2]),
    ),
    (
        CosineRestartsOptions(cycles=6, multiplier=1),
        PEAK * np.tile(half_cosine(5 * STEPS), 6),
    ),
    (
        CosineOptions(warmup=0.1, floor=0.2),
        PEAK
        * np.concatenate([np.arange(1, 22) / 21, 0.6 + 0.4 * np.cos(np.pi * progress_after(21))]),
    ),
    (
        PolynomialOptions(warmup=1 / 30),
        PEAK * np.concatenate([np.arange(1, 8) / 7, 1 - progress_after(7)]),
    ),
    (
        # the peak at step 63 of 209
        OneCycleOptions(rise=0.3, start=0.1, end=0.0),
        PEAK
        * np.concatenate(
            [
                0.55 - 0.45 * np.cos(np.pi * np.arange(63) / 63),
                0.5 + 0.5 * np.cos(np.pi * np.linspace(0, 1, 147)),
            ]
        ),
    ),
]


@pytest.mark.parametrize(
    ("options", "expected"), CLOSED_FORMS, ids=lambda item: type(item).__name__
)
def test_a_schedule_follows_its_closed_form(
    options: ByStepOptions, expected: NDArray[np.float64]
) -> None:
    np.testing.assert_allclose(schedule_of(options), expected, rtol=1e-12, atol=1e-15)


def test_no_schedule_is_left_out() -> None:
    assert {type(options) for options, _ in CLOSED_FORMS} == set(get_args(ByStepOptions))


@pytest.mark.parametrize("options", [form() for form in get_args(ByStepOptions)], ids=repr)
@pytest.mark.parametrize(("steps", "epochs"), [(1, 1), (1, 2), (2, 1), (3, 7), (100, 1)])
def test_the_shortest_runs_stay_in_range(options: ByStepOptions, steps: int, epochs: int) -> None:
    schedule = build_schedule(options, peak=PEAK, steps_per_epoch=steps, steps=steps * epochs)
    rates = [schedule(step) for step in range(steps * epochs + 5)]
    assert all(0 <= rate <= PEAK for rate in rates), rates
    assert max(rates[: steps * epochs]) > 0


def test_the_last_cycle_ends_with_the_run_whatever_its_length() -> None:
    for steps in (10, 21, 100, 333):
        for multiplier in (1.0, 1.5, 2.0):
            options = CosineRestartsOptions(cycles=3, multiplier=multiplier)
            ends = restarts(options, 1, steps)
            assert ends[-1] == steps
            assert ends == sorted({round(end) for end in ends}), "cycles of no length"
            schedule = build_schedule(options, peak=1.0, steps_per_epoch=1, steps=steps)
            assert [step for step in range(steps) if schedule(step) == 1.0] == [0, *ends[:-1]]
            assert schedule(steps) == 0, "behind the last cycle stays the lowest rate"


@pytest.mark.parametrize(
    ("options", "epochs", "ends"),
    [
        (AdaptiveCosineOptions(), 20, [5, 10, 15, 20]),
        (AdaptiveCosineOptions(), 10, [2, 5, 8, 10]),
        (AdaptiveCosineOptions(), 3, [1, 2, 3]),
        (AdaptiveCosineOptions(), 1, [1]),
        (AdaptiveCosineOptions(cycles=1), 7, [7]),
        (AdaptiveCosineOptions(cycle_epochs=4), 12, [4, 8, 12]),
    ],
)
def test_adaptive_cycles_share_the_epochs_of_the_run(
    options: AdaptiveCosineOptions, epochs: int, ends: list[int]
) -> None:
    assert adaptive_cycles(options, epochs) == ends


# Lengths in shares of the run, or in epochs


@pytest.mark.parametrize(
    ("form", "share", "epochs"),
    [
        (CosineOptions, {"warmup": 0.1}, {"warmup_epochs": 2.5}),
        (PolynomialOptions, {"warmup": 0.1}, {"warmup_epochs": 2.0}),
        (StepOptions, {"every": 0.25}, {"every_epochs": 3}),
        (CosineRestartsOptions, {"cycles": 4}, {"cycle_epochs": 4}),
        (AdaptiveCosineOptions, {"cycles": 4}, {"cycle_epochs": 3}),
    ],
    ids=lambda item: getattr(item, "__name__", None) or "-".join(item),
)
def test_a_length_is_given_in_one_way_and_the_later_one_counts(
    form: type[ByStepOptions], share: dict[str, float], epochs: dict[str, float]
) -> None:
    (name,), (in_epochs,) = share, epochs
    assert getattr(form(**epochs), name) is None, "the default share is no second way"
    with pytest.raises(ValidationError, match=f"expected {name} or {in_epochs}, got both"):
        form(**share, **epochs)
    with pytest.raises(ValidationError, match=f"expected {name} or {in_epochs}, got neither"):
        form(**{name: None, in_epochs: None})

    def scheduled(recipe: dict[str, float], given: dict[str, float]) -> tuple[object, object]:
        chosen = {"name": form.model_fields["name"].default, **recipe}
        overrides = {f"train.schedule.{key}": value for key, value in given.items()}
        schedule = resolve({"train": {"epochs": 12, "schedule": chosen}}, overrides).train.schedule
        return getattr(schedule, name), getattr(schedule, in_epochs)

    assert scheduled(share, epochs) == (None, epochs[in_epochs])
    assert scheduled(epochs, share) == (share[name], None)
    with pytest.raises(ConfigError, match=f"^train.schedule: expected {name} or {in_epochs}, got"):
        scheduled({}, {**share, **epochs})


def test_a_config_of_an_earlier_release_keeps_its_epochs() -> None:
    schedule = {"name": "cosine", "warmup_epochs": 2.0, "floor": 0.01}
    assert resolve({"train": {"schedule": schedule}}, {}).train.schedule == CosineOptions(
        warmup_epochs=2.0
    )


def test_lengths_follow_the_steps_that_a_limit_leaves() -> None:
    options = CosineOptions(warmup=0.1)
    schedule = build_schedule(options, peak=1.0, steps_per_epoch=100, steps=40)
    assert [round(schedule(step), 3) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_a_restart_that_would_not_reach_the_floor_stays_on_it() -> None:
    options = CosineRestartsOptions(cycle_epochs=1, multiplier=1, decay=0.1, floor=0.5)
    assert schedule_of(options)[STEPS:].tolist() == [PEAK / 2] * (STEPS * (EPOCHS - 1))


def test_one_cycle_has_its_peak_where_it_says() -> None:
    rates = [
        one_cycle(step, peak=1.0, total_steps=101, rise=0.4, start=0.2, end=0.1)
        for step in range(101)
    ]
    assert rates[0] == pytest.approx(0.2)
    assert rates.index(max(rates)) == 40
    assert rates[40] == 1.0
    assert rates[-1] == pytest.approx(0.1)


def rates(total: int, warmup: int, floor: float, peak: float = 0.4) -> list[float]:
    return [
        cosine_decay(step, peak=peak, total_steps=total, warmup_steps=warmup, floor=floor)
        for step in range(total)
    ]


def test_cosine_decay_begins_at_the_peak_and_ends_at_the_floor() -> None:
    found = rates(total=101, warmup=0, floor=0.1)
    for step, rate in enumerate(found):
        share = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / 100))
        assert rate == pytest.approx(0.4 * share)
    assert found[0] == 0.4
    assert found[50] == pytest.approx(0.4 * 0.55)
    assert found[-1] == pytest.approx(0.04)
    assert all(later < earlier for earlier, later in pairwise(found))


def test_cosine_decay_warms_up_in_equal_steps() -> None:
    found = rates(total=30, warmup=4, floor=0)
    assert found[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])
    assert found[-1] == 0


@pytest.mark.parametrize(("total", "warmup"), [(1, 0), (1, 1), (5, 5), (3, 9), (2, 1)])
def test_cosine_decay_of_very_short_runs_stays_in_range(total: int, warmup: int) -> None:
    assert all(0 <= rate <= 0.4 for rate in rates(total, warmup, 0.1))


def test_cosine_decay_after_the_end_keeps_the_last_rate() -> None:
    late = cosine_decay(1000, peak=1.0, total_steps=10, warmup_steps=0, floor=0.25)
    assert late == pytest.approx(0.25)


def test_adaptive_cosine_annealing_decides_as_worked_out_by_hand(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Cycles of two epochs from 0.8 to 0.2, halved after a cycle that was worse.

    A cycle begins at the upper bound; its second epoch lies in the middle of the bounds.
    """
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1.0), "mse")
    callback = AdaptiveCosine(
        highest=0.8, lowest=0.2, ends=[2, 4, 6, 8, 10, 12, 14, 16], factor=0.5
    )
    callback.set_model(model)
    table = [
        # loss, accuracy, rate of the epoch
        (1.0, 0.50, 0.8), (0.8, 0.60, 0.5),  # means 0.9 and 0.55: nothing to compare with
        (0.7, 0.60, 0.8), (0.7, 0.70, 0.5),  # 0.7 and 0.65: both better, the bounds stay
        (0.9, 0.90, 0.8), (0.7, 0.90, 0.5),  # 0.8 and 0.90: the loss rose, halved
        (0.6, 0.80, 0.4), (0.6, 0.70, 0.25),  # 0.6 and 0.75: the accuracy fell, halved again
        (0.6, 0.75, 0.2), (0.6, 0.75, 0.125),  # 0.6 and 0.75: neither, the bounds stay
        (0.5, 0.80, 0.2), (0.5, 0.80, 0.125),  # better
        (0.8, 0.70, 0.2), (0.8, 0.70, 0.125),  # both worse: halved, once
        (0.8, 0.70, 0.1),
    ]  # fmt: skip
    for epoch, (loss, accuracy, rate) in enumerate(table):
        callback.on_epoch_begin(epoch)
        assert float(model.optimizer.learning_rate.numpy()) == pytest.approx(rate), epoch
        callback.on_epoch_end(epoch, {"loss": loss, "accuracy": accuracy})
    assert [cycle["lowered"] for cycle in callback.decisions] == [
        False, False, True, True, False, False, True,
    ]  # fmt: skip
    assert [cycle["epoch"] for cycle in callback.decisions] == [2, 4, 6, 8, 10, 12, 14]
    assert [cycle["highest"] for cycle in callback.decisions] == pytest.approx(
        [0.8, 0.8, 0.4, 0.2, 0.2, 0.2, 0.1]
    )
    assert [cycle["lowest"] for cycle in callback.decisions] == pytest.approx(
        [0.2, 0.2, 0.1, 0.05, 0.05, 0.05, 0.025]
    )
    assert callback.decisions[2]["reason"] == "the loss rose"
    assert callback.decisions[2]["loss"] == pytest.approx(0.8)
    assert callback.decisions[2]["accuracy"] == pytest.approx(0.9)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("; ")[2] for line in lines] == [
        "rates stay",
        "rates stay",
        "the loss rose, rates x 0.5",
        "the accuracy fell, rates x 0.5",
        "rates stay",
        "rates stay",
        "the loss rose and the accuracy fell, rates x 0.5",
    ]


def test_cosine_annealing_follows_its_closed_form() -> None:
    for epoch in range(12):
        rate = cosine_annealing(epoch, highest=0.5, lowest=0.1, ends=[4, 8, 12])
        share = (1 + math.cos(math.pi * (epoch % 4) / 4)) / 2
        assert rate == pytest.approx(0.1 + 0.4 * share)
    assert cosine_annealing(7, highest=0.5, lowest=0.1, ends=range(1, 9)) == 0.5
    assert cosine_annealing(9, highest=0.5, lowest=0.1, ends=[4, 9]) == 0.1


def test_a_plateau_lowers_the_rate_as_worked_out_by_hand() -> None:
    """Patience 2, from 0.8 to 0.1 at least, halved."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1.0), "mse")
    callback = Plateau(
        peak=0.8, lowest=0.15, factor=0.5, patience=2, monitor="val_loss", mode="min"
    )
    callback.set_model(model)
    table = [
        # val_loss, rate of the epoch
        (1.0, 0.8), (0.9, 0.8), (0.9, 0.8), (0.95, 0.8),  # twice no better than 0.9
        (0.91, 0.4), (0.8, 0.4), (0.85, 0.4), (0.7, 0.4),  # better in time, both times
        (0.7, 0.4), (0.7, 0.4),  # equal is not better
        (0.7, 0.2), (0.7, 0.2),
        (0.6, 0.15),  # 0.1 would be below the lowest
    ]  # fmt: skip
    for epoch, (loss, rate) in enumerate(table):
        callback.on_epoch_begin(epoch)
        assert float(model.optimizer.learning_rate.numpy()) == pytest.approx(rate), epoch
        callback.on_epoch_end(epoch, {"val_loss": loss})
    assert callback.decisions == [
        {"epoch": 4, "lowered": True, "best": 0.9, "rate": pytest.approx(0.4)},
        {"epoch": 10, "lowered": True, "best": 0.7, "rate": pytest.approx(0.2)},
        {"epoch": 12, "lowered": True, "best": 0.7, "rate": pytest.approx(0.15)},
    ]
