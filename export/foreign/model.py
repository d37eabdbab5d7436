"""A Keras model that was trained elsewhere: what it takes, gives, and answers in Keras."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from export.foreign.custom_code import expect_known, load_custom
from export.foreign.formats import expect_keras_3
from export.foreign.head import Head
from export.foreign.precision import in_float32
from export.foreign.shapes import one_array_to_one_array
from export.progress import counted
from export.serving_function import BATCH, load_model, serving
from export.traced_graph import Function
from serve.command import LockstepError
from serve.description import Description
from serve.image_spec import ImageSpec

Scaling = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Scale and offset, float32 per channel: the model takes `pixel * scale + offset`."""


@dataclass(frozen=True)
class ForeignKerasModel:
    """A loaded model and the images it takes.

    Attributes:
        model: one tensor `[batch, height, width, channels]`, or without the channel of grey images,
            to one tensor `[batch, outputs]`, or one with more dimensions of size 1.
        spec: how a file becomes the image.
        outputs: how many numbers it gives for an image.
    """

    model: keras.Model
    spec: ImageSpec
    outputs: int

    @property
    def takes_pixels(self) -> bool:
        """Its input is of an integer type."""
        return bool(np.issubdtype(np.dtype(self.model.inputs[0].dtype), np.integer))

    def prepared(self, pixels: NDArray[np.uint8], scaling: Scaling) -> NDArray[Any]:
        """What the model takes for uint8 `[batch, height, width, channels]`."""
        scale, offset = scaling
        images: NDArray[Any] = pixels
        if not self.takes_pixels:
            images = pixels.astype(np.float32) * scale + offset
        return images if self._has_channels else images[..., 0]

    def answers(
        self, pixels: NDArray[np.uint8], scaling: Scaling, *, show: str = ""
    ) -> NDArray[np.float32]:
        """What Keras's own `predict` gives, float32 `[images, outputs]`.

        Args:
            show: what to call this on the terminal.

        Raises:
            LockstepError: the model does not take such images.
        """
        starts = range(0, len(pixels), BATCH)
        if show:
            starts = counted(starts, show)  # type: ignore[assignment]
        found = [self._predict(pixels[start : start + BATCH], scaling) for start in starts]
        return np.concatenate(found)

    def traced(self) -> Function:
        """The model alone as a traced function, from what it takes to its answers."""
        shape = self.spec.shape if self._has_channels else self.spec.shape[:2]
        signature = [tf.TensorSpec([None, *shape], self.model.inputs[0].dtype, name="image")]
        tf.config.run_functions_eagerly(True)  # as for the export: nothing hides in a function
        try:
            function = tf.function(lambda image: self.model(image, training=False))
            return function.get_concrete_function(*signature)
        except (ValueError, tf.errors.OpError) as error:
            raise self._does_not_take(error) from error
        finally:
            tf.config.run_functions_eagerly(False)

    def serving_function(
        self, head: Head, scaling: Scaling
    ) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
        """From uint8 pixels to probabilities."""
        scale, offset = scaling

        def probabilities(image: tf.Tensor) -> tf.Tensor:
            if self.takes_pixels:
                image = tf.cast(image, self.model.inputs[0].dtype)
            else:
                image = tf.cast(image, tf.float32) * scale + offset
            if not self._has_channels:
                image = tf.squeeze(image, -1)
            answers = tf.cast(self.model(image, training=False), tf.float32)
            if len(self.model.outputs[0].shape) != 2:
                answers = tf.reshape(answers, [-1, self.outputs])
            return head.in_graph(answers)

        return serving(probabilities, self.spec.shape, 2 if head.is_pair else self.outputs)

    @property
    def _has_channels(self) -> bool:
        return len(self.model.inputs[0].shape) == 4

    def _does_not_take(self, error: Exception) -> LockstepError:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        first = next((line for line in lines if "dimension" in line or "shape" in line), lines[0])
        return LockstepError(
            f"the model does not take images of {self.spec.height}x{self.spec.width}: {first:.200}"
        )

    def _predict(self, pixels: NDArray[np.uint8], scaling: Scaling) -> NDArray[np.float32]:
        try:
            answers = self.model.predict_on_batch(self.prepared(pixels, scaling))
        except (ValueError, tf.errors.OpError) as error:
            raise self._does_not_take(error) from error
        return np.asarray(answers).astype(np.float32).reshape(len(pixels), self.outputs)


