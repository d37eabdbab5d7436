"""ONNX classifiers that say nothing of themselves: what they lack is given by hand.

    python -m serve.batch resnet.onnx photos/ --labels labels.txt \\
        --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225

The graph tells its input's type, layout and, mostly, its size. What it cannot tell are the labels,
how an image is fitted to that size, and which numbers the network expects of a pixel: those are in
a `Description`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from serve.bundle import INPUT, OUTPUT, BundleDocument
from serve.description import Description, ForeignModelError
from serve.foreign_outputs import MULTI_LABEL, Outputs, outputs_of
from serve.onnx_file import OnnxFile, TensorInfo


class ForeignSession:
    """An onnxruntime session of any classifier, called like that of a bundle.

    Raises:
        ForeignModelError: the graph is no image classifier, or contradicts the description.
    """

    def __init__(
        self, session: onnxruntime.InferenceSession, outline: OnnxFile, description: Description
    ) -> None:
        self._session = session
        self._input = _only(outline.inputs, "input", (4,))
        self._output = _only(
            outline.outputs, "output", (1, 2) if len(description.class_names) == 2 else (2,)
        )
        self._channels_first, image_size, channels = _layout(self._input, description)
        self._one_by_one = self._input.shape[0] == 1
        if isinstance(self._input.shape[0], int) and not self._one_by_one:
            raise ForeignModelError(
                f"expected a batch of any size or of 1, got a graph for {self._input.shape[0]}"
            )
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
        self._outputs = self._find_outputs(outline, description, (*image_size, channels))
        is_multi_label = self._outputs.task == MULTI_LABEL
        if description.thresholds and not is_multi_label:
            raise ForeignModelError(
                "--threshold: expected a model with a sigmoid for each label, got one whose answer "
                "is the most probable label; leave the option out, or say --outputs sigmoid"
            )
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
            task=self._outputs.task,
            thresholds=description.label_thresholds() if is_multi_label else (),
        )

    def run(
        self, names: Sequence[str], inputs: Mapping[str, NDArray[np.uint8]]
    ) -> list[NDArray[np.float32]]:
        """As `onnxruntime.InferenceSession.run` of a bundle: `image` to `probabilities`."""
        assert list(names) == [OUTPUT]
        images = inputs[INPUT]
        if not len(images):
            return [np.zeros((0, len(self.document.class_names)), np.float32)]
        numbers = self._numbers(images)
        if numbers.shape[1] != self._count:
            raise ForeignModelError(
                f"expected {self._count} numbers for every image, got {numbers.shape[1]}"
            )
        return [self._outputs.probabilities(numbers)]

    def _find_outputs(
        self, outline: OnnxFile, description: Description, shape: tuple[int, ...]
    ) -> Outputs:
        """What the numbers are; how many there are tells a run, where the graph does not."""
        sizes = self._output.shape[1:]
        if sizes and isinstance(sizes[0], int):
            self._count = sizes[0]
        else:
            self._count = self._numbers(np.zeros((1, *shape), np.uint8)).shape[1] if sizes else 1
        return outputs_of(outline, description, self._count)

    def _numbers(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """The model's own answers, float32 `[batch, outputs]`."""
        if self._input.element == "float32":
            images = images * self._scale + self._offset
        if self._channels_first:
            images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        parts = np.split(images, len(images)) if self._one_by_one else [images]
        answers = [
            self._session.run([self._output.name], {self._input.name: part}) for part in parts
        ]
        numbers = [_checked(answer, part) for (answer,), part in zip(answers, parts, strict=True)]
        return np.concatenate(numbers).astype(np.float32)


def _checked(answer: NDArray[Any], images: NDArray[Any]) -> NDArray[Any]:
    """What the graph left open is known only now. One number for each image is a column."""
    if answer.ndim == 1 and len(answer) == len(images):
        answer = answer[:, np.newaxis]
    if answer.dtype.kind != "f" or answer.ndim != 2 or len(answer) != len(images):
        raise ForeignModelError(
            f"expected an answer of floating-point numbers [{len(images)}, classes], got "
            f"{answer.dtype} of shape {list(answer.shape)}"
        )
    return answer


def _only(values: Sequence[TensorInfo], kind: str, ranks: tuple[int, ...]) -> TensorInfo:
    if len(values) != 1:
        names = ", ".join(value.name for value in values)
        raise ForeignModelError(f"expected one {kind}, got {len(values)}: {names:.200}")
    if len(values[0].shape) not in ranks:
        raise ForeignModelError(
            f"expected {kind} {values[0].name!r} to have {ranks[-1]} dimensions, "
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
