"""The phases of a training: one after the other, each with an optimizer and a plan of its own.

pretraining  the features alone, by contrast            (train.pretraining)
frozen       the last layer alone, upon what is there   (train.frozen_epochs)
training     all layers
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

from export.prepared_data import PreparedData
from export.run_directory import RunDirectory
from pipeline.config import Config
from pipeline.options.schedules import CosineOptions
from pipeline.options.training import MONITORS, ContrastiveOptions
from pipeline.training.accumulation import accumulating_step
from pipeline.training.build import (
    batch_and_part,
    build_variables,
    compile_model,
    learning_rate,
    make_plan,
    make_pretraining_plan,
)
from pipeline.training.callbacks import (
    Best,
    HistoryFile,
    LearningRate,
    StopRules,
    TensorBoardLogs,
    WeightAverage,
)
from pipeline.training.contrastive import SupervisedContrastive, contrastive_model
from pipeline.training.loop import Plan, Training
from pipeline.training.optimizers import build_optimizer
from pipeline.training.schedules import build_schedule


@dataclass(frozen=True)
class Phase:
    """A part of a training.

    Attributes:
        begin: compiles the model for it; the weights are those that the phase before left.
    """

    name: str
    begin: Callable[[], Training]


class Phases:
    """The phases that a config asks for, and what they have in common.

    Attributes:
        all: in order.
        best, history, rules: of the classifier, over all its phases.
        steps_per_epoch: of the classifier's training.
        decisions: what such a schedule decided, as its callback has it.
    """

    def __init__(
        self,
        config: Config,
        data: PreparedData,
        run: RunDirectory,
        model: keras.Model,
        watcher: keras.callbacks.Callback | None,
    ) -> None:
        options = config.train
        self._config, self._data, self._run, self._model = config, data, run, model
        self._watchers = [watcher] if watcher else []
        self._frozen: list[keras.layers.Layer] = []
        self._average: WeightAverage | None = None
        self._rate: keras.callbacks.Callback | None = None
        self.best = Best(options.monitor, MONITORS[options.monitor], options.early_stopping)
        self._sizes = len(data.indices("train")), batch_and_part(config, data)[0]
        self.history = HistoryFile(run.history, *self._sizes)
        self.rules = StopRules(options.max_minutes, options.stop_loss, options.stop_change)
        frozen, end = options.frozen_epochs, options.epochs
        self.all = [Phase("pretraining", self._pretrain)] if self._contrast else []
        if frozen:
            plan = make_plan(config, data, 0, frozen, "frozen, ")
            self.all.append(Phase("frozen", lambda: self._train_head(plan)))
        rest = make_plan(config, data, frozen, end)
        self.steps_per_epoch = rest.steps_per_epoch
        if rest.steps > 0:
            self.all.append(Phase("training", lambda: self._train(rest)))

    @property
    def decisions(self) -> list[dict[str, Any]]:
        return getattr(self._rate, "decisions", [])

    def is_last(self, phase: Phase) -> bool:
        """Whether the training ends with this phase."""
        return phase is self.all[-1] or self.rules.reason is not None

    @property
    def _contrast(self) -> ContrastiveOptions | None:
        options = self._config.train.pretraining
        return options if isinstance(options, ContrastiveOptions) else None

    def _pretrain(self) -> Training:
        options, train = self._contrast, self._config.train
        assert options
        model = contrastive_model(self._model, options.units)
        rate = options.learning_rate or train.optimizer.learning_rate
        optimizer = train.optimizer.model_copy(update={"learning_rate": rate})
        model.compile(
            build_optimizer(optimizer, model.trainable_variables),
            SupervisedContrastive(options.temperature),
        )
        build_variables(model)
        plan = make_pretraining_plan(self._config, self._data, options.epochs)
        schedule = build_schedule(
            CosineOptions(warmup_epochs=min(1, options.epochs / 2)),
            peak=rate,
            steps_per_epoch=plan.steps_per_epoch,
            steps=plan.steps,
        )
        callbacks = [
            LearningRate(schedule),
            HistoryFile(self._run.pretraining, *self._sizes),
            TensorBoardLogs(self._run.logs / "pretraining"),
        ]
        return Training(model, plan, callbacks, verbose=_verbose())

    def _train_head(self, plan: Plan) -> Training:
        for layer in self._model.get_layer("core").layers:
            if layer.trainable and layer.name != "logits":
                layer.trainable = False
                self._frozen.append(layer)
        train = self._config.train
        rate = train.frozen_learning_rate or train.optimizer.learning_rate
        return self._begin(plan, LearningRate(lambda step: rate))

    def _train(self, plan: Plan) -> Training:
        for layer in self._frozen:
            layer.trainable = True
        self._rate = learning_rate(self._config, plan)
        return self._begin(plan, self._rate)

    def _begin(self, plan: Plan, rate: keras.callbacks.Callback) -> Training:
        judged, model, config = self._model, self._model, self._config
        callbacks = [rate]
        if decay := config.train.weight_average:
            self._average = self._average or WeightAverage(model, decay)
            judged = self._average.model_of_averages
            compile_model(judged, config, self._data)
            callbacks.append(self._average)
        compile_model(model, config, self._data)
        self.best.judged = judged
        logs = TensorBoardLogs(self._run.logs)
        callbacks += [self.best, self.rules, self.history, logs, *self._watchers]
        batch, part = batch_and_part(config, self._data)
        step = accumulating_step(model) if part < batch else None
        return Training(model, plan, callbacks, judged=judged, step=step, verbose=_verbose())


def _verbose() -> int:
    return 1 if sys.stdout.isatty() else 2
