"""Gradients of least-squares solutions are those of the pseudo-inverse where compilers trace, and at any tolerance."""

import autodiff
import keras
import numpy as np
import pytest
from helpers import compiled
from keras import ops

import keras_adjoint as ka

SIZES = {"wide": (8, 5), "tall": (5, 8)}


def problem(shape):
    """(an operator, its pseudo-inverse, y, and a cotangent of x that is no gradient of the operator's)."""
    inputs, outputs = SIZES[shape]
    layer = keras.layers.Dense(outputs, use_bias=False)
    layer.build((None, inputs))
    kernel = ops.convert_to_numpy(layer.kernel).astype("float64")
    generator = np.random.default_rng(0)
    y, cotangent = (generator.normal(size=(3, size)).astype("float32") for size in (outputs, inputs))
    return ka.operator(layer), np.linalg.pinv(kernel), y, cotangent


def gradient_by(y, function):
    return ops.convert_to_numpy(function(ops.convert_to_tensor(y)))


@pytest.mark.parametrize("ridge", [0, 0.0, np.float32(0), np.array(0.0)], ids=["integer", "float", "scalar", "array"])
@pytest.mark.parametrize("shape", SIZES)
def test_a_ridge_of_zero_is_none_where_compilers_trace(shape, ridge):
    operator, inverse, y, cotangent = problem(shape)
    given = ops.convert_to_tensor(cotangent)

    def gradient(y):
        total = autodiff.gradients_of(lambda y: ops.sum(ka.lstsq(operator, y, ridge=ridge).x * given), traced=True)
        return total([y])[0]

    np.testing.assert_allclose(gradient_by(y, compiled(gradient)), cotangent @ inverse.T, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", ["cgls", "lsmr"])
@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.filterwarnings("ignore:.*tolerance")
def test_a_tolerance_that_cannot_be_reached_leaves_the_gradient_accurate(shape, method):
    """What rounding leaves of the equations for the gradient has no solution, which steps may not look for."""
    operator, inverse, y, cotangent = problem(shape)
    given = ops.convert_to_tensor(cotangent)

    def product(y):
        return ops.sum(ka.lstsq(operator, y, tolerance=1e-9, method=method).x * given)

    found = autodiff.gradients_of(product)([ops.convert_to_tensor(y)])[0]
    np.testing.assert_allclose(ops.convert_to_numpy(found), cotangent @ inverse.T, rtol=1e-3, atol=1e-4)
