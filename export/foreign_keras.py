"""A Keras model that was trained elsewhere: what it takes, gives, and answers in Keras."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from export.serving_function import BATCH, load_model, probabilities_of, serving_function
from serve.command import LockstepError
from serve.description import Description
from serve.image_spec import ImageSpec
from serve.probabilities import sums_to_one

SIXTEEN_BITS = ("float16", "bfloat16", "mixed_float16", "mixed_bfloat16")


@dataclass(frozen=True)
class ForeignKerasModel:
    """A loaded model and how its bundle calls it.

    Attributes:
        model: float images `[batch, height, width, channels]` to logits or probabilities.
        spec: how a file becomes the image.
        scale, offset: float32 per channel; the model takes `pixel * scale + offset`.
        outputs: "logits" or "probabilities"; "auto" was resolved.
    """

    model: keras.Model
    spec: ImageSpec
    scale: NDArray[np.float32]
    offset: NDArray[np.float32]
    outputs: str
    was_stated: bool

    def normalize(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What the model takes for uint8 `[batch, height, width, channels]`."""
        return pixels.astype(np.float32) * self.scale + self.offset

    def serving_function(self) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
        """From uint8 pixels to probabilities."""
        return serving_function(
            self.model,
            image_shape=self.spec.shape,
            normalization=(self.scale, self.offset),
            gives_probabilities=self.outputs == "probabilities",
        )

    def reference(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Keras's own answers as probabilities, float32 `[images, classes]`.

        Raises:
            LockstepError: the answers are not what the model's last layer says they are.
        """
        answers = np.concatenate(
            [self._predict(pixels[start : start + BATCH]) for start in range(0, len(pixels), BATCH)]
        )
        if self.outputs == "probabilities":
            if not sums_to_one(answers):
                raise LockstepError(
                    "expected the model to give probabilities that sum to 1, got sums from "
                    f"{answers.sum(axis=1).min():.4g} to {answers.sum(axis=1).max():.4g}; "
                    "say --outputs logits if a softmax belongs behind it"
                )
            return answers
        if sums_to_one(answers) and not self.was_stated:
            raise LockstepError(
                "the model's answers already sum to 1, and its last layer is no softmax: "
                "say --outputs probabilities or --outputs logits"
            )
        return probabilities_of(answers)

    def _predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        try:
            answers = self.model.predict_on_batch(self.normalize(pixels))
        except (ValueError, tf.errors.OpError) as error:
            first = str(error).strip().splitlines()[0]
            raise LockstepError(
                f"the model does not take images of {self.spec.height}x{self.spec.width}: "
                f"{first:.200}"
            ) from error
        if not isinstance(answers, np.ndarray):
            raise LockstepError(f"expected the model to answer with an array, got {type(answers)}")
        return answers.astype(np.float32)


def adopt(path: Path, given: Description) -> ForeignKerasModel:
    """Load a `.keras` file and hold it to its description.

    Raises:
        LockstepError: no image classifier, or another one than described.
    """
    model = in_float32(load_model(path))
    if not getattr(model, "inputs", None):
        raise LockstepError(f"{path}: expected a model that was built: call it once, then save it")
    if len(model.inputs) != 1 or len(model.inputs[0].shape) != 4:
        shapes = [tuple(value.shape) for value in model.inputs]
        raise LockstepError(
            f"{path}: expected one input [batch, height, width, channels], got {shapes}"
        )
    if len(model.outputs) != 1 or len(model.outputs[0].shape) != 2:
        shapes = [tuple(value.shape) for value in model.outputs]
        raise LockstepError(f"{path}: expected one output [batch, classes], got {shapes}")
    _, height, width, channels = model.inputs[0].shape
    if channels not in (1, 3):
        raise LockstepError(
            f"{path}: expected images with 1 or 3 channels last, got {(height, width, channels)}"
        )
    if given.channels not in (None, channels):
        raise LockstepError(f"{path}: --channels: the model takes {channels}")
    size = given.image_size or (height, width)
    if None in size:
        raise LockstepError(f"{path}: the model takes images of any size: say --image-size")
    if (height or size[0], width or size[1]) != size:
        raise LockstepError(
            f"{path}: --image-size: the model takes {height}x{width}, got {size[0]}x{size[1]}"
        )
    classes = model.outputs[0].shape[1]
    if classes != len(given.class_names):
        raise LockstepError(
            f"{path}: expected {classes} labels, one for each output, got {len(given.class_names)}"
        )
    scale, offset = given.scale_and_offset(channels)
    return ForeignKerasModel(
        model=model,
        spec=given.image_spec((int(size[0]), int(size[1])), int(channels)),
        scale=scale,
        offset=offset,
        outputs=_outputs(path, model) if given.outputs == "auto" else given.outputs,
        was_stated=given.outputs != "auto",
    )


def in_float32(model: keras.Model) -> keras.Model:
    """The model itself, or where it computes in 16 bits, the same weights in float32.

    onnxruntime has no CPU kernels for most of bfloat16, and none gives the same roundings.
    """
    if not _computes_in_16_bits(model):
        return model
    rebuilt = model.__class__.from_config(_with_float32(model.get_config()))
    rebuilt.set_weights(model.get_weights())
    if _computes_in_16_bits(rebuilt):
        raise LockstepError("a layer computes in 16 bits whatever it is told; rebuild the model")
    return rebuilt


def _computes_in_16_bits(model: keras.Model) -> bool:
    layers = model._flatten_layers(include_self=False)
    return any(layer.compute_dtype in ("float16", "bfloat16") for layer in layers)


def _with_float32(config: Any) -> Any:
    """A layer's config, and those within it, with 16-bit types and policies replaced."""
    if isinstance(config, dict):
        return {key: _with_float32(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return type(config)(_with_float32(value) for value in config)
    return "float32" if isinstance(config, str) and config in SIXTEEN_BITS else config


def _outputs(path: Path, model: keras.Model) -> str:
    """Logits or probabilities, by the operation that makes the output."""
    operation = model.outputs[0]._keras_history.operation
    while isinstance(operation, keras.Model):
        operation = operation.outputs[0]._keras_history.operation
    activation = getattr(operation, "activation", None)
    name = getattr(activation, "__name__", None) or type(operation).__name__.lower()
    if name == "softmax":
        return "probabilities"
    if name == "linear" or activation is None:
        return "logits"
    raise LockstepError(
        f"{path}: expected the last layer to give logits or a softmax, got {operation.name} with "
        f"{name}: that is no choice of one class; say --outputs logits if a softmax belongs behind"
    )
