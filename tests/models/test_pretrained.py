"""Backbones of keras.applications: preprocessing, weights, sizes, and what goes wrong."""

import inspect
import urllib.request
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from keras.src.utils import file_utils

import models
from models.options import PretrainedOptions
from models.pretrained import applications

FAMILIES = {
    "convnext": ("ConvNeXtTiny", 32),
    "densenet": ("DenseNet121", 32),
    "efficientnet": ("EfficientNetB0", 32),
    "efficientnet_v2": ("EfficientNetV2B0", 32),
    "inception_resnet_v2": ("InceptionResNetV2", 75),
    "inception_v3": ("InceptionV3", 75),
    "mobilenet": ("MobileNet", 32),
    "mobilenet_v2": ("MobileNetV2", 32),
    "mobilenet_v3": ("MobileNetV3Small", 32),
    "nasnet": ("NASNetMobile", 32),
    "resnet": ("ResNet50", 32),
    "resnet_v2": ("ResNet50V2", 32),
    "vgg16": ("VGG16", 32),
    "vgg19": ("VGG19", 32),
    "xception": ("Xception", 71),
}
"""By module: a small member, and the smallest side of its images."""

QUICK = {"mobilenet", "mobilenet_v2", "mobilenet_v3", "vgg16", "vgg19"}
"""Families that take few seconds; between them and DenseNet121 all kinds of preprocessing."""


def build(options: PretrainedOptions, side: int = 32, channels: int = 3) -> keras.Model:
    shape = (side, side, channels)
    return models.build(options, shape, 4, mean=[0.1] * channels, std=[0.2] * channels)


def untrained(backbone: str, **others: float) -> PretrainedOptions:
    return PretrainedOptions(backbone=backbone, weights="none", **others)


def pixels_of(side: int = 32, channels: int = 3, images: int = 2) -> np.ndarray:
    """Noise around another colour in each image."""
    generator = np.random.default_rng(0)
    colours = generator.integers(0, 192, (images, 1, 1, channels))
    return (colours + generator.integers(0, 64, (images, side, side, channels))).astype(np.uint8)


def awake(model: keras.Model, images: np.ndarray) -> keras.Model:
    """With the batch statistics of some images: with those of the start no pixel matters much."""
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(images, training=True)
    return model


def answer(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """What `predict` answers, without the seconds that compiling takes."""
    return np.asarray(model(images, training=False))


def features(model: keras.Model, pixels: np.ndarray) -> np.ndarray:
    """What the backbone gives for raw pixels, by the way that the model takes."""
    core = model.get_layer("core")
    inner = keras.Model(core.input, core.get_layer("logits").input)
    return answer(inner, model.get_layer("normalize")(pixels))


def expected_features(model: keras.Model, backbone: str, pixels: np.ndarray) -> np.ndarray:
    """The same network over Keras's own preprocessing in NumPy."""
    module = inspect.getmodule(applications()[backbone])
    prepared = module.preprocess_input(pixels.astype(np.float32))
    return answer(model.get_layer("core").get_layer("backbone"), prepared)


def assert_near(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4 * np.abs(expected).max())


def test_no_family_is_left_out() -> None:
    modules = {value.__module__.rpartition(".")[2] for value in applications().values()}
    assert modules == set(FAMILIES)
    assert len(applications()) >= 38


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """Some of these networks take gigabytes."""
    yield
    keras.utils.clear_session()


@pytest.mark.parametrize(
    "family",
    [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in FAMILIES],
)
def test_the_preprocessing_is_that_of_keras(family: str) -> None:
    backbone, side = FAMILIES[family]
    keras.utils.set_random_seed(0)
    model = awake(build(untrained(backbone), side), pixels_of(side, images=8))
    pixels = pixels_of(side)
    core, found = model.get_layer("core"), features(model, pixels)
    expected = expected_features(model, backbone, pixels)
    assert_near(found, expected)
    with pytest.raises(AssertionError):
        assert_near(features(model, pixels ^ 8), expected)
    kernel, bias = core.get_layer("logits").get_weights()
    np.testing.assert_allclose(answer(model, pixels), found @ kernel + bias, atol=1e-3)


@pytest.mark.parametrize(
    ("backbone", "prepared"),
    [
        ("MobileNet", [1, -0.2, -1]),
        ("DenseNet121", [(1 - 0.485) / 0.229, (0.4 - 0.456) / 0.224, -0.406 / 0.225]),
        ("VGG16", [-103.939, 102 - 116.779, 255 - 123.68]),
        ("MobileNetV3Small", [255, 102, 0]),
    ],
)
def test_the_four_kinds_of_preprocessing_by_their_numbers(
    backbone: str, prepared: list[float]
) -> None:
    keras.utils.set_random_seed(0)
    model = awake(build(untrained(backbone)), pixels_of(images=8))
    orange = np.tile(np.array([255, 102, 0], np.uint8), (1, 32, 32, 1))
    given = np.tile(np.array(prepared, np.float32), (1, 32, 32, 1))
    expected = answer(model.get_layer("core").get_layer("backbone"), given)
    assert_near(features(model, orange), expected)
    with pytest.raises(AssertionError):
        assert_near(features(model, orange[..., ::-1]), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "normalizes"), [("EfficientNetV2B0", True), ("EfficientNetV2S", False)]
)
def test_a_backbone_is_built_under_its_own_name(name: str, normalizes: bool) -> None:
    """EfficientNetV2 takes what begins with b for one that normalizes: `backbone` would be one."""
    backbone = build(untrained(name)).get_layer("core").get_layer("backbone")
    kinds = {type(layer) for layer in backbone.layers}
    assert (keras.layers.Normalization in kinds) is normalizes


