"""A training of a few steps, of which nothing is kept."""

import keras

from export.prepared_data import PreparedData
from pipeline.config import Config
from pipeline.training.accumulation import accumulating_step
from pipeline.training.build import batch_and_part, build_model, compile_model, make_plan
from pipeline.training.device import prepare_device
from pipeline.training.warm_start import start_from


class Trial:
    """A new model with its optimizer, loss and batches, as a run of this config trains all layers.

    Args:
        steps: how many there may be.

    Attributes:
        model: the one that is trained.
        device: where.

    Raises:
        ConfigError: the model cannot be built for these images.
    """

    def __init__(self, config: Config, data: PreparedData, steps: int) -> None:
        self.device = prepare_device(deterministic=config.deterministic)
        keras.utils.set_random_seed(config.seed)
        self.model = build_model(config, data)
        if config.model.init_from:
            start_from(self.model, config.model.init_from)
        compile_model(self.model, config, data)
        self.model.make_train_function()
        batch, part = batch_and_part(config, data)
        self._train = accumulating_step(self.model) if part < batch else self.model.train_function
        # An epoch may be a single step.
        long_enough = config.train.model_copy(update={"epochs": steps})
        plan = make_plan(config.model_copy(update={"train": long_enough}), data)
        self._batches = iter(plan.batches(0))

    def step(self, learning_rate: float) -> float:
        """Train on the next batch; gives its loss before the update."""
        self.model.optimizer.learning_rate = learning_rate
        self.model.reset_metrics()  # or the loss were the mean of all steps so far
        return float(self._train(self._batches)["loss"])
