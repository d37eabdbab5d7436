"""Every optimizer against its equations, step by step."""

import math

import keras
import numpy as np
import pytest

from pipeline.command_line import parse
from pipeline.options.optimizers import (
    AdagradOptions,
    AdamOptions,
    AdamwOptions,
    MomentumOptions,
    OptimizerOptions,
    OtherOptimizerOptions,
    RmspropOptions,
    SgdOptions,
)
from pipeline.recipe import ConfigError
from pipeline.training.optimizers import build_optimizer, is_kernel


def adam_reference(options: AdamOptions | AdamwOptions) -> list[float]:
    weight, mean, square, found = 1.0, 0.0, 0.0, []
    for step in range(1, 4):
        gradient = 2 * weight
        weight -= options.learning_rate * getattr(options, "weight_decay", 0.0) * weight
        mean = options.beta_1 * mean + (1 - options.beta_1) * gradient
        square = options.beta_2 * square + (1 - options.beta_2) * gradient**2
        rate = (
            options.learning_rate * math.sqrt(1 - options.beta_2**step) / (1 - options.beta_1**step)
        )
        weight -= rate * mean / (math.sqrt(square) + options.epsilon)
        found.append(weight)
    return found


def momentum_reference(options: MomentumOptions) -> list[float]:
    weight, velocity, found = 1.0, 0.0, []
    for _ in range(3):
        gradient = 2 * weight
        weight -= options.learning_rate * options.weight_decay * weight
        velocity = options.momentum * velocity - options.learning_rate * gradient
        step = velocity
        if options.nesterov:
            step = options.momentum * velocity - options.learning_rate * gradient
        weight += step
        found.append(weight)
    return found


def sgd_reference(options: SgdOptions) -> list[float]:
    weight, found = 1.0, []
    for _ in range(3):
        gradient = 2 * weight
        weight -= options.learning_rate * options.weight_decay * weight
        weight -= options.learning_rate * gradient
        found.append(weight)
    return found


def adagrad_reference(options: AdagradOptions) -> list[float]:
    weight, total, found = 1.0, options.initial_accumulator, []
    for _ in range(3):
        gradient = 2 * weight
        total += gradient**2
        weight -= options.learning_rate * gradient / math.sqrt(total + options.epsilon)
        found.append(weight)
    return found


def rmsprop_reference(options: RmspropOptions) -> list[float]:
    weight, mean, velocity, found = 1.0, 0.0, 0.0, []
    for _ in range(3):
        gradient = 2 * weight
        mean = options.rho * mean + (1 - options.rho) * gradient**2
        velocity = options.momentum * velocity + options.learning_rate * gradient / math.sqrt(
            mean + options.epsilon
        )
        weight -= velocity
        found.append(weight)
    return found


REFERENCES = [
    (SgdOptions(learning_rate=0.1), sgd_reference),
    (SgdOptions(learning_rate=0.1, weight_decay=0.3), sgd_reference),
    (MomentumOptions(), momentum_reference),
    (MomentumOptions(nesterov=True, weight_decay=0.2), momentum_reference),
    (AdagradOptions(), adagrad_reference),
    (RmspropOptions(), rmsprop_reference),
    (RmspropOptions(momentum=0.5), rmsprop_reference),
    (AdamOptions(), adam_reference),
    (AdamwOptions(weight_decay=0.1), adam_reference),
]


@pytest.mark.parametrize(
    ("options", "reference"),
    REFERENCES,
    ids=[f"{options.name}{number}" for number, (options, _) in enumerate(REFERENCES)],
)
def test_optimizers_follow_their_equations(options: OptimizerOptions, reference: object) -> None:
    """Three steps down f(w) = w^2 from w = 1."""
    weight = keras.Variable([[1.0]], name="kernel")
    optimizer = build_optimizer(options, [weight])
    optimizer.build([weight])
    found = []
    for _ in range(3):
        optimizer.apply([2 * weight.value])
        found.append(float(weight.numpy()[0, 0]))
    assert callable(reference)
    assert found == pytest.approx(reference(options), rel=1e-5)


