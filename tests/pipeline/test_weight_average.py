"""The moving average of weights."""

import keras
import numpy as np
import pytest

from pipeline.training.callbacks import Best, WeightAverage


def small_model() -> keras.Model:
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(2), keras.layers.BatchNormalization()]
    )
    model.compile(keras.optimizers.SGD(1.0), "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def test_the_average_follows_its_equation_for_every_weight() -> None:
    model, generator = small_model(), np.random.default_rng(0)
    callback = WeightAverage(model, 0.5)
    callback.set_model(model)
    expected = [np.array(weight) for weight in model.get_weights()]
    assert len(expected) == 6, "kernel, bias, gamma, beta, moving mean and variance"
    for step in range(1, 30):
        weights = [generator.normal(size=weight.shape) for weight in expected]
        model.set_weights(weights)
        model.optimizer.iterations.assign(step)
        callback.on_train_batch_end(0)
        keep = min(0.5, (1 + step) / (10 + step))
        expected = [
            keep * average + (1 - keep) * weight
            for average, weight in zip(expected, weights, strict=True)
        ]
        for found, average in zip(callback.model_of_averages.weights, expected, strict=True):
            np.testing.assert_allclose(found.numpy(), average, rtol=1e-4, atol=1e-5)
    for weight, kept in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(weight, kept, rtol=1e-6)


def test_the_best_epoch_keeps_the_averages() -> None:
    model = small_model()
    average = WeightAverage(model, 0.9)
    best = Best("val_loss", "min", None)
    best.judged = average.model_of_averages
    average.model_of_averages.set_weights(
        [np.full_like(weight, 7) for weight in model.get_weights()]
    )
    best.on_epoch_end(0, {"val_loss": 1.0})
    average.model_of_averages.set_weights(model.get_weights())
    best.take(model)
    assert all((weight == 7).all() for weight in model.get_weights())


def test_the_average_comes_back() -> None:
    model = small_model()
    one, other = WeightAverage(model, 0.9), WeightAverage(model, 0.9)
    one.model_of_averages.set_weights([weight + 1 for weight in model.get_weights()])
    other.restore(one.state(), one.arrays())
    for found, expected in zip(
        other.model_of_averages.get_weights(), one.model_of_averages.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("decay", [0.9, 0.9999])
def test_a_short_training_is_not_held_back_by_its_beginning(decay: float) -> None:
    model = small_model()
    callback = WeightAverage(model, decay)
    callback.set_model(model)
    model.set_weights([weight + 1 for weight in model.get_weights()])
    for step in range(1, 41):
        model.optimizer.iterations.assign(step)
        callback.on_train_batch_end(0)
    for found, weight in zip(
        callback.model_of_averages.get_weights(), model.get_weights(), strict=True
    ):
        np.testing.assert_allclose(found, weight, atol=1e-3)
