"""What a person says of a model that says nothing of itself, and how it is said on a command line.

    --labels labels.txt --image-size 224 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225

Shared by the commands that take ONNX classifiers of any origin, and Keras models of any origin.
"""

import argparse
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serve.command import LockstepError
from serve.image_size import parse_image_size
from serve.image_spec import RESAMPLINGS, RESIZES, ImageSpec
from serve.multi_label import for_each_label

OUTPUTS = ("auto", "logits", "probabilities", "sigmoid")
DEFAULT_THRESHOLD = 0.5


class ForeignModelError(LockstepError):
    """A model that cannot be used as it was described."""


@dataclass(frozen=True)
class Description:
    """What a person says of a model.

    Attributes:
        class_names: label of each output, in order.
        image_size: height and width in pixels; None takes the graph's.
        channels: 1 or 3; None takes the graph's.
        resize, resample, background, scaled_decode: as in `ImageSpec`.
        mean, std: per channel, or one for all, in units of pixel / 255; None if nothing was said.
        outputs: "logits" (a softmax belongs behind), "probabilities" (that sum to 1), "sigmoid"
            (each output stands for itself), or "auto": by what the model ends in.
        thresholds: of a multi-label model: the smallest probability at which an image has a label;
            one for all or one for each label. Empty is 0.5 for all.
    """

    class_names: tuple[str, ...]
    image_size: tuple[int, int] | None = None
    channels: int | None = None
    resize: str = "crop"
    resample: str = "bilinear"
    background: int = 255
    scaled_decode: bool = True
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    outputs: str = "auto"
    thresholds: tuple[float, ...] = ()

    def label_thresholds(self) -> tuple[float, ...]:
        """The threshold of each label of a multi-label model.

        Raises:
            LockstepError: neither one nor as many as there are labels.
        """
        return for_each_label(self.thresholds or (DEFAULT_THRESHOLD,), len(self.class_names))

    def image_spec(self, image_size: tuple[int, int], channels: int) -> ImageSpec:
        """The image spec for arrays of this size."""
        return ImageSpec(
            *image_size, channels, self.resize, self.resample, self.background,
            scaled_decode=self.scaled_decode,
        )  # fmt: skip

    def normalization(self, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation for each channel.

        Raises:
            ForeignModelError: neither one number nor one for each channel.
        """
        values = []
        for name, given in (("mean", self.mean), ("std", self.std)):
            if given is None:
                raise ForeignModelError(
                    "the model takes floating-point numbers: say which with --input-range LOW,HIGH "
                    "or with --mean and --std"
                )
            if len(given) not in (1, channels):
                raise ForeignModelError(
                    f"--{name}: expected 1 or {channels} numbers, got {len(given)}"
                )
            values.append(given * channels if len(given) == 1 else given)
        mean, std = values
        return mean, std

    def scale_and_offset(self, channels: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The same as float32 per channel: a model takes `pixel * scale + offset`."""
        mean, std = self.normalization(channels)
        with np.errstate(over="ignore"):
            scale = np.asarray([1 / (255 * value) for value in std], np.float32)
            offset = np.asarray([-m / s for m, s in zip(mean, std, strict=True)], np.float32)
        if not np.isfinite([scale, offset]).all():
            raise ForeignModelError(f"--mean and --std: no float32 numbers for {mean} and {std}")
        return scale, offset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that describe a model which does not describe itself."""
    add = parser.add_argument_group(
        "models that do not say what they are",
        "For an ONNX classifier that is no bundle; the graph tells the rest.",
    ).add_argument
    add("--labels", metavar="FILE", help="text file: the name of each class, one a line, in order")
    add_image_arguments(add)


def add_image_arguments(add: Any) -> None:
    """The options on images, for any command that describes a model."""
    add("--image-size", metavar="INT[,INT]", type=_size,
        help="side, or height and width, in pixels: 224, 224,160 or 224x160")  # fmt: skip
    add("--channels", type=int, choices=(1, 3), help="1 for grey, 3 for RGB")
    add("--resize", choices=RESIZES, help="how another shape is fitted (default: crop)")
    add("--resample", choices=tuple(RESAMPLINGS), help="filter of the resize (default: bilinear)")
    add("--background", metavar="INT", type=int,
        help="grey value under transparency and around padding (default: 255)")  # fmt: skip
    add("--full-decode", action="store_true",
        help="decode large JPEGs whole before they are shrunk: slower")  # fmt: skip
    add("--input-range", metavar="LOW,HIGH", type=_numbers,
        help="numbers that stand for black and white: 0,255 or 0,1 or -1,1")  # fmt: skip
    add("--mean", metavar="NUMBERS", type=_numbers,
        help="subtracted from pixel / 255, one number or one for each channel")  # fmt: skip
    add("--std", metavar="NUMBERS", type=_numbers, help="what is left is divided by it")
    add("--outputs", choices=OUTPUTS,
        help="what the model gives: logits of one choice, probabilities that sum to 1, or a "
             "sigmoid for each label, so that an image may have several (default: auto, by what "
             "the model ends in)")  # fmt: skip
    add("--threshold", metavar="SHARE[,SHARE]", type=_shares,
        help="smallest probability at which an image has a label, one for all or one for each "
             "label; multi-label models only (default: the bundle's own, else 0.5)")  # fmt: skip


def description(options: argparse.Namespace) -> Description | None:
    """The description on the command line; None if it holds none.

    Raises:
        LockstepError: it is incomplete, or contradicts itself.
    """
    names = ("image_size", "channels", "resize", "resample", "background", "outputs")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.full_decode:
        given["scaled_decode"] = False
    mean, std = _normalization(options)
    if mean is not None:
        given.update(mean=mean, std=std)
    if options.labels is None:
        if given:
            raise ForeignModelError("a model is described by its labels first: give --labels FILE")
        return None  # --threshold alone changes that of a bundle
    if options.threshold:
        given["thresholds"] = options.threshold
    return Description(read_labels(Path(options.labels)), **given)


def read_labels(path: Path) -> tuple[str, ...]:
    """The class names in a text file, one a line.

    Raises:
        LockstepError: fewer than two, an empty line between, or one that occurs twice.
    """
    try:
        lines = path.read_text("utf-8-sig").rstrip().split("\n")
    except UnicodeDecodeError as error:
        raise ForeignModelError(f"{path}: expected UTF-8 text: {error}") from None
    labels = tuple(line.strip() for line in lines)
    doubled = sorted(label for label, count in Counter(labels).items() if count > 1)
    if len(labels) < 2 or "" in labels or doubled:
        found = f"{len(labels)} lines"
        if len(labels) == 1:
            found = "1 line; for a model with one output give two labels, in the order 0, 1"
        if "" in labels:
            found = f"an empty line {labels.index('') + 1}"
        elif doubled:
            found = f"doubled {', '.join(doubled)!r:.80}"
        raise ForeignModelError(
            f"{path}: expected two or more different class names, one a line, got {found}"
        )
    return labels


def _normalization(
    options: argparse.Namespace,
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Mean and deviation in units of pixel / 255, from either way to say them."""
    if options.input_range is not None:
        if options.mean is not None or options.std is not None:
            raise ForeignModelError("expected either --input-range or --mean and --std, got both")
        if len(options.input_range) != 2 or options.input_range[0] >= options.input_range[1]:
            raise ForeignModelError(
                f"--input-range: expected LOW,HIGH as in 0,1, got "
                f"{','.join(map(str, options.input_range))}"
            )
        low, high = options.input_range
        return (-low / (high - low) + 0.0,), (1 / (high - low),)
    if (options.mean is None) != (options.std is None):
        raise ForeignModelError("expected --mean and --std together, got one of them")
    if options.std is not None and min(options.std) <= 0:
        raise ForeignModelError(f"--std: expected numbers above 0, got {min(options.std)}")
    return options.mean, options.std


def _size(text: str) -> tuple[int, int]:
    return parse_image_size(text)


def _numbers(text: str) -> tuple[float, ...]:
    numbers = tuple(map(float, text.split(",")))
    if not np.isfinite(numbers).all():
        raise ValueError
    return numbers


def _shares(text: str) -> tuple[float, ...]:
    shares = _numbers(text)
    if min(shares) < 0 or max(shares) > 1:
        raise ValueError
    return shares


_size.__name__ = "a size in pixels"
_numbers.__name__ = "a list of numbers"
_shares.__name__ = "shares from 0 to 1"
