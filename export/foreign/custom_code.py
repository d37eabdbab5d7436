"""Classes and functions of a model's own: named if they are missing, loaded only when asked to."""

import importlib.util
import inspect
import json
import sys
import traceback
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from serve.command import LockstepError

KERAS_PACKAGES = ("keras", "keras_hub", "keras_cv", "keras_nlp")
CLASSES = (
    keras.Layer,
    keras.initializers.Initializer,
    keras.regularizers.Regularizer,
    keras.constraints.Constraint,
)


def load_custom(path: Path) -> dict[str, Any]:
    """Run a Python file and return what a model can be made of, by the names a model knows it by.

    Registered classes (`@keras.saving.register_keras_serializable`) are known to Keras by then.

    Returns:
        Every layer, model, initializer, regularizer, constraint and function defined there.

    Raises:
        LockstepError: no such file, or its code fails; the line is named.
    """
    if not path.is_file() or path.suffix != ".py":
        raise LockstepError(f"--custom: expected a Python file, got {path}")
    specification = importlib.util.spec_from_file_location("lockstep_custom_code", path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.path.insert(0, str(path.resolve().parent))  # as for a script: its neighbours are found
    sys.modules[specification.name] = module
    try:
        specification.loader.exec_module(module)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise LockstepError(
            f"--custom: {path}: {type(error).__name__}: {error} (line {last.lineno} of "
            f"{Path(last.filename).name})"
        ) from error
    finally:
        sys.path.remove(str(path.resolve().parent))
    return dict(_defined(module))


def _defined(module: Any) -> Iterator[tuple[str, Any]]:
    for name, value in vars(module).items():
        own = getattr(value, "__module__", None) == module.__name__
        if (inspect.isclass(value) and issubclass(value, CLASSES)) or (
            own and inspect.isfunction(value)
        ):
            yield name, value
            yield keras.saving.get_registered_name(value), value


def expect_known(path: Path, custom: dict[str, Any]) -> None:
    """Refuse a model with parts that Keras does not know, before anything of it is loaded.

    Raises:
        LockstepError: naming the layer, its class and what to do.
    """
    for layer, part in _parts(_config(path), path.stem):
        name, kind = str(part.get("class_name")), str(part.get("registered_name"))
        if name == "__lambda__":
            raise LockstepError(
                f"{path}: not a readable Keras model without running code: layer {layer!r} "
                "(Lambda) holds a Python lambda; replace it by a named function or a layer class, "
                "save again, and say --custom FILE.py"
            )
        if not _is_known(part, name, kind, custom):
            if name == "function":
                name = str(part.get("config"))
            raise LockstepError(
                f"{path}: layer {layer!r} needs {name!r}, which Keras does not know; say "
                "--custom FILE.py, the Python file that defines it (its code is then run)"
            )


def _config(path: Path) -> Any:
    """The model's config; empty for a damaged file, which Keras itself will refuse."""
    try:
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("config.json"))
    except Exception:  # noqa: BLE001 (a damaged archive raises anything; loading it says how)
        return {}


def _parts(value: Any, layer: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every serialized object of a config, with the name of the innermost layer that it is in."""
    if isinstance(value, dict):
        config = value.get("config")
        if isinstance(value.get("class_name"), str):
            if isinstance(config, dict) and isinstance(config.get("name"), str):
                layer = config["name"]
            yield layer, value
        if value.get("class_name") == "__lambda__":
            return
        for key, item in value.items():
            if key not in ("compile_config", "build_config"):
                yield from _parts(item, layer)
    elif isinstance(value, list):
        for item in value:
            yield from _parts(item, layer)


def _is_known(part: dict[str, Any], name: str, kind: str, custom: dict[str, Any]) -> bool:
    module = part.get("module")
    if name.startswith("__") or "registered_name" not in part:
        return True  # a shape, a type, a tensor: no class of anyone's
    if name == "function":
        function = str(part.get("config"))
        return (
            (module == "builtins" and _is_keras_function(function))
            or _is_keras(module)
            or keras.saving.get_registered_object(function, custom) is not None
        )
    return _is_keras(module) or keras.saving.get_registered_object(kind, custom) is not None


def _is_keras(module: object) -> bool:
    return isinstance(module, str) and module.split(".")[0] in KERAS_PACKAGES


def _is_keras_function(name: str) -> bool:
    places = (keras.activations, keras.losses, keras.metrics, keras.initializers, keras.ops)
    return any(hasattr(place, name) for place in places)
