"""The branch `train`: how the weights are found."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from models.options import Options
from pipeline.options.losses import CrossEntropyOptions, LossOptions
from pipeline.options.optimizers import MomentumOptions, OptimizerOptions
from pipeline.options.schedules import CosineOptions, ScheduleOptions, does_not_fit

MONITORS: dict[str, Literal["max", "min"]] = {
    "val_accuracy": "max",
    "val_loss": "min",
    "accuracy": "max",
    "loss": "min",
}
TIES = {"val_accuracy": "val_loss", "accuracy": "loss"}
"""Which loss decides between equal accuracies: on few images many epochs have the same."""


class ContrastiveOptions(Options):
    """Supervised contrastive learning of the features, first (Khosla et al. 2020)."""

    name: Literal["contrastive"] = "contrastive"
    epochs: int = Field(20, ge=1)
    """Passes over the training split, each image in two augmented views."""
    learning_rate: float | None = Field(None, gt=0)
    """Peak rate of a cosine with one epoch of warmup; null takes the optimizer's."""
    temperature: float = Field(0.1, gt=0)
    """By which similarities are divided."""
    units: int = Field(128, ge=1)
    """Size of the projection whose similarities are compared."""


class NoPretrainingOptions(Options):
    """None."""

    name: Literal["none"] = "none"


class TrainOptions(Options):
    """How the weights are found."""

    epochs: int = Field(20, ge=1)
    """Passes over the training split."""
    batch_size: Annotated[int, Field(ge=1)] | Literal["full"] = 128
    """Images per step: 1, a number, or "full" for all of them."""
    part_size: int | None = Field(None, ge=1)
    """Images computed at once; the gradients of a batch's parts are added up. Null: all, or 512."""
    max_steps: int | None = Field(None, ge=1)
    """Steps after which the training ends, in the middle of an epoch too; null sets no limit."""
    max_minutes: float | None = Field(None, gt=0)
    """Minutes after which the training ends, in the middle of an epoch too; null sets no limit."""
    stop_loss: float | None = Field(None, gt=0)
    """Stop after an epoch whose training loss is below this."""
    stop_change: float | None = Field(None, gt=0, lt=1)
    """Stop after an epoch in which the training loss changed by a smaller share than this."""
    optimizer: Annotated[OptimizerOptions, Field(discriminator="name")] = MomentumOptions()
    schedule: Annotated[ScheduleOptions, Field(discriminator="name")] = CosineOptions()
    loss: Annotated[LossOptions, Field(discriminator="name")] = CrossEntropyOptions()
    pretraining: Annotated[
        NoPretrainingOptions | ContrastiveOptions, Field(discriminator="name")
    ] = NoPretrainingOptions()
    frozen_epochs: int = Field(0, ge=0)
    """First epochs, which train the last layer alone: what lies before it was trained elsewhere."""
    frozen_learning_rate: float | None = Field(None, gt=0)
    """Rate in the frozen epochs, a constant one; null takes the optimizer's."""
    weight_average: float | None = Field(None, gt=0, lt=1)
    """Decay of a moving average of all weights, which is the model (Polyak and Juditsky 1992)."""
    monitor: Literal["val_accuracy", "val_loss", "accuracy", "loss"] = "val_accuracy"
    """Figure that picks the best epoch; the loss decides between epochs of equal accuracy."""
    early_stopping: int | None = Field(None, ge=1)
    """Stop after so many epochs without a better one; null trains all (Prechelt 1998)."""
    checkpoint_minutes: float = Field(5.0, gt=0)
    """Minutes after which the state is written within an epoch, too; it always is after one."""

    @model_validator(mode="after")
    def _epochs_fit(self) -> Self:
        if self.frozen_epochs > self.epochs:
            raise ValueError(
                f"frozen_epochs: expected at most {self.epochs}, the epochs of the run, "
                f"got {self.frozen_epochs}; set train.epochs or train.frozen_epochs"
            )
        if self.frozen_epochs < self.epochs:
            after = self.epochs - self.frozen_epochs
            problem = does_not_fit(self.schedule, after, self.frozen_epochs)
            if problem:
                raise ValueError(f"schedule.{problem}")
        return self
