"""LeNet-5 for images of any size from 4x4 pixels.

Source: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition",
1998, with today's ReLU and max pooling in place of scaled tanh and trained subsampling, and with
every map of the second convolution reading all six of the first. On the paper's 32x32 pixels no
convolution pads: 6 maps of 28x28, 16 of 10x10, pooled to 5x5, then 120, 84 and the classes; 61,706
parameters for one channel and ten classes, 62,006 for three channels.

Images with a side under 32, too small for 16 maps of 5x5, are padded by the first convolution, as
MNIST was for the paper: 28x28 then gives the same maps. Those with a side under 12 are padded by
the second one, too.
"""

import keras
from keras import layers

from models.checks import HALVED_TWICE, check_side
from models.kernels import kernel
from models.options import LenetOptions

PAPERS_SIDE = 32
"""Of the paper's images, the smallest from which two convolutions without padding leave 5x5."""


def build_core(
    image_shape: tuple[int, int, int], classes: int, options: LenetOptions
) -> keras.Model:
    """Normalized float images `[batch, *image_shape]` to logits `[batch, classes]`.

    Raises:
        ValueError: an image side is under 4 pixels.
    """
    check_side(options.name, image_shape[:2], HALVED_TWICE)
    x = inputs = keras.Input(image_shape, name="normalized")
    for number, filters, unpadded in ((1, 6, PAPERS_SIDE), (2, 16, 12)):
        x = layers.Conv2D(
            filters,
            5,
            padding="valid" if min(image_shape[:2]) >= unpadded else "same",
            activation="relu",
            name=f"conv{number}",
            **kernel(options),
        )(x)
        x = layers.MaxPooling2D(2, name=f"pool{number}")(x)
    x = layers.Flatten(name="flatten")(x)
    for number, units in enumerate((120, 84), 1):
        if options.dropout:
            x = layers.Dropout(options.dropout, name=f"dropout{number}")(x)
        x = layers.Dense(units, activation="relu", name=f"dense{number}", **kernel(options))(x)
    logits = layers.Dense(classes, name="logits", **kernel(options))(x)
    return keras.Model(inputs, logits, name="core")