def test_normalization_by_the_training_split_is_left_out() -> None:
    model = build(untrained("MobileNet"))
    pixels = pixels_of()
    np.testing.assert_array_equal(model.get_layer("normalize")(pixels), pixels.astype(np.float32))
    statistics = models.normalization(untrained("MobileNet"), [0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    assert statistics == ([0.0] * 3, [1 / 255] * 3)


def test_grey_images_are_taken_for_grey_rgb() -> None:
    keras.utils.set_random_seed(0)
    grey = build(untrained("VGG16", dropout=0.0), channels=1)
    colour = build(untrained("VGG16", dropout=0.0), channels=3)
    colour.set_weights(grey.get_weights())
    pixels = pixels_of(channels=1)
    np.testing.assert_allclose(
        answer(grey, pixels),
        answer(colour, np.repeat(pixels, 3, axis=-1)),
        rtol=1e-5,
    )


def test_a_frozen_backbone_leaves_the_head_to_train() -> None:
    model = build(untrained("MobileNet"))
    core = model.get_layer("core")
    backbone = core.get_layer("backbone")
    backbone.trainable = False
    assert [each.path for each in model.trainable_variables] == ["logits/kernel", "logits/bias"]
    before = backbone.get_weights()

    def is_as_before() -> bool:
        return all(map(np.array_equal, backbone.get_weights(), before))

    model(pixels_of(), training=True)
    assert is_as_before()
    backbone.trainable = True
    model(pixels_of(), training=True)
    assert not is_as_before(), "batch normalization learned nothing"


@pytest.mark.parametrize(
    "backbone",
    [
        "MobileNet",
        "ConvNeXtTiny",
        "VGG16",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("DenseNet121", "EfficientNetB0", "InceptionResNetV2", "NASNetMobile")
        ),
    ],
)
def test_a_saved_model_answers_the_same(backbone: str, tmp_path: Path) -> None:
    side = 75 if backbone == "InceptionResNetV2" else 32
    model = build(untrained(backbone), side)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    pixels = pixels_of(side)
    np.testing.assert_array_equal(answer(again, pixels), answer(model, pixels))


# Weights


def network(backbone: str, weights: str | None = None, side: int = 32) -> keras.Model:
    """A network as Keras alone makes it; without weights, with some for every variable."""
    made = applications()[backbone](
        weights=weights, input_shape=(side, side, 3), include_top=False, pooling="avg"
    )
    if weights is None:  # also for what begins as zeros and ones
        generator = np.random.default_rng(0)
        for each in made.weights:
            if each.dtype == "float32":
                each.assign(each + 0.01 * generator.uniform(0.5, 1.5, each.shape))
        awake(made, pixels_of(side, images=8).astype(np.float32))
    return made


def answers(made: keras.Model, backbone: str, pixels: np.ndarray) -> np.ndarray:
    prepare = inspect.getmodule(applications()[backbone]).preprocess_input
    return answer(made, prepare(pixels.astype(np.float32)))


@pytest.fixture
def imagenet(monkeypatch: pytest.MonkeyPatch):
    """Let Keras find a file where it would download ImageNet's weights."""

    def put(path: Path) -> None:
        monkeypatch.setattr(file_utils, "get_file", lambda *given, **named: str(path))

    return put


def test_weights_come_from_a_file(tmp_path: Path) -> None:
    """Images of another size make no difference to it."""
    backbone = "MobileNet"
    elsewhere = network(backbone, side=64)
    elsewhere.save_weights(tmp_path / "some.weights.h5")
    here = network(backbone)
    here.load_weights(tmp_path / "some.weights.h5")
    model = build(PretrainedOptions(backbone=backbone, weights=str(tmp_path / "some.weights.h5")))
    expected = answers(here, backbone, pixels_of())
    assert_near(features(model, pixels_of()), expected)


def test_the_file_of_a_whole_classifier_will_do(tmp_path: Path) -> None:
    whole = applications()["MobileNet"](weights=None, input_shape=(32, 32, 3), classes=7)
    whole.save_weights(tmp_path / "whole.weights.h5")
    model = build(
        PretrainedOptions(backbone="MobileNet", weights=str(tmp_path / "whole.weights.h5"))
    )
    backbone = model.get_layer("core").get_layer("backbone")
    for found, expected in zip(backbone.get_weights(), whole.get_weights(), strict=False):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
def test_imagenet_weights_of_efficientnet_keep_their_own_scale(tmp_path: Path, imagenet) -> None:
    """Keras divides by the root of ImageNet's deviations if it loads those weights itself, and not
    if they come from a file, which spoils them."""
    network("EfficientNetB0").save_weights(tmp_path / "any.weights.h5")
    imagenet(tmp_path / "any.weights.h5")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this file is of a network without that layer
        original = network("EfficientNetB0", "imagenet")
    awake(original, pixels_of(images=8).astype(np.float32))
    original.save_weights(tmp_path / "imagenet.weights.h5")
    expected = answers(original, "EfficientNetB0", pixels_of())

    imagenet(tmp_path / "imagenet.weights.h5")
    for weights in ("imagenet", str(tmp_path / "imagenet.weights.h5")):
        model = build(PretrainedOptions(backbone="EfficientNetB0", weights=weights))
        assert_near(features(model, pixels_of()), expected)
    with pytest.raises(AssertionError):
        assert_near(answers(network("EfficientNetB0"), "EfficientNetB0", pixels_of()), expected)

    # Restoring, averaging and warm starts set variables: with the same, the answers are the same.
    again = keras.models.clone_model(model)
    again.set_weights(model.get_weights())
    np.testing.assert_allclose(answer(again, pixels_of()), answer(model, pixels_of()), atol=1e-6)


def test_imagenet_without_a_network_says_what_was_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urllib.request, "_opener", None)  # it remembers the proxies
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    get_file = file_utils.get_file
    monkeypatch.setattr(file_utils, "get_file", partial(get_file, cache_dir=tmp_path))
    with pytest.raises(ValueError, match="no ImageNet weights of VGG16: URL fetch") as caught:
        build(PretrainedOptions(backbone="VGG16"))
    for part in ("vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5", "~/.keras/models", "none"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


# What cannot be


@pytest.mark.parametrize(
    ("options", "side", "message"),
    [
        (untrained("mobilenetV2"), 32, "got backbone 'mobilenetV2'; did you mean MobileNetV2[?]"),
        (untrained("ResNet5"), 32, "did you mean ResNet50"),
        (untrained("imagenet_utils"), 32, "got backbone 'imagenet_utils'"),
        (
            untrained("MobileNet"),
            8,
            "MobileNet for images of 8x8: Input size must be at least 32x32",
        ),
        (untrained("Xception"), 70, "Xception for images of 70x70: .* at least 71x71"),
        (untrained("InceptionV3"), 74, "InceptionV3 for images of 74x74: .* at least 75x75"),
        (PretrainedOptions(), 31, "MobileNetV2 for images of 31x31: .* set --prepare.image_size"),
        (
            PretrainedOptions(weights="some.pkl"),
            32,
            "imagenet, none or a .weights.h5 file .* some.pkl",
        ),
        (PretrainedOptions(weights="some.h5"), 32, "imagenet, none or a .weights.h5 file"),
        (PretrainedOptions(weights="not.weights.h5"), 32, "not.weights.h5: no such weights file"),
    ],
)
def test_impossible_options_are_named(options: PretrainedOptions, side: int, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        build(options, side)
    assert "\n" not in str(caught.value)


def wrong_network(path: Path) -> None:
    applications()["VGG16"](weights=None, include_top=False).save_weights(path)


def no_hdf5(path: Path) -> None:
    path.write_bytes(b"no weights at all")


def cut_off(path: Path) -> None:
    wrong_network(path)
    path.write_bytes(path.read_bytes()[:5000])


def damaged(path: Path) -> None:
    wrong_network(path)
    content = path.read_bytes()
    path.write_bytes(content[:1000] + b"\0" * 1000 + content[2000:])


def empty(path: Path) -> None:
    h5py.File(path, "w").close()


def a_layer_is_missing(path: Path) -> None:
    applications()["MobileNet"](weights=None, include_top=False).save_weights(path)
    with h5py.File(path, "a") as file:
        del file["layers/conv2d_3"]


@pytest.mark.parametrize(
    "damage", [wrong_network, no_hdf5, cut_off, damaged, empty, a_layer_is_missing]
)
def test_weights_that_do_not_fit_are_one_line(damage, tmp_path: Path) -> None:
    path = tmp_path / "some.weights.h5"
    damage(path)
    with pytest.raises(ValueError, match=r"some[.]weights[.]h5: no weights of mobilenet") as caught:
        build(PretrainedOptions(backbone="MobileNet", weights=str(path)))
    assert "\n" not in str(caught.value)


# All of them


@pytest.mark.slow
@pytest.mark.parametrize("backbone", sorted(applications()))
def test_every_network_is_built(backbone: str) -> None:
    model = build(untrained(backbone), 75)
    assert model.output_shape == (None, 4)
    assert model.get_layer("core").get_layer("backbone").output_shape[0] is None
    keras.backend.clear_session()
