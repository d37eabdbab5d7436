"""Architectures: shapes, pinned sizes, determinism, and refusal of impossible images."""

import keras
import numpy as np
import pytest

import models
from models.options import (
    CnnOptions,
    FastOptions,
    LenetOptions,
    ModelOptions,
    PretrainedOptions,
    ResnetOptions,
    WideResnetOptions,
)


def build(
    options: ModelOptions, shape: tuple[int, int, int] = (28, 28, 1), classes: int = 10
) -> keras.Model:
    channels = shape[2]
    return models.build(options, shape, classes, mean=[0.4] * channels, std=[0.25] * channels)


@pytest.mark.parametrize(
    ("options", "shape", "parameters"),
    [
        (CnnOptions(), (28, 28, 1), 289_066),
        (CnnOptions(batch_normalization=False), (28, 28, 1), 287_722),
        (CnnOptions(convolutions=[1, 2, 2]), (28, 28, 1), 279_722),
        (CnnOptions(head="flatten", dense_units=[64]), (28, 28, 1), 362_218),
        (ResnetOptions(depth=8, width=8), (28, 28, 1), 19_314),
        (CnnOptions(stem="haar"), (28, 28, 1), 289_946),
        (FastOptions(), (32, 32, 3), 1_973_944),  # 1.97 M in Jordan 2024
        (FastOptions(widths=[8, 16]), (8, 8, 1), 6_184),
        # Of MobileNet's 4.25 M (Howard et al. 2017, table 9) all but the last layer, and ours.
        (PretrainedOptions(backbone="MobileNet", weights="none"), (32, 32, 3), 3_239_114),
        (WideResnetOptions(), (32, 32, 3), 2_752_506),
    ],
)
def test_parameter_counts(
    options: ModelOptions, shape: tuple[int, int, int], parameters: int
) -> None:
    assert build(options, shape).count_params() == parameters


def trained(model: keras.Model) -> int:
    """Parameters without the moving statistics of batch normalization, as papers count."""
    return sum(int(np.prod(each.shape)) for each in model.trainable_variables)


@pytest.mark.parametrize(
    ("shape", "map_shape", "parameters"),
    [
        ((32, 32, 3), (5, 5), 62_006),  # as courses teach it: 400-120-84-10
        ((32, 32, 1), (5, 5), 61_706),  # LeCun et al. 1998, with a full connection table
        ((28, 28, 1), (5, 5), 61_706),  # padded to the paper's 32x32
        ((28, 28, 3), (5, 5), 62_006),
        ((31, 31, 1), (5, 5), 61_706),
        ((33, 35, 1), (5, 5), 61_706),
        ((28, 40, 1), (5, 8), 90_506),
        ((64, 48, 3), (13, 9), 238_646),
        ((20, 20, 1), (3, 3), 30_986),
        ((8, 8, 1), (2, 2), 21_386),
    ],
)
def test_lenet_is_that_of_its_source(
    shape: tuple[int, int, int], map_shape: tuple[int, int], parameters: int
) -> None:
    """Only images with a side under 32, from which nothing of 5x5 is left, are padded."""
    core = build(LenetOptions(), shape).get_layer("core")
    assert core.count_params() == parameters
    assert core.get_layer("pool2").output.shape[1:] == (*map_shape, 16)
    paddings = [core.get_layer(name).padding for name in ("conv1", "conv2")]
    smallest = min(shape[:2])
    assert paddings == [
        "valid" if smallest >= 32 else "same",
        "valid" if smallest >= 12 else "same",
    ]


@pytest.mark.parametrize(
    ("depth", "parameters", "millions"),
    [
        (20, 269_722, "0.27"),
        (32, 464_154, "0.46"),
        (44, 658_586, "0.66"),
        (56, 853_018, "0.85"),
        (110, 1_727_962, "1.7"),
    ],
)
def test_residual_networks_are_as_large_as_in_the_paper(
    depth: int, parameters: int, millions: str
) -> None:
    """He et al. 2015, table 6: shortcuts without parameters (option A)."""
    found = trained(build(ResnetOptions(depth=depth), (32, 32, 3)))
    assert found == parameters
    assert f"{found / 1e6:.2g}" == millions


