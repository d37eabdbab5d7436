"""The learning rate that a config asks for at every step."""

from typing import Any

from pipeline.config import Config
from pipeline.options.schedules import AdaptiveCosineOptions, PlateauOptions
from pipeline.options.training import TrainOptions
from pipeline.training.schedules import adaptive_cycles, build_schedule, cosine_annealing


def planned_rates(config: Config, training: dict[str, Any]) -> list[float]:
    """The rate of every step of the classifier, over all its phases: as planned to the end, or,
    where the schedule decides as it goes, in the epochs that there were.

    Args:
        training: what training.json holds; the decisions are taken from it, the rates are not.
    """
    options, steps_per_epoch = config.train, training["steps_per_epoch"]
    steps = options.epochs * steps_per_epoch
    if options.max_steps:
        steps = min(steps, options.max_steps)
    frozen = min(steps, options.frozen_epochs * steps_per_epoch)
    rate = options.frozen_learning_rate or options.optimizer.learning_rate
    return [rate] * frozen + _scheduled(options, training, steps - frozen)


def _scheduled(options: TrainOptions, training: dict[str, Any], steps: int) -> list[float]:
    """The rates of the last phase, of so many steps."""
    schedule, peak = options.schedule, options.optimizer.learning_rate
    steps_per_epoch = training["steps_per_epoch"]
    if isinstance(schedule, AdaptiveCosineOptions | PlateauOptions):
        first = options.frozen_epochs
        lowered = [item["epoch"] for item in training["rate_decisions"] if item["lowered"]]
        rates = [
            _decided(
                schedule,
                peak,
                epoch - first,
                lowered=sum(epoch >= after for after in lowered),
                epochs=options.epochs - first,
            )
            for epoch in range(first, training["epochs"])
        ]
        return [rate for rate in rates for _ in range(steps_per_epoch)][:steps]
    rate_of = build_schedule(schedule, peak=peak, steps_per_epoch=steps_per_epoch, steps=steps)
    return [rate_of(step) for step in range(steps)]


def _decided(
    options: AdaptiveCosineOptions | PlateauOptions,
    peak: float,
    epoch: int,
    *,
    lowered: int,
    epochs: int,
) -> float:
    """The rate of an epoch of so many, counted from 0, after so many lowerings of the bounds."""
    scale = options.factor**lowered
    if isinstance(options, PlateauOptions):
        return peak * max(scale, options.floor)
    return cosine_annealing(
        epoch,
        highest=peak * scale,
        lowest=peak * options.floor * scale,
        ends=adaptive_cycles(options, epochs),
    )
