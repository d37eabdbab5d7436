"""Wide residual networks: few, wide blocks, depth 6n + 4.

Source: Zagoruyko and Komodakis, "Wide Residual Networks", 2016: batch normalization and ReLU come
before the convolutions, dropout between them (section 2.4), and a 1x1 convolution is the shortcut
where the number of filters changes. WRN-28-10 there is `depth: 28`, `widening: 10`.
"""

import keras
from keras import layers

from models.checks import HALVED_TWICE, check_side
from models.kernels import kernel
from models.options import WideResnetOptions
from models.residual import add, batch_normalization, convolution, stages


def build_core(
    image_shape: tuple[int, int, int], classes: int, options: WideResnetOptions
) -> keras.Model:
    """Normalized float images `[batch, *image_shape]` to logits `[batch, classes]`.

    Raises:
        ValueError: `depth` is not 6n + 4, or an image side is under 4 pixels.
    """

    def activated(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        return layers.ReLU(name=f"{name}_relu")(batch_normalization(x, options, f"{name}_norm"))

    def block(
        x: keras.KerasTensor, filters: int, stride: int, skipped: float, name: str
    ) -> keras.KerasTensor:
        shortcut = x
        x = activated(x, f"{name}_in")
        if stride > 1 or x.shape[-1] != filters:
            shortcut = convolution(x, filters, stride, options, f"{name}_shortcut", side=1)
        x = convolution(x, filters, stride, options, f"{name}_conv1")
        x = activated(x, f"{name}_conv1")
        if options.dropout:
            x = layers.Dropout(options.dropout, name=f"{name}_dropout")(x)
        x = convolution(x, filters, 1, options, f"{name}_conv2")
        return add(x, shortcut, skipped, name)

    check_side(options.name, image_shape[:2], HALVED_TWICE)
    x = inputs = keras.Input(image_shape, name="normalized")
    x = convolution(x, options.width, 1, options, "stem")
    x = stages(x, options, width=options.width * options.widening, block=block)
    x = activated(x, "last")
    x = layers.GlobalAveragePooling2D(name="global_average")(x)
    logits = layers.Dense(classes, name="logits", **kernel(options))(x)
    return keras.Model(inputs, logits, name="core")