@pytest.mark.parametrize(
    ("depth", "widening", "parameters", "millions"),
    [
        (40, 1, 563_930, 0.6),
        (40, 2, 2_243_546, 2.2),
        (40, 4, 8_949_210, 8.9),
        (16, 8, 10_961_370, 11.0),
        (22, 8, 17_158_106, 17.2),
        (28, 10, 36_479_194, 36.5),
    ],
)
def test_wide_networks_are_as_large_as_in_the_paper(
    depth: int, widening: int, parameters: int, millions: float
) -> None:
    """Zagoruyko and Komodakis 2016, tables 4 and 5."""
    found = trained(build(WideResnetOptions(depth=depth, widening=widening), (32, 32, 3)))
    assert found == parameters
    assert round(found / 1e6, 1) == millions


@pytest.mark.parametrize(
    ("backbone", "published"),
    [("MobileNetV2", 3_538_984), ("ResNet50", 25_636_712), ("EfficientNetB0", 5_330_564)],
)
def test_pretrained_networks_are_as_large_as_published(backbone: str, published: int) -> None:
    """Keras's counts (3.5 M, 25.6 M, 5.3 M in its table), whose last layer has 1,000 classes.

    EfficientNet's 7 numbers of a normalization, 5,330,571 there, are constants here.
    """
    model = build(PretrainedOptions(backbone=backbone, weights="none"), (32, 32, 3))
    features = model.get_layer("core").get_layer("backbone").output.shape[-1]
    assert model.count_params() == published - (features + 1) * (1000 - 10)


@pytest.mark.parametrize(
    "options",
    [
        CnnOptions(),
        FastOptions(),
        LenetOptions(),
        ResnetOptions(depth=8),
        WideResnetOptions(depth=10, widening=2, dropout=0.3),
    ],
)
@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (33, 47, 3)])
def test_uint8_pixels_to_logits(options: ModelOptions, shape: tuple[int, int, int]) -> None:
    model = build(options, shape, classes=7)
    pixels = np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)
    logits = model.predict_on_batch(pixels)
    assert model.input_shape == (None, *shape)
    assert model.input.dtype == "uint8"
    assert logits.shape == (3, 7)
    assert logits.dtype == np.float32
    assert not np.allclose(logits.sum(axis=1), 1), "probabilities, not logits"


def test_normalization_is_part_of_the_model() -> None:
    model = models.build(LenetOptions(), (8, 8, 3), 2, mean=[0.1, 0.2, 0.3], std=[0.5, 0.25, 0.1])
    pixels = np.full((1, 8, 8, 3), 51, np.uint8)  # 51 / 255 = 0.2
    normalized = model.get_layer("normalize")(pixels)
    np.testing.assert_allclose(normalized[0, 0, 0], [0.2, 0.0, -1.0], atol=1e-6)


def test_same_seed_same_weights() -> None:
    weights = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        weights.append(build(ResnetOptions(depth=8)).get_layer("core").get_weights()[0])
    np.testing.assert_array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


def test_cnn_takes_every_option() -> None:
    options = CnnOptions(
        filters=[4, 8],
        convolutions=1,
        kernel_size=5,
        stride=2,
        pooling="average",
        pool_size=3,
        head="flatten",
        dense_units=[12],
        dropout=0.25,
        batch_normalization=False,
        initializer="orthogonal",
        l2=0.001,
    )
    core = build(options, (40, 40, 3)).get_layer("core")
    first = core.get_layer("stage1_conv1")
    assert (first.kernel_size, first.strides, first.use_bias) == ((5, 5), (2, 2), True)
    assert type(first.kernel_initializer).__name__ == "Orthogonal"
    assert float(first.kernel_regularizer.l2) == pytest.approx(0.001)
    assert core.get_layer("stage1_pool").pool_size == (3, 3)
    assert core.get_layer("stage2_dropout").rate == 0.25
    assert core.get_layer("dense1").units == 12
    # 40 -> 20 (stride) -> 6 (pool) -> 3 -> 1
    assert core.get_layer("flatten").output.shape == (None, 8)