GRADIENTS = (np.array([3.0, -4.0], np.float32), np.array([[12.0]], np.float32))
"""Of norms 5 and 12, and of norm 13 together."""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, GRADIENTS),
        ({"clip_value": 3.5}, ([3.0, -3.5], [[3.5]])),
        ({"clip_norm": 2.5}, ([1.5, -2.0], [[2.5]])),
        ({"clip_norm": 6.0}, ([3.0, -4.0], [[6.0]])),
        ({"clip_global_norm": 6.5}, ([1.5, -2.0], [[6.0]])),
        ({"clip_global_norm": 13.5}, GRADIENTS),
    ],
)
@pytest.mark.parametrize("form", [SgdOptions, MomentumOptions, OtherOptimizerOptions])
def test_gradients_are_clipped(
    form: type[OptimizerOptions], options: dict[str, float], expected: tuple[list[float], ...]
) -> None:
    if form is OtherOptimizerOptions:
        options = {**options, "optimizer": "SGD"}  # type: ignore[dict-item]
    weights = [keras.Variable(np.zeros_like(gradient)) for gradient in GRADIENTS]
    optimizer = build_optimizer(form(learning_rate=1.0, **options), weights)  # type: ignore[arg-type]
    optimizer.build(weights)
    optimizer.apply([keras.ops.convert_to_tensor(gradient) for gradient in GRADIENTS])
    for weight, gradient in zip(weights, expected, strict=True):
        np.testing.assert_allclose(weight.numpy(), -np.asarray(gradient), rtol=1e-6)


def test_two_ways_to_clip_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^train.optimizer: expected one way to clip, got clip_"):
        parse(["--train.optimizer.clip_norm", "1", "--train.optimizer.clip_value", "2"])


DECAYING: list[OptimizerOptions] = [
    *(
        form(learning_rate=0.5, weight_decay=0.1)
        for form in (SgdOptions, MomentumOptions, AdagradOptions, RmspropOptions, AdamOptions)
    ),
    AdamwOptions(learning_rate=0.5, weight_decay=0.1),
    *(
        OtherOptimizerOptions(optimizer=name, learning_rate=0.5, weight_decay=0.1)
        for name in ("Adadelta", "Adamax", "AdamW", "Lamb", "Lion", "Muon", "Nadam")
    ),
]
"""All that leave a weight where it is without a gradient and decay: not Adafactor, not Ftrl."""
NAMES = [getattr(options, "optimizer", options.name) for options in DECAYING]


def network() -> keras.Model:
    """Convolutions of three kinds, batch normalization, biases: no weight is 0 or 1."""
    x = image = keras.Input((6, 6, 2))
    for layer in (
        keras.layers.Conv2D(3, 3, name="conv"),
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.DepthwiseConv2D(2, name="depthwise"),
        keras.layers.SeparableConv2D(4, 2, name="separable"),
        keras.layers.LayerNormalization(axis=(1, 2, 3), name="layer_norm"),
        keras.layers.Flatten(),
        keras.layers.Dense(2, name="logits"),
    ):
        x = layer(x)
    model = keras.Model(image, x)
    generator = np.random.default_rng(4)
    for variable in model.trainable_variables:
        variable.assign(generator.uniform(0.5, 2.0, variable.shape))
    return model


def steps_without_gradient(model: keras.Model, options: OptimizerOptions, steps: int = 3) -> None:
    optimizer = build_optimizer(options, model.trainable_variables)
    optimizer.build(model.trainable_variables)
    for _ in range(steps):
        optimizer.apply([keras.ops.zeros(each.shape) for each in model.trainable_variables])


KERNELS = {
    *("conv/kernel", "depthwise/kernel", "logits/kernel"),
    *("separable/depthwise_kernel", "separable/pointwise_kernel"),
}


