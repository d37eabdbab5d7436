"""ONNX classifiers that say nothing of themselves: what they lack is given by hand.

    python -m serve.batch resnet.onnx photos/ --labels labels.txt \\
        --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225

The graph tells its input's type, layout and, mostly, its size. What it cannot tell are the labels,
how an image is fitted to that size, and which numbers the network expects of a pixel.
"""

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from serve.bundle import INPUT, OUTPUT, BundleDocument
from serve.command import LockstepError
from serve.image_spec import RESAMPLINGS, RESIZES, ImageSpec
from serve.onnx_file import OnnxFile, TensorInfo

OUTPUTS = ("auto", "logits", "probabilities")


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
        outputs: "logits", "probabilities", or "auto": by the last operator.
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


class ForeignSession:
    """An onnxruntime session of any classifier, called like that of a bundle.

    Raises:
        ForeignModelError: the graph is no image classifier, or contradicts the description.
    """

    def __init__(
        self, session: onnxruntime.InferenceSession, outline: OnnxFile, description: Description
    ) -> None:
        self._session = session
        self._input = _only(outline.inputs, "input", 4)
        self._output = _only(outline.outputs, "output", 2)
        self._channels_first, image_size, channels = _layout(self._input, description)
        self._one_by_one = self._input.shape[0] == 1
        if isinstance(self._input.shape[0], int) and not self._one_by_one:
            raise ForeignModelError(
                f"expected a batch of any size or of 1, got a graph for {self._input.shape[0]}"
            )
        if isinstance(self._output.shape[1], int):
            _check_classes(self._output.shape[1], description.class_names)
        self._softmax = _ends_in_logits(outline, description)
        if self._input.element == "uint8":
            if description.mean is not None:
                raise ForeignModelError(
                    "the model takes uint8 pixels: leave out --input-range, --mean and --std"
                )
            mean, std = (0.0,) * channels, (1 / 255,) * channels
        elif self._input.element == "float32":
            mean, std = description.normalization(channels)
            self._scale, self._offset = description.scale_and_offset(channels)
        else:
            raise ForeignModelError(
                f"expected an input of uint8 or float32, got {self._input.element}"
            )
        self._was_stated = description.outputs != "auto"
        self.document = BundleDocument(
            class_names=description.class_names,
            image=description.image_spec(image_size, channels),
            mean=mean,
            std=std,
            dataset_fingerprint="",
            config_hash="",
            metrics={},
            versions={"producer": outline.producer},
            created="",
        )

    def run(
        self, names: Sequence[str], inputs: Mapping[str, NDArray[np.uint8]]
    ) -> list[NDArray[np.float32]]:
        """As `onnxruntime.InferenceSession.run` of a bundle: `image` to `probabilities`."""
        assert list(names) == [OUTPUT]
        images: NDArray[Any] = inputs[INPUT]
        if self._input.element == "float32":
            images = images * self._scale + self._offset
        if self._channels_first:
            images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        if not len(images):
            return [np.zeros((0, len(self.document.class_names)), np.float32)]
        parts = np.split(images, len(images)) if self._one_by_one else [images]
        answers = [
            self._checked(self._session.run([self._output.name], {self._input.name: part})[0], part)
            for part in parts
        ]
        outputs = np.concatenate(answers).astype(np.float32)
        self._check_outputs(outputs)
        return [softmax(outputs) if self._softmax else outputs]

    def _check_outputs(self, outputs: NDArray[np.float32]) -> None:
        """Hold the answers to what they are taken for."""
        if not np.isfinite(outputs).all():
            raise ForeignModelError("the model answers with what are no finite numbers")
        if not self._softmax and not sums_to_one(outputs):
            raise ForeignModelError(
                "expected probabilities that sum to 1 for every image; say --outputs logits if a "
                "softmax belongs behind the model"
            )
        if self._softmax and not self._was_stated and sums_to_one(outputs):
            raise ForeignModelError(
                "the answers already sum to 1, and the graph does not end in a Softmax: "
                "say --outputs probabilities or --outputs logits"
            )

    def _checked(self, answer: NDArray[Any], images: NDArray[Any]) -> NDArray[Any]:
        """What the graph left open is known only now."""
        if answer.dtype.kind != "f" or answer.ndim != 2 or len(answer) != len(images):
            raise ForeignModelError(
                f"expected an answer of floating-point numbers [{len(images)}, classes], got "
                f"{answer.dtype} of shape {list(answer.shape)}"
            )
        _check_classes(answer.shape[1], self.document.class_names)
        return answer