@contextmanager
def custom_scope(file: Path | None) -> Iterator[dict[str, Any]]:
    """Where the classes and functions of the user's own file are known to Keras."""
    objects = load_custom(file) if file else {}
    with keras.saving.custom_object_scope(objects):
        yield objects


def adopt(path: Path, given: Description, custom: Path | None = None) -> ForeignKerasModel:
    """Load a `.keras` file and hold it to its description.

    Args:
        custom: a Python file with classes of the model's own; it is run.

    Raises:
        LockstepError: no image classifier, or another one than described.
    """
    expect_keras_3(path)
    with custom_scope(custom) as objects:
        expect_known(path, objects)
        model = load_model(path)
        try:
            model = one_array_to_one_array(in_float32(model))
        except LockstepError as error:
            raise LockstepError(f"{path}: {error}") from error
    height, width, channels = _image_shape(path, model, given)
    outputs = _outputs(path, model)
    _expect_labels(path, outputs, len(given.class_names))
    if given.channels not in (None, channels):
        raise LockstepError(f"{path}: --channels: the model takes {channels}")
    size = given.image_size or (height, width)
    if None in size:
        raise LockstepError(f"{path}: the model takes images of any size: say --image-size")
    if (height or size[0], width or size[1]) != size:
        raise LockstepError(
            f"{path}: --image-size: the model takes {height}x{width}, got {size[0]}x{size[1]}"
        )
    spec = given.image_spec((int(size[0]), int(size[1])), int(channels))
    return ForeignKerasModel(model, spec, outputs)


def _image_shape(path: Path, model: keras.Model, given: Description) -> tuple[Any, Any, int]:
    """Height and width, None where they are open, and channels."""
    shape = tuple(model.inputs[0].shape)
    if len(shape) == 3:
        return (*shape[1:], 1)
    if len(shape) != 4:
        raise LockstepError(
            f"{path}: expected one input [batch, height, width, channels], got {[shape]}"
        )
    _, height, width, channels = shape
    if channels is None and given.channels:
        channels = given.channels
    if channels not in (1, 3):
        if height in (1, 3):
            raise LockstepError(
                f"{path}: the model takes channels first, {shape[1:]}: expected channels last; "
                "build it with data_format='channels_last' and load its weights"
            )
        raise LockstepError(
            f"{path}: expected images with 1 or 3 channels last, got {(height, width, channels)}"
        )
    return height, width, channels


def _outputs(path: Path, model: keras.Model) -> int:
    """How many numbers the model gives for an image."""
    value = model.outputs[0]
    sides = tuple(value.shape[1:])
    if None in sides or any(side != 1 for side in sides[:-1]):
        raise LockstepError(
            f"{path}: expected one output [batch, classes], got {[tuple(value.shape)]}"
        )
    if not str(value.dtype).startswith("float"):
        raise LockstepError(
            f"{path}: expected floating-point answers, got {value.dtype}: class numbers have no "
            "probabilities; give the model without its argmax"
        )
    return int(sides[-1]) if sides else 1


def _expect_labels(path: Path, outputs: int, labels: int) -> None:
    if outputs == 1 and labels != 2:
        raise LockstepError(
            f"{path}: the model has one output, the probability of the second of two labels: "
            f"expected 2 labels, in the order 0, 1, got {labels}"
        )
    if outputs not in (1, labels):
        raise LockstepError(f"{path}: expected {outputs} labels, one for each output, got {labels}")
