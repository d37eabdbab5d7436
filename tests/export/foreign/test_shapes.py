"""Models whose inputs and outputs are not of the plain form, and parts of the user's own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from export.foreign.model import adopt as load
from export.foreign.proof import bundle_document
from export.serving_function import load_model
from export.to_onnx import export_onnx
from serve.classifier import Classifier
from serve.command import LockstepError
from serve.description import Description
from tests.export.foreign.colours import LABELS, SIDE, colours
from tests.export.foreign.conftest import Adopt


def exported(adopted: Any, path: Path) -> Classifier:
    function = adopted.model.serving_function(adopted.decision.head, adopted.scaling)
    export_onnx(function, bundle_document(adopted), path)
    return Classifier(path)


def grey(shape: tuple[int, ...]) -> keras.Model:
    inputs = keras.Input(shape)
    x = layers.Reshape((SIDE, SIDE, 1))(layers.Rescaling(1 / 255)(inputs))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(x))
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(x))


FORMS: dict[str, Callable[[], keras.Model]] = {
    "dictionary out": lambda: colours(lambda x: {"probs": x}),
    "list out": lambda: colours(lambda x: [x]),
    "dictionary in": lambda: keras.Model({"image": (one := colours()).inputs[0]}, one.outputs[0]),
    "grey without channels": lambda: grey((SIDE, SIDE)),
    "grey": lambda: grey((SIDE, SIDE, 1)),
    "batch of 1": lambda: colours(inputs=keras.Input(batch_shape=(1, SIDE, SIDE, 3))),
    "batch of 32": lambda: colours(inputs=keras.Input(batch_shape=(32, SIDE, SIDE, 3))),
    "sequential, batch of 8": lambda: keras.Sequential(
        [keras.Input(batch_shape=(8, SIDE, SIDE, 3)), layers.Rescaling(1 / 255),
         layers.Flatten(), layers.Dense(3, activation="softmax")]
    ),
    "whole numbers": lambda: colours(inputs=keras.Input((SIDE, SIDE, 3), dtype="uint8")),
    "more dimensions": lambda: colours(layers.Reshape((1, 1, 3))),
    "mixup": lambda: colours(before=lambda x: layers.Rescaling(1 / 255)(layers.MixUp()(x))),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict")
@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_exported_for_any_batch(name: str, adopt: Adopt, tmp_path: Path) -> None:
    adopted = adopt(FORMS[name]())
    classifier = exported(adopted, tmp_path / "m.onnx")
    for size in (1, 5, 27):
        found = classifier.predict(adopted.read.pixels[:size])
        np.testing.assert_allclose(found, adopted.reference[:size], atol=1e-5)


@pytest.mark.parametrize("batch", [1, 4])
def test_the_reference_is_the_fixed_models_own_answer(
    batch: int, adopt: Adopt, tmp_path: Path
) -> None:
    adopted = adopt(colours(inputs=keras.Input(batch_shape=(batch, SIDE, SIDE, 3))))
    original = load_model(tmp_path / "model.keras")
    images = adopted.read.pixels[:batch].astype(np.float32)
    np.testing.assert_allclose(original.predict_on_batch(images), adopted.reference[:batch], 1e-5)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            lambda: colours(
                lambda x: ops.reshape(x, (4, 3)),
                inputs=keras.Input(batch_shape=(4, SIDE, SIDE, 3)),
            ),
            "the model takes batches of 4 images alone",
        ),
        (
            lambda: colours(
                lambda x: x / ops.max(x, axis=0, keepdims=True),
                inputs=keras.Input(batch_shape=(4, SIDE, SIDE, 3)),
            ),
            "the model takes batches of 4 images alone",
        ),
        (lambda: colours(lambda x: {"a": x, "b": x * 2}), "expected one output, got 2: "),
        (
            lambda: keras.Sequential(
                [keras.Input((3, SIDE, SIDE)), layers.Flatten(), layers.Dense(3)]
            ),
            "the model takes channels first",
        ),
        (lambda: colours(lambda x: ops.argmax(x, axis=-1)), "expected floating-point answers"),
    ],
    ids=["batch in a reshape", "neighbours", "two outputs", "channels first", "class numbers"],
)
def test_what_cannot_be_is_explained(
    model: Callable[[], keras.Model], message: str, adopt: Adopt
) -> None:
    with pytest.raises(LockstepError, match=message):
        adopt(model())


OWN = """
import keras

class Half(keras.layers.Layer):
    def call(self, inputs):
        return inputs / 2

@keras.saving.register_keras_serializable("theirs")
class Twice(keras.layers.Layer):
    def call(self, inputs):
        return inputs * 2

def triple(x):
    return 3 * x

class Net(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.scale = keras.layers.Rescaling(1 / 255)
        self.flat = keras.layers.Flatten()
        self.head = keras.layers.Dense(3, activation="softmax")
    def call(self, inputs):
        return self.head(self.flat(self.scale(inputs)))
"""


@pytest.fixture
def own(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """The user's file, and what it defines, unknown to Keras from now on."""
    path = tmp_path / "own.py"
    path.write_text(OWN)
    names: dict[str, Any] = {"__name__": "own"}
    exec(compile(OWN, path, "exec"), names)
    keras.saving.get_custom_objects().pop("theirs>Twice")
    return path, names


@pytest.mark.parametrize("name", ["Half", "Twice", "triple", "Net"])
def test_parts_of_the_users_own_are_named_and_loaded_when_asked(
    name: str, own: tuple[Path, dict[str, Any]], adopt: Adopt
) -> None:
    path, names = own
    part = names[name]
    if name == "Net":
        model = part(name="net")
        model(np.zeros((1, SIDE, SIDE, 3), np.float32))
    elif name == "triple":
        model = colours(layers.Activation("linear"), activation=None)
        model = keras.Model(model.inputs, layers.Activation(part, name="own")(model.outputs[0]))
    else:
        model = colours(part(name="own"), activation=None)
    with pytest.raises(LockstepError, match=rf"layer '(own|net)' needs '{name}'.*--custom FILE.py"):
        adopt(model)
    try:
        adopted = adopt(model, custom=path)
    finally:
        keras.saving.get_custom_objects().pop("theirs>Twice", None)
    images = adopted.read.pixels.astype(np.float32)
    answers = adopted.decision.head.in_keras(np.asarray(model.predict(images, verbose=0)))
    np.testing.assert_allclose(adopted.reference, answers, atol=1e-5)


def test_code_that_fails_is_one_line_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("import keras\n\nraise KeyError('lost')\n")
    colours().save(tmp_path / "m.keras")
    with pytest.raises(LockstepError, match=r"KeyError: 'lost' \(line 3 of own.py\)"):
        load(tmp_path / "m.keras", Description(LABELS), tmp_path / "own.py")
    with pytest.raises(LockstepError, match="--custom: expected a Python file"):
        load(tmp_path / "m.keras", Description(LABELS), tmp_path / "none.py")


def test_a_lambda_is_refused_by_name_with_custom_code_too(
    own: tuple[Path, dict[str, Any]], adopt: Adopt
) -> None:
    model = colours(layers.Lambda(lambda x: x * 2, name="twice"), activation=None)
    for custom in (None, own[0]):
        with pytest.raises(LockstepError, match=r"layer 'twice' \(Lambda\) holds a Python lambda"):
            adopt(model, custom=custom)
    keras.saving.get_custom_objects().pop("theirs>Twice", None)
