"""A plain convolutional network whose every dimension is an option."""

import keras
from keras import layers

from models.haar import haar
from models.kernels import kernel, regularizer
from models.options import CnnOptions


def build_core(image_shape: tuple[int, int, int], classes: int, options: CnnOptions) -> keras.Model:
    """Normalized float images `[batch, *image_shape]` to logits `[batch, classes]`.

    Raises:
        ValueError: strides and pooling leave no pixel of the image, or `convolutions` and `filters`
            give different numbers of stages; or the stem halves an odd side.
    """
    convolutions = _convolutions(options)
    _check_size(image_shape, options)
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


def _convolutions(options: CnnOptions) -> list[int]:
    """How many convolutions each stage has."""
    stages = len(options.filters)
    if isinstance(options.convolutions, int):
        return [options.convolutions] * stages
    if len(options.convolutions) != stages:
        raise ValueError(
            f"model cnn: expected convolutions for each of the {stages} stages that filters gives, "
            f"got {options.convolutions}"
        )
    return options.convolutions


def _check_size(image_shape: tuple[int, int, int], options: CnnOptions) -> None:
    height, width, _ = image_shape
    side = min(height, width)
    if options.stem == "haar":
        if height % 2 or width % 2:
            raise ValueError(
                f"model cnn: stem haar halves the sides: expected even ones, got {height}x{width}; "
                "set --prepare.image_size, or leave the stem out"
            )
        side //= 2
    for stage in range(1, len(options.filters) + 1):
        side = -(-side // options.stride)
        if options.pooling != "none":
            side //= options.pool_size
        if side < 1:
            raise ValueError(
                f"model cnn: images of {height}x{width} have no pixel left after stage {stage} of "
                f"{len(options.filters)}; use fewer filters (stages), a smaller stride or "
                "pool_size, or larger images"
            )
