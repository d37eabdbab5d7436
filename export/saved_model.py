"""Keras model to TensorFlow SavedModel."""

import contextlib
import errno
import io
import os
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from export.serving_function import ExportError, serving_function
from serve.atomic import atomic_path
from serve.bundle import INPUT, OUTPUT


def export_saved_model(model: keras.Model, path: Path, temperature: float = 1.0) -> None:
    """Write a SavedModel whose `serving_default` takes `image` and returns `probabilities`.

    Raises:
        ExportError: the model cannot be exported faithfully.
        OSError: the file system refuses; TensorFlow has errors of its own for that.
    """
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serving_default", serving_function(model, temperature))
    try:
        with atomic_path(path) as temporary, contextlib.redirect_stdout(io.StringIO()):
            archive.write_out(str(temporary), verbose=False)
    except tf.errors.ResourceExhaustedError:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
    except tf.errors.OpError as error:
        raise OSError(errno.EIO, error.message.splitlines()[0], str(path)) from error


class SavedModel:
    """A loaded SavedModel, called through its serving signature.

    A SavedModel can run arbitrary code: load only what this machine exported itself.

    Raises:
        ExportError: there is none, or it is damaged.
    """

    def __init__(self, path: Path) -> None:
        # The function lives as long as the object it was loaded with.
        try:
            self._loaded = tf.saved_model.load(str(path))
            self._function = self._loaded.signatures["serving_default"]
        except (OSError, LookupError, ValueError, tf.errors.OpError) as error:
            raise ExportError(f"{path}: not a loadable SavedModel: {error}") from error

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 `[batch, height, width, channels]` to float32 `[batch, classes]`.

        Raises: ExportError if it takes other images or gives other answers.
        """
        try:
            answers = self._function(**{INPUT: tf.constant(images)})[OUTPUT]
        except (tf.errors.OpError, TypeError, ValueError, LookupError) as error:
            first = str(error).strip().splitlines()[0]
            raise ExportError(f"the SavedModel cannot be run: {first:.300}") from error
        return answers.numpy()  # type: ignore[no-any-return]