def test_dropout_acts_in_training_alone() -> None:
    model = build(CnnOptions(dropout=0.5), (8, 8, 1))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), np.uint8)
    still = [np.asarray(model(pixels, training=False)) for _ in range(2)]
    np.testing.assert_array_equal(*still)
    assert not np.array_equal(model(pixels, training=True), model(pixels, training=True))


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        (CnnOptions(filters=[8] * 4), (8, 8, 1), "8x8 have no pixel left after stage 4 of 4"),
        (CnnOptions(convolutions=[1, 2]), (28, 28, 1), "each of the 3 stages"),
        (LenetOptions(), (3, 28, 1), "at least 4x4, got 3x28"),
        (ResnetOptions(), (3, 3, 1), "at least 4x4"),
        (WideResnetOptions(), (3, 9, 1), "model wide-resnet: .* at least 4x4, got 3x9"),
        (WideResnetOptions(depth=20), (8, 8, 1), "6n [+] 4, got 20; nearest are 16 and 22"),
        (FastOptions(), (5, 32, 3), "at least 6x6, got 5x32 for 3 stages; use fewer widths"),
        (
            ResnetOptions(depth=18),
            (32, 32, 3),
            "expected a depth of 6n [+] 2, got 18; nearest are 14 and 20",
        ),
    ],
)
def test_impossible_options_are_named(
    options: ModelOptions, shape: tuple[int, int, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(options, shape)


@pytest.mark.parametrize(
    ("shape", "sides"),
    [
        ((32, 32, 3), [31, 15, 7, 3]),  # as in the source
        ((28, 40, 1), [27, 13, 6, 3]),
        ((8, 8, 1), [7, 4, 2, 1]),
        ((6, 6, 1), [5, 3, 2, 1]),
    ],
)
def test_the_fast_network_pools_each_stage(shape: tuple[int, int, int], sides: list[int]) -> None:
    core = build(FastOptions(), shape).get_layer("core")
    names = ["stem", "stage1_pool", "stage2_pool", "stage3_pool"]
    assert [core.get_layer(name).output.shape[1] for name in names] == sides
    assert core.get_layer("stage3_conv2_gelu").output.shape[-1] == 256
    assert core.get_layer("logits").bias is None


def test_the_logits_of_the_fast_network_are_scaled() -> None:
    models_of = [build(FastOptions(scaling_factor=factor), (8, 8, 1)) for factor in (1.0, 0.25)]
    models_of[1].set_weights(models_of[0].get_weights())
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1)).astype(np.uint8)
    whole, quarter = (model.predict_on_batch(pixels) for model in models_of)
    np.testing.assert_allclose(quarter, whole / 4, rtol=1e-6)


def test_a_wide_block_begins_with_its_activation() -> None:
    options = WideResnetOptions(
        depth=10, widening=2, dropout=0.3, batch_normalization_momentum=0.8, stochastic_depth=0.6
    )
    core = build(options, (16, 16, 1)).get_layer("core")

    def source(name: str) -> str:
        return str(core.get_layer(name).input._keras_history.operation.name)

    assert source("stage1_block1_in_norm") == "stem"
    assert source("stage1_block1_shortcut") == "stage1_block1_in_relu"
    assert source("stage1_block1_conv1") == "stage1_block1_in_relu"
    assert source("stage1_block1_conv2") == "stage1_block1_dropout"
    assert source("stage2_block1_in_norm") == "stage1_block1_add"
    assert core.get_layer("stage2_block1_shortcut").strides == (2, 2)
    assert core.get_layer("stage3_block1_dropout").rate == 0.3
    assert core.get_layer("stage3_block1_depth").rate == 0.6
    assert core.get_layer("last_norm").momentum == 0.8


def test_only_blocks_of_another_width_have_a_convolution_as_shortcut() -> None:
    core = build(WideResnetOptions(depth=16, widening=1), (16, 16, 1)).get_layer("core")
    names = {layer.name for layer in core.layers if layer.name.endswith("shortcut")}
    assert names == {"stage2_block1_shortcut", "stage3_block1_shortcut"}


def test_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        build(CnnOptions(), classes=1)
