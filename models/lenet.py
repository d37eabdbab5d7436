"""LeNet-5 for images of any size from 4x4 pixels.

Source: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition",
1998, with today's ReLU and max pooling in place of scaled tanh and trained subsampling. The first
convolution pads, so that 28x28 images give the paper's 5x5x16 feature map.
"""

import keras
from keras import layers

from models.kernels import kernel
from models.options import LenetOptions


def build_core(
    image_shape: tuple[int, int, int], classes: int, options: LenetOptions
) -> keras.Model:
    """Normalized float images `[batch, *image_shape]` to logits `[batch, classes]`.

    Raises:
        ValueError: an image side is under 4 pixels.
    """
    if min(image_shape[:2]) < 4:
        raise ValueError(
            f"model lenet: expected images of at least 4x4, got {image_shape[0]}x{image_shape[1]}"
        )
    # The second convolution takes no padding in the paper; on small images it must.
    padding = "valid" if min(image_shape[:2]) >= 12 else "same"
    x = inputs = keras.Input(image_shape, name="normalized")
    x = layers.Conv2D(6, 5, padding="same", activation="relu", name="conv1", **kernel(options))(x)
    x = layers.MaxPooling2D(2, name="pool1")(x)
    x = layers.Conv2D(16, 5, padding=padding, activation="relu", name="conv2", **kernel(options))(x)
    x = layers.MaxPooling2D(2, name="pool2")(x)
    x = layers.Flatten(name="flatten")(x)
    for number, units in enumerate((120, 84), 1):
        if options.dropout:
            x = layers.Dropout(options.dropout, name=f"dropout{number}")(x)
        x = layers.Dense(units, activation="relu", name=f"dense{number}", **kernel(options))(x)
    logits = layers.Dense(classes, name="logits", **kernel(options))(x)
    return keras.Model(inputs, logits, name="core")
