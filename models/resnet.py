"""ResNet in its CIFAR form: three stages of n residual blocks, depth 6n + 2.

Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", 2015, section 4.2, with
option A shortcuts (subsampling and zero-padded channels, no parameters).
"""

import keras
from keras import layers

from models.kernels import kernel
from models.options import ResnetOptions


def build_core(
    image_shape: tuple[int, int, int], classes: int, options: ResnetOptions
) -> keras.Model:
    """Normalized float images `[batch, *image_shape]` to logits `[batch, classes]`.

    Raises:
        ValueError: `depth` is not 6n + 2, or an image side is under 4 pixels.
    """
    if (options.depth - 2) % 6:
        lower = options.depth - (options.depth - 2) % 6
        raise ValueError(
            f"model resnet: expected a depth of 6n + 2, got {options.depth}; "
            f"nearest are {lower} and {lower + 6}"
        )
    if min(image_shape[:2]) < 4:
        raise ValueError(
            f"model resnet: expected images of at least 4x4, got {image_shape[0]}x{image_shape[1]}"
        )
    x = inputs = keras.Input(image_shape, name="normalized")
    x = _convolution(x, options.width, 1, options, "stem")
    x = layers.ReLU(name="stem_relu")(x)
    blocks = (options.depth - 2) // 6
    for stage in (1, 2, 3):
        for block in range(1, blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            skipped = options.stochastic_depth * ((stage - 1) * blocks + block) / (3 * blocks)
            name = f"stage{stage}_block{block}"
            x = _block(x, options.width * 2 ** (stage - 1), stride, skipped, options, name)
    x = layers.GlobalAveragePooling2D(name="global_average")(x)
    logits = layers.Dense(classes, name="logits", **kernel(options))(x)
    return keras.Model(inputs, logits, name="core")


def _block(
    x: keras.KerasTensor,
    filters: int,
    stride: int,
    skipped: float,
    options: ResnetOptions,
    name: str,
) -> keras.KerasTensor:
    """A residual block, whose convolutions a share of the images skips in training."""
    shortcut = x
    if stride > 1:
        shortcut = layers.AveragePooling2D(
            1, strides=stride, padding="same", name=f"{name}_subsample"
        )(x)
        extra = filters - x.shape[-1]
        # Channels are padded by way of a transposition: ZeroPadding2D pads the two middle axes.
        shortcut = layers.Permute((1, 3, 2), name=f"{name}_channels_in")(shortcut)
        shortcut = layers.ZeroPadding2D(
            ((0, 0), (extra // 2, extra - extra // 2)), name=f"{name}_pad"
        )(shortcut)
        shortcut = layers.Permute((1, 3, 2), name=f"{name}_channels_out")(shortcut)
    x = _convolution(x, filters, stride, options, f"{name}_conv1")
    x = layers.ReLU(name=f"{name}_relu1")(x)
    x = _convolution(x, filters, 1, options, f"{name}_conv2")
    if skipped:
        # One draw for each image; the others are scaled up, so that nothing changes at rest.
        x = layers.Dropout(skipped, noise_shape=(None, 1, 1, 1), name=f"{name}_depth")(x)
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.ReLU(name=f"{name}_relu2")(x)


def _convolution(
    x: keras.KerasTensor, filters: int, stride: int, options: ResnetOptions, name: str
) -> keras.KerasTensor:
    x = layers.Conv2D(
        filters,
        3,
        strides=stride,
        padding="same",
        use_bias=False,
        name=name,
        **kernel(options),
    )(x)
    return layers.BatchNormalization(
        momentum=options.batch_normalization_momentum, name=f"{name}_norm"
    )(x)
