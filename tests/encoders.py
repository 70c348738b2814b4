"""Small encoders with random weights, and what comes back through their mirrors."""

import keras
import numpy as np
from keras import ops
from layer_list import randomize

import keras_adjoint as ka

X = np.random.default_rng(0).normal(size=(2, 13, 11, 3)).astype("float32")
EXACT = {"norm": "adjoint", "bias": "none", "preprocessing": "adjoint", "activation": "gradient", "pooling": "switches"}


def values(tensor):
    return ops.convert_to_numpy(tensor)


def chain(*layers, shape=(13, 11, 3), name="encoder"):
    """A Functional model of layers one after the other, with random weights."""
    x = y = keras.Input(shape)
    for layer in layers:
        y = layer(y)
    model = keras.Model(x, y, name=name)
    for layer in model.layers:
        if layer.weights:
            randomize(layer)
    return model


def back(encoder, code, **policies):
    return values(ka.mirror(encoder, **policies)(code))


def assert_close(found, expected):
    scale = np.abs(expected).max() or 1.0
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * scale)


def features(*shape):
    return np.random.default_rng(1).normal(size=(2, *shape)).astype("float32")


@keras.saving.register_keras_serializable(package="test_mirror")
class Cube(keras.layers.Layer):
    """A layer without a rule."""

    def call(self, x):
        return x**3
