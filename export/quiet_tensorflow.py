"""Import TensorFlow without its lines about the machine.

While they load, TensorFlow's C++ libraries write notes on oneDNN and missing GPUs to standard
error, whatever the log level. Who runs a command should not have to read them; who looks for a GPU
sets TF_CPP_MIN_LOG_LEVEL and sees them all.
"""

import os
import sys
import tempfile

from models.keras_settings import KerasSettingsError
from serve.command import LockstepError


def import_tensorflow() -> None:
    """Import TensorFlow and Keras in silence; an import that fails shows what was written.

    Raises:
        LockstepError: Keras cannot be had with its default settings.
    """
    try:
        if "tensorflow" in sys.modules or "TF_CPP_MIN_LOG_LEVEL" in os.environ:
            import keras  # noqa: F401
        else:
            _import_in_silence()
    except KerasSettingsError as error:
        raise LockstepError(str(error)) from error


def _import_in_silence() -> None:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    sys.stderr.flush()
    standard_error = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            import keras  # noqa: F401
            import tensorflow  # noqa: F401
        except BaseException:
            notes.seek(0)
            os.write(standard_error, notes.read())
            raise
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)
