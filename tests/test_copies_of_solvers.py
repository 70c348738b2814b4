"""Copies of solvers, made layer by layer: one kernel for all of a solver, and a warning that names the way to keep ties."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_adjoint as ka

SOLVERS = {
    "LeastSquares": lambda layer: ka.LeastSquares(layer, ridge=0.1, learn_ridge=True),
    "adjoint of LeastSquares": lambda layer: ka.adjoint(ka.LeastSquares(layer, ridge=0.1)),
    "pinv": ka.pinv,
    "SparseCoding": lambda layer: ka.SparseCoding(layer, weight=0.1),
    "ista": lambda layer: ka.unroll(layer, 2, weight=0.1),
    "fista": lambda layer: ka.unroll(layer, 2, method="fista", weight=0.1),
    "primal_dual": lambda layer: ka.unroll(layer, 2, method="primal_dual", weight=0.1),
    "admm": lambda layer: ka.unroll(layer, 2, method="admm", prox="tv", weight=0.1),
    "kernels of its own for the adjoint": lambda layer: ka.unroll(layer, 2, weight=0.1, tied="forward"),
    "fixed point": lambda layer: ka.unroll(layer, weight=0.1, fixed_point=True, tolerance=0.1),
    "fixed point of admm": lambda layer: ka.unroll(layer, method="admm", weight=0.1, fixed_point=True, tolerance=0.1),
}


def network(name):
    """A model of a solver alone, without the layer that it is tied to."""
    layer, y = layers.Dense(6, name="source", use_bias=False), keras.Input((6,))
    layer.build((None, 6))
    return keras.Model(y, SOLVERS[name](layer)(y))


@pytest.mark.any_backend
@pytest.mark.parametrize("name", SOLVERS)
def test_a_copy_layer_by_layer_has_one_kernel_and_is_warned_of(name):
    model = network(name)
    with pytest.warns(UserWarning, match=r"was tied to the kernel of `source`.*clone_tied\(model\)"):
        copy = keras.models.clone_model(model)
    assert [tuple(weight.shape) for weight in copy.weights] == [tuple(weight.shape) for weight in model.weights]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        tied = ka.clone_tied(copy)
    model.set_weights(copy.get_weights())
    y = np.random.default_rng(0).random((2, 6), "float32")
    expected = ops.convert_to_numpy(model(y))
    for each in (copy, tied):
        np.testing.assert_allclose(ops.convert_to_numpy(each(y)), expected, rtol=1e-4, atol=1e-5)
