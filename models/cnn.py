"""A plain convolutional network whose every dimension is an option."""

import keras
from keras import layers

from models import checks
from models.haar import haar
from models.kernels import kernel, regularizer
from models.options import CnnOptions


def build_core(image_shape: tuple[int, int, int], classes: int, options: CnnOptions) -> keras.Model:
    """Normalized float images `[batch, *image_shape]` to logits `[batch, classes]`.

    Raises:
        ValueError: strides and pooling leave no pixel of the image, or `convolutions` and `filters`
            give different numbers of stages; or the stem halves an odd side.
    """
    convolutions = checks.convolutions(options)
    checks.check_cnn_size(image_shape[:2], options)
    x = inputs = keras.Input(image_shape, name="normalized")
    if options.stem == "haar":
        x = haar("haar")(x)
    for stage, filters in enumerate(options.filters, 1):
        for block in range(1, convolutions[stage - 1] + 1):
            name = f"stage{stage}_conv{block}"
            x = layers.Conv2D(
                filters,
                options.kernel_size,
                strides=options.stride if block == 1 else 1,
                padding="same",
                use_bias=not options.batch_normalization,
                name=name,
                **kernel(options),
            )(x)
            if options.batch_normalization:
                x = layers.BatchNormalization(
                    momentum=options.batch_normalization_momentum, name=f"{name}_norm"
                )(x)
            x = layers.ReLU(name=f"{name}_relu")(x)
        if options.pooling == "max":
            x = layers.MaxPooling2D(options.pool_size, name=f"stage{stage}_pool")(x)
        elif options.pooling == "average":
            x = layers.AveragePooling2D(options.pool_size, name=f"stage{stage}_pool")(x)
        if options.dropout:
            dropout = layers.SpatialDropout2D if options.spatial_dropout else layers.Dropout
            x = dropout(options.dropout, name=f"stage{stage}_dropout")(x)
    if options.head == "flatten":
        x = layers.Flatten(name="flatten")(x)
    else:
        x = layers.GlobalAveragePooling2D(name="global_average")(x)
    for number, units in enumerate(options.dense_units, 1):
        x = layers.Dense(
            units,
            activation="relu",
            name=f"dense{number}",
            **kernel(options),
        )(x)
        if options.dropout:
            x = layers.Dropout(options.dropout, name=f"dense{number}_dropout")(x)
    logits = layers.Dense(classes, kernel_regularizer=regularizer(options), name="logits")(x)
    return keras.Model(inputs, logits, name="core")
