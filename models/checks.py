"""Which options contradict each other or the images; free of Keras, so that it is said early."""

from models import backbones
from models.options import (
    CnnOptions,
    FastOptions,
    LenetOptions,
    ModelOptions,
    PretrainedOptions,
    ResidualOptions,
    ResnetOptions,
    WideResnetOptions,
)

OUTSIDE_BLOCKS = {"resnet": 2, "wide-resnet": 4}
"""Weighted layers outside of the blocks, of which each third has two in every block."""


HALVED_TWICE = 4
"""Smallest side of images, in pixels, for a network that halves the sides twice."""


def check(options: ModelOptions, image_size: tuple[int, int] | None) -> None:
    """Whether a model can be built, as far as it is known before any image is read.

    Args:
        image_size: height and width, or None if they are not known yet.

    Raises:
        ValueError: these options contradict each other, or images of this size are too small.
    """
    match options:
        case CnnOptions():
            convolutions(options)
            if image_size:
                check_cnn_size(image_size, options)
        case ResnetOptions() | WideResnetOptions():
            blocks(options)
            if image_size:
                check_side(options.name, image_size, HALVED_TWICE)
        case LenetOptions():
            if image_size:
                check_side(options.name, image_size, HALVED_TWICE)
        case FastOptions():
            if image_size:
                check_fast_size(image_size, options)
        case PretrainedOptions():
            backbones.check_name(options.backbone)
            if image_size:
                backbones.check_size(options.backbone, *image_size)


def convolutions(options: CnnOptions) -> list[int]:
    """How many convolutions each stage has.

    Raises:
        ValueError: there are more or fewer numbers than stages.
    """
    stages = len(options.filters)
    if isinstance(options.convolutions, int):
        return [options.convolutions] * stages
    if len(options.convolutions) != stages:
        raise ValueError(
            f"model cnn: expected convolutions for each of the {stages} stages that filters gives, "
            f"got {options.convolutions}"
        )
    return options.convolutions


def check_cnn_size(image_size: tuple[int, int], options: CnnOptions) -> None:
    """Raises ValueError: a stage would leave no pixel, or the stem cannot halve the sides."""
    height, width = image_size
    side = min(height, width)
    if options.stem == "haar":
        if height % 2 or width % 2:
            raise ValueError(
                f"model cnn: stem haar halves the sides: expected even ones, got {height}x{width}; "
                "set --prepare.image_size, or leave the stem out"
            )
        side //= 2
    for stage in range(1, len(options.filters) + 1):
        side = -(-side // options.stride)
        if options.pooling != "none":
            side //= options.pool_size
        if side < 1:
            raise ValueError(
                f"model cnn: images of {height}x{width} have no pixel left after stage {stage} of "
                f"{len(options.filters)}; use fewer filters (stages), a smaller stride or "
                "pool_size, or larger images"
            )


def check_fast_size(image_size: tuple[int, int], options: FastOptions) -> None:
    """Raises ValueError: the sides cannot be halved as often as `widths` has stages."""
    stages = len(options.widths)
    hint = f" for {stages} stages; use fewer widths, or larger images"
    check_side(options.name, image_size, 2 ** (stages - 1) + 2, hint)


def check_side(name: str, image_size: tuple[int, int], smallest: int, hint: str = "") -> None:
    """Raises ValueError: a side of the images has fewer than `smallest` pixels."""
    height, width = image_size
    if min(height, width) < smallest:
        raise ValueError(
            f"model {name}: expected images of at least {smallest}x{smallest}, got "
            f"{height}x{width}{hint}"
        )


def blocks(options: ResidualOptions) -> int:
    """Residual blocks in each of the three stages.

    Raises:
        ValueError: the depth is not 6n + 2, for a wide network 6n + 4.
    """
    outside = OUTSIDE_BLOCKS[options.name]
    number, rest = divmod(options.depth - outside, 6)
    if rest:
        lower = options.depth - rest
        raise ValueError(
            f"model {options.name}: expected a depth of 6n + {outside}, got {options.depth}; "
            f"nearest are {lower} and {lower + 6}"
        )
    return number
