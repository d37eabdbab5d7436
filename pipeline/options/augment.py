"""Random changes to training images."""

from typing import Any

from pydantic import Field, model_validator

from models.options import Options

MIXES = ("mixup", "cutmix")


class AugmentOptions(Options):
    """Random changes to training images; a new draw for every image in every epoch."""

    crop_padding: int = Field(0, ge=0, le=256)
    """Pixels to pad each side by before the size is cut out at random (He et al. 2015)."""
    resized_crop_min_area: float = Field(1.0, gt=0, le=1)
    """Cut a part out and enlarge it: smallest share of the area kept (Szegedy et al. 2015)."""
    horizontal_flip: bool = False
    """Mirror left and right with probability 1/2 (Krizhevsky et al. 2012)."""
    vertical_flip: bool = False
    """Mirror up and down with probability 1/2 (Dieleman et al. 2015)."""
    rotation: float = Field(0.0, ge=0, le=180)
    """Largest angle of a rotation either way, in degrees (Simard et al. 2003)."""
    translation: float = Field(0.0, ge=0, lt=1)
    """Largest move each way, as a share of width and height (Simard et al. 2003)."""
    zoom: float = Field(0.0, ge=0, lt=1)
    """Multiply the size by a factor drawn from 1 - zoom to 1 + zoom (Simard et al. 2003)."""
    brightness: float = Field(0.0, ge=0, le=1)
    """Multiply by a factor drawn from 1 - brightness to 1 + brightness (Howard 2013)."""
    contrast: float = Field(0.0, ge=0, le=1)
    """Multiply the distance from the mean grey by a factor drawn likewise (Howard 2013)."""
    saturation: float = Field(0.0, ge=0, le=1)
    """Multiply the distance from each pixel's grey by a factor; RGB alone (Howard 2013)."""
    hue: float = Field(0.0, ge=0, le=0.5)
    """Largest turn of the hue either way, share of the circle; RGB alone (Szegedy et al. 2015)."""
    trivial: bool = False
    """One of 14 operations at a strength drawn anew (TrivialAugment, Müller and Hutter 2021)."""
    noise: float = Field(0.0, ge=0, le=128)
    """Deviation of Gaussian noise added to every value, in grey steps (Bishop 1995)."""
    erasing: float = Field(0.0, ge=0, le=1)
    """Probability of filling a rectangle with noise (random erasing, Zhong et al. 2017)."""
    mixup: float = Field(0.0, ge=0, le=10)
    """Alpha of mixup, the weighted mean of two images and of their targets (Zhang et al. 2017)."""
    cutmix: float = Field(0.0, ge=0, le=10)
    """Alpha of CutMix, a rectangle from another image (Yun et al. 2019); with mixup, either one."""

    @model_validator(mode="before")
    @classmethod
    def _not_the_share_left_out(cls, values: Any) -> Any:
        """Earlier configs have `resized_crop`, the share of the area that is left out; 0 is none.

        Raises ValueError: it is another number, or a word.
        """
        if not isinstance(values, dict) or "resized_crop" not in values:
            return values
        share = values["resized_crop"]
        if share == 0:
            return {name: value for name, value in values.items() if name != "resized_crop"}
        raise ValueError(
            "resized_crop is resized_crop_min_area now, the smallest share of the area that is "
            f"kept, in place of the largest that is left out; got resized_crop {share!r}"
        )

    def turned_on(self) -> dict[str, float]:
        """What is not at its default, at which each does nothing."""
        return {
            name: value for name, value in self if value != type(self).model_fields[name].default
        }

    @property
    def alters_single_images(self) -> bool:
        """Whether anything but mixing is turned on."""
        return any(name not in MIXES for name in self.turned_on())


def telling(height: int, width: int) -> AugmentOptions:
    """Everything, at strengths whose effect on images of this size can be seen."""
    return AugmentOptions(
        crop_padding=min(256, max(1, min(height, width) // 8)),
        resized_crop_min_area=0.3,
        horizontal_flip=True,
        vertical_flip=True,
        rotation=30,
        translation=0.2,
        zoom=0.3,
        brightness=0.5,
        contrast=0.7,
        saturation=0.9,
        hue=0.5,
        trivial=True,
        noise=24,
        erasing=1,
        mixup=1,
        cutmix=1,
    )


def alone(options: AugmentOptions, name: str) -> AugmentOptions:
    """One of the options as it is, and no other."""
    return AugmentOptions(**{name: getattr(options, name)})
