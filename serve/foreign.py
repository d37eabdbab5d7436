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
