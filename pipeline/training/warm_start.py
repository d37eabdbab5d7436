"""Weights from an earlier model, by name and shape of its layers."""

from collections.abc import Iterator

import keras

from export.serving_function import load_model
from pipeline.recipe import ConfigError
from pipeline.training.model_file import model_file


def start_from(model: keras.Model, origin: str) -> str:
    """Take over the weights of every layer which the other model has by the same name and shapes.

    The normalization stays that of the new data. Returns what was taken, and what not, in a line.

    Raises:
        ConfigError: there is no such model, or no layer of it fits.
    """
    file = model_file(origin)
    if not file.is_file():
        raise ConfigError(
            "model.init_from: expected a run directory with a trained model, or a .keras file; "
            f"got {origin}"
        )
    theirs = dict(_layers(load_model(file)))
    taken, left = [], []
    for name, layer in _layers(model):
        if name not in theirs:
            left.append(f"{name} (not there)")
        elif _shapes(layer) != _shapes(theirs[name]):
            left.append(f"{name} ({_shapes(theirs[name])} there, {_shapes(layer)} here)")
        else:
            layer.set_weights(theirs[name].get_weights())
            taken.append(name)
    if not taken:
        raise ConfigError(
            f"model.init_from: no layer of {file} has the name and the shape of one here: "
            f"{', '.join(left[:3])}"
        )
    total = len(taken) + len(left)
    rest = f"; not: {', '.join(left[:5])}{', ...' if len(left) > 5 else ''}" if left else ""
    return f"starts from {file}: {len(taken)} of {total} layers with weights{rest}"


def _layers(model: keras.Model, prefix: str = "") -> Iterator[tuple[str, keras.layers.Layer]]:
    """Every layer with weights and its name, those of nested models under the model's."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(layer, f"{prefix}{layer.name}/")
        elif layer.weights:
            yield f"{prefix}{layer.name}", layer


def _shapes(layer: keras.layers.Layer) -> str:
    return " + ".join("x".join(map(str, weight.shape)) or "1" for weight in layer.weights)
