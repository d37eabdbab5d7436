"""ResNet in its CIFAR form: three stages of n residual blocks, depth 6n + 2.

Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", 2015, section 4.2, with
option A shortcuts (subsampling and zero-padded channels, no parameters).
"""

import keras
from keras import layers

from models.checks import HALVED_TWICE, check_side
from models.kernels import kernel
from models.options import ResnetOptions
from models.residual import add, batch_normalization, convolution, stages


def build_core(
    image_shape: tuple[int, int, int], classes: int, options: ResnetOptions
) -> keras.Model:
    """Normalized float images `[batch, *image_shape]` to logits `[batch, classes]`.

    Raises:
        ValueError: `depth` is not 6n + 2, or an image side is under 4 pixels.
    """

    def block(
        x: keras.KerasTensor, filters: int, stride: int, skipped: float, name: str
    ) -> keras.KerasTensor:
        shortcut = _subsampled(x, filters, name) if stride > 1 else x
        x = _convolution(x, filters, stride, options, f"{name}_conv1")
        x = layers.ReLU(name=f"{name}_relu1")(x)
        x = _convolution(x, filters, 1, options, f"{name}_conv2")
        return layers.ReLU(name=f"{name}_relu2")(add(x, shortcut, skipped, name))

    check_side(options.name, image_shape[:2], HALVED_TWICE)
    x = inputs = keras.Input(image_shape, name="normalized")
    x = _convolution(x, options.width, 1, options, "stem")
    x = layers.ReLU(name="stem_relu")(x)
    x = stages(x, options, width=options.width, block=block)
    x = layers.GlobalAveragePooling2D(name="global_average")(x)
    logits = layers.Dense(classes, name="logits", **kernel(options))(x)
    return keras.Model(inputs, logits, name="core")


def _subsampled(x: keras.KerasTensor, filters: int, name: str) -> keras.KerasTensor:
    """Every second pixel, with channels of zeros on both sides of those that there are."""
    extra = filters - x.shape[-1]
    x = layers.AveragePooling2D(1, strides=2, padding="same", name=f"{name}_subsample")(x)
    # Channels are padded by way of a transposition: ZeroPadding2D pads the two middle axes.
    x = layers.Permute((1, 3, 2), name=f"{name}_channels_in")(x)
    x = layers.ZeroPadding2D(((0, 0), (extra // 2, extra - extra // 2)), name=f"{name}_pad")(x)
    return layers.Permute((1, 3, 2), name=f"{name}_channels_out")(x)


def _convolution(
    x: keras.KerasTensor, filters: int, stride: int, options: ResnetOptions, name: str
) -> keras.KerasTensor:
    x = convolution(x, filters, stride, options, name)
    return batch_normalization(x, options, f"{name}_norm")
