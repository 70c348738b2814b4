"""The tied autoencoder that every engine trains, and how far two trainings are apart."""

from typing import Any

import keras
import numpy as np

import keras_adjoint as ka

STEPS, BATCH = 3, 16
SHAPE = (10, 9, 2)


def autoencoder() -> keras.Model:
    """A tied autoencoder with a strided convolution and a dense layer, whose kernels 4 devices can share."""
    x = keras.Input(SHAPE)
    y = keras.layers.Conv2D(4, 3, strides=2, padding="same", activation="tanh")(x)
    model = ka.autoencoder(keras.Model(x, keras.layers.Dense(8)(keras.layers.Flatten()(y))))
    generator = np.random.default_rng(1)
    for variable in model.weights:
        variable.assign(generator.normal(size=variable.shape, scale=0.2).astype("float32"))
    return model


def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(STEPS * BATCH, *SHAPE)).astype("float32")


def compiled(model: keras.Model) -> keras.Model:
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


def train(
    model: keras.Model, first: int = 0, last: int = 1, rank: int = 0, ranks: int = 1, **options: Any
) -> list[float]:
    """The losses of the epochs from `first` to `last`, on what one of several processes gets of every batch."""
    x = images().reshape(STEPS, ranks, -1, *SHAPE)[:, rank].reshape(-1, *SHAPE)
    ran = model.fit(x, x, BATCH // ranks, initial_epoch=first, epochs=last, shuffle=False, verbose=0, **options)
    losses: list[float] = ran.history["loss"]
    return losses


def differences(found: list[np.ndarray], losses: list[float]) -> dict[str, float]:
    """How far one epoch elsewhere, with these weights and losses in the end, is from an epoch here."""
    model = autoencoder()
    start = [keras.ops.convert_to_numpy(each.value) for each in model.weights]
    expected = train(compiled(model))
    return {"losses": loss_distance(losses, expected), "weights": distance(found, values(model), start)}


def values(model: keras.Model) -> list[np.ndarray]:
    """The weights of a model and the state of its optimizer."""
    return [keras.ops.convert_to_numpy(each.value) for each in (*model.weights, *model.optimizer.variables[2:])]


def distance(found: list[np.ndarray], expected: list[np.ndarray], start: list[np.ndarray]) -> float:
    """The largest difference of a weight, relative to the farthest that training has moved one."""
    moved = max(float(np.abs(a - b).max()) for a, b in zip(expected[: len(start)], start, strict=True))
    apart = max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True))
    return apart / moved


def loss_distance(found: list[float], expected: list[float]) -> float:
    """The largest relative difference of a loss."""
    return max(abs(a - b) / abs(b) for a, b in zip(found, expected, strict=True))
