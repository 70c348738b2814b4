"""Backward passes through nested models whose layers have the same names."""

import keras
import numpy as np
import pytest
from encoders import values

import keras_adjoint as ka

L = keras.layers
X = np.random.default_rng(0).normal(size=(3, 6)).astype("float32")


def tripled():
    x = keras.Input((6,), name="x")
    adjoint = ka.adjoint(keras.Model(x, [x, x, x]))
    return lambda y: adjoint([y, y, y])


def mapped(*layers):
    x = keras.Input((6,), name="x")
    y = x
    for layer in layers:
        y = layer(y)
    return ka.adjoint(keras.Model(x, y))


PARTS = {
    "sums": tripled,
    "dense": lambda: mapped(L.Dense(6, use_bias=False, name="dense")),
    "dense with bias": lambda: mapped(L.Dense(6, bias_initializer="ones", name="dense")),
    "reshape": lambda: mapped(L.Reshape((2, 3), name="there"), L.Reshape((6,), name="back")),
    "lambda": lambda: mapped(L.Lambda(lambda x: 2 * keras.ops.flip(x, 1), name="flip")),
    "pool": lambda: mapped(L.Reshape((6, 1)), L.AveragePooling1D(2, name="pool"), L.UpSampling1D(2), L.Flatten()),
}


@pytest.mark.any_backend
@pytest.mark.parametrize("name", PARTS)
def test_models_of_equal_names_have_adjoints_of_adjoints(name, tmp_path):
    x = y = keras.Input((6,), name="x")
    for part in [PARTS[name](), PARTS[name](), PARTS[name]()]:
        y = part(y)
    model = keras.Model(x, y)
    forward = matrix(model)
    adjoint = ka.adjoint(model)
    again = wrapped(adjoint)
    for found, expected in [
        (adjoint, forward.T),
        (ka.adjoint(again), forward),
        (ka.adjoint(wrapped(ka.adjoint(again))), forward.T),
    ]:
        np.testing.assert_allclose(matrix(found), expected, rtol=1e-4, atol=1e-4)
        layers = [layer.name for layer in found.layers]
        assert len(set(layers)) == len(layers)


def wrapped(model):
    """A model of which nothing is known but its graph."""
    x = keras.Input((6,), name="x")
    return keras.Model(x, model(x))


def matrix(model):
    """The matrix that a model multiplies rows by."""
    eye = np.eye(6, dtype="float32")
    return values(model(eye)) - values(model(0 * eye))
