"""Random changes to training images."""

from pydantic import Field

from models.options import Options

MIXES = ("mixup", "cutmix")


class AugmentOptions(Options):
    """Random changes to training images; a new draw for every image in every epoch."""

    crop_padding: int = Field(0, ge=0, le=256)
    """Pad by so many pixels on each side, then cut the image's size out at random."""
    resized_crop: float = Field(0.0, ge=0, lt=1)
    """Cut a part out and enlarge it (Szegedy et al. 2015): share of the area that is left out."""
    horizontal_flip: bool = False
    """Mirror left and right with probability 1/2."""
    vertical_flip: bool = False
    """Mirror up and down with probability 1/2."""
    rotation: float = Field(0.0, ge=0, le=180)
    """Rotate by an angle drawn from -rotation to +rotation, in degrees."""
    translation: float = Field(0.0, ge=0, lt=1)
    """Move by up to this share of the sides, each way."""
    zoom: float = Field(0.0, ge=0, lt=1)
    """Enlarge or shrink by up to this share."""
    brightness: float = Field(0.0, ge=0, le=1)
    """Multiply by a factor drawn from 1 - brightness to 1 + brightness."""
    contrast: float = Field(0.0, ge=0, le=1)
    """Multiply the distance from the mean grey by a factor drawn likewise."""
    saturation: float = Field(0.0, ge=0, le=1)
    """Multiply the distance of each pixel from its grey by a factor drawn likewise; RGB alone."""
    hue: float = Field(0.0, ge=0, le=0.5)
    """Turn the hue by up to this share of the circle, either way; RGB alone."""
    trivial: bool = False
    """One of 14 operations at a strength drawn anew (TrivialAugment, Müller and Hutter 2021)."""
    noise: float = Field(0.0, ge=0, le=128)
    """Deviation of Gaussian noise added to every value, in grey steps."""
    erasing: float = Field(0.0, ge=0, le=1)
    """Probability of filling a rectangle with noise (random erasing, Zhong et al. 2017)."""
    mixup: float = Field(0.0, ge=0, le=10)
    """Alpha of mixup, the weighted mean of two images and of their targets (Zhang et al. 2017)."""
    cutmix: float = Field(0.0, ge=0, le=10)
    """Alpha of CutMix, a rectangle from another image (Yun et al. 2019); with mixup, either one."""

    @property
    def alters_single_images(self) -> bool:
        """Whether anything but mixing is turned on."""
        return any(strength for name, strength in self if name not in MIXES)


def telling(height: int, width: int) -> AugmentOptions:
    """Everything, at strengths whose effect on images of this size can be seen."""
    return AugmentOptions(
        crop_padding=min(256, max(1, min(height, width) // 8)),
        resized_crop=0.7,
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