@pytest.mark.parametrize("which", ["kernels", "all"])
@pytest.mark.parametrize("options", DECAYING, ids=NAMES)
def test_without_a_gradient_the_kernels_alone_decay(options: OptimizerOptions, which: str) -> None:
    """By learning rate times decay each step; unless told to, gammas, betas and biases stay."""
    model = network()
    before = [variable.numpy() for variable in model.trainable_variables]
    assert {each.path for each in model.trainable_variables if is_kernel(each)} == KERNELS
    steps_without_gradient(model, options.model_copy(update={"weight_decay_on": which}))
    for variable, old in zip(model.trainable_variables, before, strict=True):
        decays = which == "all" or variable.path in KERNELS
        expected = old * (1 - 0.5 * 0.1) ** 3 if decays else old
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-6 if decays else 0)


@pytest.mark.parametrize("options", DECAYING, ids=NAMES)
def test_no_decay_is_none(options: OptimizerOptions) -> None:
    """Keras's AdamW refuses a decay of None, and Muon has a second one of 0.004."""
    model = network()
    before = [variable.numpy() for variable in model.trainable_variables]
    steps_without_gradient(model, options.model_copy(update={"weight_decay": 0.0}))
    for variable, old in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), old)


def test_the_decay_comes_before_the_step_of_the_gradient() -> None:
    """w <- w - rate * decay * w, then the optimizer's own step; Loshchilov and Hutter 2019."""
    kernel, bias = keras.Variable([[2.0]], name="kernel"), keras.Variable([2.0], name="bias")
    options = MomentumOptions(learning_rate=0.5, weight_decay=0.1)
    optimizer = build_optimizer(options, [kernel, bias])
    optimizer.build([kernel, bias])
    expected, velocity = np.array([2.0, 2.0]), 0.0
    for _ in range(3):
        optimizer.apply([keras.ops.ones([1, 1]), keras.ops.ones([1])])
        velocity = 0.9 * velocity - 0.5
        expected = expected * [1 - 0.5 * 0.1, 1] + velocity
        np.testing.assert_allclose([kernel.numpy()[0, 0], bias.numpy()[0]], expected, rtol=1e-6)


@pytest.mark.parametrize("backbone", ["ConvNeXtTiny", "MobileNetV3Small"])
def test_kernels_of_pretrained_networks_are_known(backbone: str) -> None:
    """Also depthwise ones; LayerScale's factors, without a name there, are none."""
    model = getattr(keras.applications, backbone)(weights=None, include_top=False)
    for variable in model.trainable_variables:
        assert is_kernel(variable) == variable.path.endswith("kernel"), variable.path


@pytest.mark.parametrize("name", ["bias", "beta", "gamma"])
def test_a_bias_of_two_axes_is_no_kernel(name: str) -> None:
    """As multi-head attention and normalization over several axes have them."""
    assert not is_kernel(keras.Variable(np.ones((2, 3)), name=name))
    assert is_kernel(keras.Variable(np.ones((2, 3)), name="embeddings"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Lyon"], "got 'Lyon'; did you mean Lion?"),
        (["Optimizer"], "expected one of Adadelta, .*; got 'Optimizer'"),
        (["Nadam", "{beta1: 0.9}"], "Nadam has beta_1, beta_2, epsilon; got 'beta1'; did you mean"),
        (["Nadam", "{use_ema: true}"], "got 'use_ema'"),
        (["Nadam", "{beta_1: much}"], "beta_1: expected a number, as 0.9 is; got 'much'"),
        (["Nadam", "{beta_1: true}"], "beta_1: expected a number, as 0.9 is; got True"),
    ],
)
def test_other_optimizers_are_checked_by_their_signatures(
    arguments: list[str], message: str
) -> None:
    words = ["--train.optimizer.name", "keras", "--train.optimizer.optimizer", arguments[0]]
    if len(arguments) > 1:
        words += ["--train.optimizer.arguments", arguments[1]]
    with pytest.raises(ConfigError, match=message):
        build_optimizer(parse(words).config.train.optimizer, [])


def test_another_optimizer_gets_its_arguments() -> None:
    options = OtherOptimizerOptions(
        optimizer="Lion", learning_rate=0.25, weight_decay=0.5, arguments={"beta_1": 0.75}
    )
    configuration = build_optimizer(options, []).get_config()
    found = {key: configuration[key] for key in ("learning_rate", "weight_decay", "beta_1")}
    assert found == {"learning_rate": 0.25, "weight_decay": 0.5, "beta_1": 0.75}
