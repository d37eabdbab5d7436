"""Every classifier of keras.applications as a backbone under a new last layer.

What a network does with pixels before its first layer (scale them to ±1, take ImageNet's means
away, turn RGB into BGR, or nothing, since its own first layers do it) is Keras's `preprocess_input`
of its module, called while the graph is built: it is part of the model and of every export.
"""

import inspect
import sys
import urllib.error
import warnings
from collections.abc import Callable

import h5py
import keras
from keras import layers

from models import backbones
from models.options import PretrainedOptions

RGB = 3
IMAGENET_STD = (0.229, 0.224, 0.225)

Application = Callable[..., keras.Model]


def build_core(
    image_shape: tuple[int, int, int], classes: int, options: PretrainedOptions
) -> keras.Model:
    """Float pixels from 0 to 255 `[batch, *image_shape]` to logits `[batch, classes]`.

    Images of one channel are taken for grey RGB. The layer `backbone` is a model of its own, from
    preprocessed pixels to features `[batch, features]`.

    Raises:
        ValueError: there is no such network, it cannot take images of this size, or its weights
            are not there or those of another.
    """
    height, width, channels = image_shape
    application = _application(options.backbone)
    backbone = _backbone(application, (height, width, RGB), options.weights)
    x = inputs = keras.Input(image_shape, name="pixels")
    if channels == 1:
        x = layers.Concatenate(name="grey_to_rgb")([x] * RGB)
    x = backbone(sys.modules[application.__module__].preprocess_input(x))
    if options.dropout:
        x = layers.Dropout(options.dropout, name="dropout")(x)
    logits = layers.Dense(classes, name="logits")(x)
    return keras.Model(inputs, logits, name="core")


def applications() -> dict[str, Application]:
    """The networks that the installed release of Keras has, by name."""
    return {
        name: value for name, value in vars(keras.applications).items() if inspect.isfunction(value)
    }


def _application(name: str) -> Application:
    known = applications()
    if name in known:
        return known[name]
    backbones.check_name(name)
    raise ValueError(f"model pretrained: keras.applications has no backbone {name!r}")


def _backbone(
    application: Application, image_shape: tuple[int, int, int], weights: str
) -> keras.Model:
    is_file = weights not in ("imagenet", "none")
    if is_file:
        backbones.check_weights_file(weights)
    # Under its own name, on which EfficientNetV2's preprocessing depends.
    network = _network(application, image_shape, "imagenet" if weights == "imagenet" else None)
    further_scale = (1.0,) * RGB
    if is_file:
        _load_weights(network, weights)
        if _was_scaled_again(network, weights):
            further_scale = IMAGENET_STD
    network = _with_fixed_normalization(network, further_scale)
    return keras.Model(network.input, network.output, name="backbone")


def _network(
    application: Application, image_shape: tuple[int, int, int], weights: str | None
) -> keras.Model:
    name = application.__name__
    try:
        return application(
            include_top=False, weights=weights, input_shape=image_shape, pooling="avg"
        )
    except ValueError as error:
        height, width, _ = image_shape
        raise ValueError(
            f"model pretrained: {name} for images of {height}x{width}: {_in_one_line(error)}; "
            "set --prepare.image_size or another backbone"
        ) from error
    except Exception as error:  # what Keras makes of a failed download
        if not isinstance(error.__context__, urllib.error.URLError):
            raise
        raise ValueError(
            f"model pretrained: no ImageNet weights of {name}: {_in_one_line(error)}; run it once "
            f"with a network, put that file into ~/.keras/models, or give --model.weights a "
            ".weights.h5 file, or none"
        ) from error


def _load_weights(network: keras.Model, path: str) -> None:
    try:
        with warnings.catch_warnings():  # a hundred of them come before the error
            warnings.simplefilter("ignore")
            network.load_weights(path)
    except (OSError, ValueError, KeyError, RuntimeError) as error:  # h5py's, of damaged files
        raise ValueError(
            f"model pretrained: {path}: no weights of {network.name}: {_in_one_line(error)}"
        ) from error


def _was_scaled_again(network: keras.Model, path: str) -> bool:
    """Whether the network that wrote the file scaled its normalized pixels once more.

    EfficientNetB0 to B7 divide them by the root of ImageNet's deviations, but only if Keras builds
    them with ImageNet's weights: those are wrong without it.
    """
    with h5py.File(path) as file:
        scalings = sum(name.startswith("rescaling") for name in file["layers"])
    return bool(scalings > sum(isinstance(layer, layers.Rescaling) for layer in network.layers))


def _with_fixed_normalization(
    network: keras.Model, further_scale: tuple[float, ...]
) -> keras.Model:
    """The network with constants in place of the variables of a `Normalization`.

    Its variances are multiplied by `further_scale`, for each channel. Keras computes with copies of
    those variables that it takes when it loads them itself: who restores or averages variables
    would change a model without any effect until it is saved.
    """

    def is_variable(layer: layers.Layer) -> bool:
        return isinstance(layer, layers.Normalization) and layer.input_mean is None

    def fixed(layer: layers.Layer) -> layers.Layer:
        if not is_variable(layer):
            return layer
        mean, variance, _ = layer.get_weights()
        return layers.Normalization(
            mean=mean.tolist(), variance=(variance * further_scale).tolist(), name=layer.name
        )

    if not any(map(is_variable, network.layers)):
        return network
    return keras.models.clone_model(network, clone_function=fixed)


def _in_one_line(error: Exception) -> str:
    return f"{' '.join(str(error).split()):.300}"
