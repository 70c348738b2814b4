"""Layers that call functions of the user's own are copied with these functions, although no file could hold them."""

import keras
import numpy as np
import pytest
from encoders import values

import keras_adjoint as ka

L = keras.layers
X = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
HALF = 0.5


def halved(x):
    return HALF * keras.ops.tanh(x)


def in_a_loop():
    return keras.Sequential([L.Lambda(lambda x, k=k: HALF * k * x, name=f"times_{k}") for k in (2, 3)])


MAKERS = {
    "lambda": lambda: L.Lambda(lambda x: HALF * keras.ops.tanh(x)),
    "function": lambda: L.Lambda(halved),
    "in a wrapper": lambda: L.TimeDistributed(L.Lambda(lambda x: HALF * keras.ops.tanh(x))),
    "in a nested model": in_a_loop,
    "activation": lambda: L.Dense(3, activation=lambda x: HALF * x),
    "activation of a name": lambda: L.Dense(3, activation=halved),
    "initializer": lambda: L.Dense(3, kernel_initializer=lambda shape, dtype=None: HALF * keras.ops.ones(shape, dtype)),
}


@pytest.mark.any_backend
@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
@pytest.mark.parametrize("copied", [ka.clone_tied, ka.untie])
@pytest.mark.parametrize("name", MAKERS)
def test_a_model_is_copied_with_the_functions_in_it(name, copied):
    x, dense = keras.Input((5, 4)), L.Dense(3)
    features = MAKERS[name]()(dense(x))
    model = keras.Model(x, ka.adjoint(dense)(features))
    configs = keras.tree.map_structure(str, model.get_config())
    copy = copied(model)
    np.testing.assert_allclose(values(copy(X)), values(model(X)), rtol=1e-5, atol=1e-6)
    assert keras.tree.map_structure(str, model.get_config()) == configs


@pytest.mark.any_backend
def test_an_adjoint_copies_a_source_with_the_functions_in_it():
    source = L.Lambda(lambda x: HALF * x, output_shape=lambda shape: shape)
    source(keras.Input((4,)))
    y = np.ones((2, 4), "float32")
    np.testing.assert_allclose(values(ka.adjoint(source, tied=False)(y)), HALF * y)
    adjoint = ka.adjoint(source)
    adjoint(y)
    np.testing.assert_allclose(values(ka.clone_tied(adjoint)(y)), HALF * y)
