"""Keras by its own defaults: what a user set for other work changes no result here.

The package `models` calls `isolate_keras` when it is imported; `export` and `pipeline` import it
first. So it comes before any of their files imports Keras. Out of force are the variables
KERAS_BACKEND, KERAS_MAX_EPOCHS, KERAS_MAX_STEPS_PER_EPOCH (which would cut `predict` short, too),
KERAS_NNX_ENABLED and TF_USE_LEGACY_KERAS, and what `keras.json` says. Nothing is written, and
weights are still cached where the user has them (~/.keras/models, or under KERAS_HOME).
"""

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

SETTINGS: dict[str, object] = {
    "backend": "tensorflow",
    "floatx": "float32",
    "epsilon": 1e-7,
    "image_data_format": "channels_last",
    "max_epochs": None,
    "max_steps_per_epoch": None,
}
"""By the names of `keras.config`: Keras's own defaults, on TensorFlow."""

OUT_OF_FORCE = (
    "KERAS_MAX_EPOCHS",
    "KERAS_MAX_STEPS_PER_EPOCH",
    "KERAS_NNX_ENABLED",
    "TF_USE_LEGACY_KERAS",
)


class KerasSettingsError(ImportError):
    """Keras is there with settings that would change results, or cannot be imported with them."""


def isolate_keras() -> None:
    """Let the first import of Keras in this process be one with `SETTINGS`.

    Raises:
        KerasSettingsError: Keras was imported before, with other settings.
    """
    if "keras" in sys.modules:
        _check(sys.modules["keras"])
        return
    os.environ["KERAS_BACKEND"] = str(SETTINGS["backend"])
    for name in OUT_OF_FORCE:
        os.environ.pop(name, None)
    if not any(isinstance(finder, _KerasFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _KerasFinder())


class _KerasFinder(MetaPathFinder):
    """Finds Keras as the other finders do, and has its settings set as soon as it is executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "keras":
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next(filter(None, specs), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module
            settle = partial(_execute_and_set, execute)
            spec.loader.exec_module = settle  # type: ignore[method-assign]
        return spec


def _execute_and_set(execute: Callable[[ModuleType], None], keras: ModuleType) -> None:
    try:
        execute(keras)
    except (ValueError, AttributeError) as error:
        if "configuration" not in str(error):
            raise
        raise KerasSettingsError(
            f"Keras refuses its settings: {' '.join(str(error).split())}; mend or delete "
            "keras.json in ~/.keras or KERAS_HOME"
        ) from error
    for name, value in SETTINGS.items():
        if name != "backend":  # decided by KERAS_BACKEND
            getattr(keras.config, f"set_{name}")(value)
    keras.config.set_dtype_policy(SETTINGS["floatx"])


def _check(keras: ModuleType) -> None:
    for name, expected in SETTINGS.items():
        found = getattr(keras.config, name)()
        if found != expected:
            raise KerasSettingsError(
                f"Keras was imported with {name} {found}, expected {expected}; import Lockstep's "
                "packages before Keras, or undo the setting"
            )
