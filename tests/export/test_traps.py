"""What Keras 3.15's own export gets wrong without a word, and that our route does not.

Each model holds one trap; the reference is always Keras's `predict`.
"""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from numpy.typing import NDArray

from export.foreign.precision import in_float32
from export.saved_model import SavedModel, export_saved_model
from export.serving_function import ExportError, probabilities_of, serving_function
from export.to_onnx import export_onnx, tool_versions
from serve.bundle import BundleDocument
from serve.classifier import Classifier
from serve.image_spec import ImageSpec

SHAPE = (16, 16, 3)
CLASSES = 4
Layers = Callable[[keras.KerasTensor], keras.KerasTensor]


def model_with(*trap: Layers) -> keras.Model:
    """The trap in front of a convolution, a batch normalization and a dense layer."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input(SHAPE, dtype="uint8")
    x = layers.Rescaling(1 / 255)(x)
    for layer in trap:
        x = layer(x)
    x = layers.Conv2D(8, 3, name="convolution")(x)
    norm = layers.BatchNormalization(name="norm")
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(norm(x)))
    model = keras.Model(inputs, layers.Dense(CLASSES, name="logits")(x))
    # Statistics far from those of a batch: training mode would show.
    norm.set_weights([np.full(8, value, np.float32) for value in (1.5, 0.5, 0.3, 2.0)])
    return model


def pixels(count: int = 6) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


def document() -> BundleDocument:
    return BundleDocument(
        class_names=tuple("abcd"),
        image=ImageSpec(*SHAPE),
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        dataset_fingerprint="",
        config_hash="",
        metrics={},
        versions=tool_versions(),
        created="",
    )


def assert_faithful(model: keras.Model, folder: Path, *, saved_model: bool = True) -> None:
    """Both formats answer as `predict`, alone and in a batch, and every time the same."""
    images = pixels()
    expected = probabilities_of(model.predict(images, verbose=0).astype(np.float32))
    function = serving_function(model)
    export_onnx(function, document(), folder / "model.onnx")
    predictors = [Classifier(folder / "model.onnx").predict]
    if saved_model:
        export_saved_model(model, folder / "saved_model")
        predictors.append(SavedModel(folder / "saved_model").predict)
    for predict in predictors:
        np.testing.assert_allclose(predict(images), expected, atol=1e-5)
        np.testing.assert_array_equal(predict(images), predict(images))
        np.testing.assert_allclose(predict(images[2:3]), expected[2:3], atol=1e-5)


RANDOM = {
    "flip": lambda: layers.RandomFlip(),
    "rotation": lambda: layers.RandomRotation(0.2),
    "translation": lambda: layers.RandomTranslation(0.2, 0.2),
    "zoom": lambda: layers.RandomZoom(0.3),
    "contrast": lambda: layers.RandomContrast(0.5),
    "brightness": lambda: layers.RandomBrightness(0.5, value_range=(0, 1)),
    "dropout": lambda: layers.Dropout(0.5),
    "noise": lambda: layers.GaussianNoise(0.5),
    "mixup": lambda: layers.MixUp(),
    "cutmix": lambda: layers.CutMix(),
    "grayscale": lambda: layers.RandomGrayscale(),
    "hue": lambda: layers.RandomHue(0.5, value_range=(0, 1)),
    "saturation": lambda: layers.RandomSaturation(0.5, value_range=(0, 1)),
    "sharpness": lambda: layers.RandomSharpness(0.5, value_range=(0, 1)),
    "posterization": lambda: layers.RandomPosterization(4, value_range=(0, 1)),
    "colour degeneration": lambda: layers.RandomColorDegeneration(0.5, value_range=(0, 1)),
    "colour jitter": lambda: layers.RandomColorJitter((0, 1), 0.5, 0.5, 0.5, 0.5),
    "blur": lambda: layers.RandomGaussianBlur(value_range=(0, 1)),
    "invert": lambda: layers.RandomInvert(value_range=(0, 1)),
    "shear": lambda: layers.RandomShear(0.2, 0.2),
    "perspective": lambda: layers.RandomPerspective(),
    "elastic": lambda: layers.RandomElasticTransform(value_range=(0, 1)),
    "erasing": lambda: layers.RandomErasing(value_range=(0, 1)),
    "augmix": lambda: layers.AugMix((0, 1)),
    "randaugment": lambda: layers.RandAugment((0, 1)),
    "autocontrast": lambda: layers.AutoContrast(value_range=(0, 1)),
    "solarization": lambda: layers.Solarization(value_range=(0, 1)),
}


@pytest.mark.parametrize("name", RANDOM)
def test_an_augmentation_layer_is_exported_as_keras_predicts_it(name: str, tmp_path: Path) -> None:
    """`model.export()` augments at inference, and runs batch normalization in training mode.

    Some layers draw at rest too, and throw the draw away: only what the answers depend on counts.
    """
    assert_faithful(model_with(RANDOM[name]()), tmp_path, saved_model=name in ("mixup", "flip"))


@keras.saving.register_keras_serializable("lockstep-tests")
class Restless(layers.Layer):
    """Augments when it answers, too."""

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        return inputs * keras.random.uniform((1,), 0.9, 1.1)


def test_random_numbers_in_the_answer_are_refused() -> None:
    with pytest.raises(ExportError, match=r"draws random numbers .*Random"):
        serving_function(model_with(Restless()))


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Resizing(12, 12, interpolation="nearest"),
        lambda: layers.Resizing(12, 12),
        lambda: layers.CenterCrop(10, 10),
    ],
)
def test_a_layer_of_another_size_leaves_batch_normalization_at_rest(
    layer: Callable[[], Layers], tmp_path: Path
) -> None:
    assert_faithful(model_with(layer()), tmp_path)


def test_a_normalization_layer_keeps_its_constants_inside(tmp_path: Path) -> None:
    """`model.export(format="onnx")` makes them two more inputs that every caller must give."""
    trap = layers.Normalization(mean=[0.4, 0.5, 0.6], variance=[0.1, 0.2, 0.3])
    assert_faithful(model_with(trap), tmp_path)


def test_exact_gelu_is_exported(tmp_path: Path) -> None:
    """Its complementary error function has no form in tf2onnx."""
    assert_faithful(model_with(layers.Conv2D(4, 1), layers.Activation("gelu")), tmp_path)


def test_approximate_gelu_is_exported(tmp_path: Path) -> None:
    trap = layers.Activation(lambda x: keras.activations.gelu(x, approximate=True))
    assert_faithful(model_with(layers.Conv2D(4, 1), trap), tmp_path)


def test_a_grouped_convolution_is_exported(tmp_path: Path) -> None:
    """Keras compiles it as a function of its own, into which tf2onnx does not look."""
    assert_faithful(model_with(layers.Conv2D(6, 3, groups=3)), tmp_path)


def test_an_antialiased_resize_is_refused_by_name(tmp_path: Path) -> None:
    """It has no form in ONNX; Keras's own export writes an invalid file."""
    model = model_with(layers.Resizing(8, 8, antialias=True))
    with pytest.raises(ExportError, match="ScaleAndTranslate"):
        export_onnx(serving_function(model), document(), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_is_rebuilt_in_float32(policy: str, tmp_path: Path) -> None:
    keras.config.set_dtype_policy(policy)
    try:
        mixed = model_with()
    finally:
        keras.config.set_dtype_policy("float32")
    assert mixed.get_layer("convolution").compute_dtype != "float32"
    rebuilt = in_float32(mixed)
    for before, after in zip(mixed.get_weights(), rebuilt.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    images = pixels()
    np.testing.assert_allclose(
        rebuilt.predict(images, verbose=0), mixed.predict(images, verbose=0), atol=0.05
    )
    assert_faithful(rebuilt, tmp_path)


def test_a_model_that_was_never_called_is_exported(tmp_path: Path) -> None:
    """`model.export()` raises on it."""
    model = model_with()
    path = tmp_path / "never.keras"
    model.save(path)
    assert_faithful(keras.saving.load_model(path), tmp_path)


def test_the_output_and_the_batch_have_their_names(tmp_path: Path) -> None:
    """Keras's own export calls them `Identity:0` and `unk__N`."""
    from serve.onnx_file import outline

    export_onnx(serving_function(model_with()), document(), tmp_path / "model.onnx")
    file = outline((tmp_path / "model.onnx").read_bytes())
    assert [(value.name, value.shape) for value in file.inputs] == [("image", ("batch", *SHAPE))]
    assert [(value.name, value.shape) for value in file.outputs] == [
        ("probabilities", ("batch", CLASSES))
    ]