def _check_classes(classes: int, class_names: Sequence[str]) -> None:
    if classes != len(class_names):
        raise ForeignModelError(
            f"expected {classes} labels, one for each output, got {len(class_names)}"
        )


def sums_to_one(answers: NDArray[np.float32], tolerance: float = 1e-3) -> bool:
    """Whether every row `[classes]` is a distribution."""
    sums = answers.sum(axis=1)
    return bool((answers >= 0).all() and (np.abs(sums - 1) <= tolerance).all())


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 `[batch, classes]` to probabilities."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]


def _only(values: Sequence[TensorInfo], kind: str, rank: int) -> TensorInfo:
    if len(values) != 1:
        names = ", ".join(value.name for value in values)
        raise ForeignModelError(f"expected one {kind}, got {len(values)}: {names:.200}")
    if len(values[0].shape) != rank:
        raise ForeignModelError(
            f"expected {kind} {values[0].name!r} to have {rank} dimensions, "
            f"got {list(values[0].shape)}"
        )
    return values[0]


def _layout(value: TensorInfo, description: Description) -> tuple[bool, tuple[int, int], int]:
    """Whether channels come first, the image size, and the number of channels."""
    _, *rest = value.shape
    channels_first = rest[0] in (1, 3) and rest[2] not in (1, 3)
    if channels_first:
        graph_channels, *sides = rest
    else:
        *sides, graph_channels = rest
    channels = description.channels or graph_channels
    if graph_channels not in (1, 3) and isinstance(graph_channels, int):
        raise ForeignModelError(f"expected images of 1 or 3 channels, got input {list(rest)}")
    if channels not in (1, 3):
        raise ForeignModelError("the graph leaves the channels open: say --channels 1 or 3")
    if isinstance(graph_channels, int) and channels != graph_channels:
        raise ForeignModelError(f"--channels: the graph takes {graph_channels}, got {channels}")
    size = description.image_size or tuple(sides)
    if any(isinstance(side, str) for side in size):
        raise ForeignModelError("the graph leaves the image size open: say --image-size")
    for given, side in zip(size, sides, strict=True):
        if isinstance(side, int) and given != side:
            raise ForeignModelError(
                f"--image-size: the graph takes {sides[0]}x{sides[1]}, got {size[0]}x{size[1]}"
            )
    return channels_first, (int(size[0]), int(size[1])), int(channels)


def _ends_in_logits(outline: OnnxFile, description: Description) -> bool:
    if description.outputs != "auto":
        return description.outputs == "logits"
    if outline.last_operator == "Softmax":
        return False
    if outline.last_operator == "Sigmoid":
        raise ForeignModelError(
            "the graph ends in a Sigmoid, which is no choice of one class; say --outputs "
            "probabilities if its answers sum to 1"
        )
    if "Softmax" in outline.operators:
        raise ForeignModelError(
            f"the graph has a Softmax and ends in {outline.last_operator}: "
            "say --outputs logits or --outputs probabilities"
        )
    return True


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
    add("--image-size", metavar="INT[,INT]", type=_size, help="side, or height,width in pixels")
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
    add("--outputs", choices=OUTPUTS, help="what the model gives (default: auto, by its last part)")


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
        return None
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
    height, comma, width = text.partition(",")
    return int(height), int(width if comma else height)


def _numbers(text: str) -> tuple[float, ...]:
    numbers = tuple(map(float, text.split(",")))
    if not np.isfinite(numbers).all():
        raise ValueError
    return numbers


_size.__name__ = "size in pixels"
_numbers.__name__ = "list of numbers"
