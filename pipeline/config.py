"""The config tree: every option of a run, typed and validated, with its default and its meaning.

The text under each field is its line in `--help`. A section that has a `name` is a choice among
several forms, each with its own options; naming another form starts from that form's defaults.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from export.prepared_data import MAX_PROOF_EXAMPLES
from models.options import CnnOptions, ModelOptions, Options
from pipeline.options.augment import AugmentOptions
from pipeline.options.require import parse, split
from pipeline.options.training import TrainOptions
from serve.image_size import FORMS, parse_image_size
from serve.image_spec import MOST_PIXELS, ImageSpec

Side = Annotated[int, Field(ge=1, le=4096)]
Share = Annotated[float, Field(gt=0, lt=1)]


def _image_size(value: Any) -> Any:
    """Height and width from every form that people write; see `serve.image_size`."""
    if isinstance(value, str) or type(value) is int:
        return list(parse_image_size(str(value)))
    if isinstance(value, list) and len(value) == 2 and {type(side) for side in value} == {int}:
        return value
    raise ValueError(f"expected {FORMS}; got {value!r}")


Size = Annotated[list[Side], Field(min_length=2, max_length=2), BeforeValidator(_image_size)]


class PrepareOptions(Options):
    """How images become uint8 arrays and splits."""

    image_size: Size | None = None
    """Side, or height and width, in pixels (64, 64x48); null takes the source's own, or 96x96
    where its images differ in size or are larger than 512x512."""
    channels: Literal[1, 3] | None = None
    """1 for grey, 3 for RGB; null takes the source's own, 1 if all images are stored as grey."""
    resize: Literal["crop", "pad", "stretch"] = "crop"
    """How another shape is fitted: cut the middle out, pad, or ignore the aspect ratio."""
    resample: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    """Filter of the resize."""
    background: int = Field(255, ge=0, le=255)
    """Grey value under transparent pixels and around padded images."""
    max_pixels: int = Field(50_000_000, ge=1, le=MOST_PIXELS)
    """Largest width x height of an image as it is decoded; where scaled_decode shrinks a JPEG, its
    file may say up to 4 times as much."""
    scaled_decode: bool = True
    """Let the JPEG decoder itself shrink photos that are much too large: several times faster."""
    validation_share: Share = 0.1
    """Share of the training images set aside for validation, where the source has no such split."""
    test_share: Share = 0.2
    """Share of all images set aside for the test, where the source has no test split."""
    max_rejected_share: float = Field(0.01, ge=0, lt=1)
    """Share of unreadable images above which prepare stops."""

    def image_spec(self, image_size: tuple[int, int], channels: int) -> ImageSpec:
        """The image spec, with the source's size and channels where the options leave them open."""
        height, width = self.image_size or image_size
        return ImageSpec(
            height=height,
            width=width,
            channels=self.channels or channels,
            resize=self.resize,
            resample=self.resample,
            background=self.background,
            max_pixels=self.max_pixels,
            scaled_decode=self.scaled_decode,
        )


class EvaluateOptions(Options):
    """What is fitted on the validation split once the model is chosen."""

    temperature: bool = True
    """Scale the logits so that a probability is the share of right answers; no label changes."""
    coverage: float | None = Field(None, gt=0, le=1)
    """Share of images to answer; below the confidence that this takes, an answer is uncertain."""
    require: list[str] = []
    """Conditions without which nothing is released: `accuracy>=0.9, recall[cat]>=0.8, verdict`."""

    @field_validator("require", mode="before")
    @classmethod
    def _conditions(cls, value: Any) -> Any:
        """A text with commas is a list, too; each condition must say something."""
        conditions = split(value) if isinstance(value, str) else [] if value is None else value
        for condition in conditions if isinstance(conditions, list) else ():
            if isinstance(condition, str):
                parse(condition)
        return conditions


class QuantizeOptions(Options):
    """Whether an int8 bundle is looked for, and on how many images."""

    enabled: bool = True
    """Try int8, and keep it if it is faster here and as accurate."""
    calibration_images: int = Field(512, ge=1)
    """Training images from which the ranges of the tensors are found."""
    validation_images: int = Field(5000, ge=1)
    """Validation images that choose among the ways to quantize."""


class VerifyOptions(Options):
    """How much of the test split the proof covers."""

    max_examples: int = Field(MAX_PROOF_EXAMPLES, ge=1, le=MAX_PROOF_EXAMPLES)
    """Test images compared on every path; a larger split is sampled evenly."""


class Config(Options):
    """One run, from images to a proven bundle."""

    data: str = "digits"
    """Source of images: digits, fashion-mnist, folder:PATH, npz:PATH or tfds:NAME."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Decides splits, initial weights, order and augmentation."""
    deterministic: bool = False
    """Only operations that give the same bits every time, on a GPU too; slower there."""
    prepare: PrepareOptions = PrepareOptions()
    augment: AugmentOptions = AugmentOptions()
    model: Annotated[ModelOptions, Field(discriminator="name")] = CnnOptions()
    train: TrainOptions = TrainOptions()
    evaluate: EvaluateOptions = EvaluateOptions()
    quantize: QuantizeOptions = QuantizeOptions()
    verify: VerifyOptions = VerifyOptions()

    @model_validator(mode="after")
    def _methods_go_together(self) -> Self:
        augment, train = self.augment, self.train
        if (augment.mixup or augment.cutmix) and train.batch_size == 1:
            raise ValueError(
                "augment.mixup and augment.cutmix mix the images of a batch; expected a "
                "train.batch_size of 2 or more, got 1"
            )
        if train.pretraining.name == "contrastive":
            if train.batch_size in (1, "full") or train.part_size:
                raise ValueError(
                    "train.pretraining contrastive compares all images of a batch at once; "
                    "expected a train.batch_size of 2 or more and no train.part_size"
                )
            if not augment.alters_single_images:
                raise ValueError(
                    "train.pretraining contrastive compares two augmented views of an image; "
                    "expected some augmentation of single images, got none"
                )
        return self
