"""Keras model to TensorFlow SavedModel."""

import contextlib
import io
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from export.serving_function import serving_function
from serve.atomic import atomic_path
from serve.bundle import INPUT, OUTPUT


def export_saved_model(model: keras.Model, path: Path) -> None:
    """Write a SavedModel whose `serving_default` takes `image` and returns `probabilities`."""
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serving_default", serving_function(model))
    with atomic_path(path) as temporary, contextlib.redirect_stdout(io.StringIO()):
        archive.write_out(str(temporary), verbose=False)


class SavedModel:
    """A loaded SavedModel, called through its serving signature.

    A SavedModel can run arbitrary code: load only what this machine exported itself.
    """

    def __init__(self, path: Path) -> None:
        # The function lives as long as the object it was loaded with.
        self._loaded = tf.saved_model.load(str(path))
        self._function = self._loaded.signatures["serving_default"]

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 `[batch, height, width, channels]` to float32 `[batch, classes]`."""
        return self._function(**{INPUT: tf.constant(images)})[OUTPUT].numpy()  # type: ignore[no-any-return]
