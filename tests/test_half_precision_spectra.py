"""Spectra of layers and models that compute in half precision are those of their kernels in single precision."""

import keras
import numpy as np
import pytest
from helpers import in_turn
from keras import layers as L
from keras import ops
from untied import numbers, random_input

import keras_adjoint as ka
from keras_adjoint.keras_internals import computing_in


def adjoint_of(layer):
    layer.build((None, 9, 2))
    return ka.adjoint(layer)


def network(dtype):
    x = keras.Input((9, 2))
    y = L.Conv1D(4, 3, strides=2, activation="relu", dtype=dtype)(x)
    z = ka.Lipschitz(L.Conv1D(4, 2, padding="same", dtype=dtype), 0.5)(y)
    inner = keras.Sequential([keras.Input((4, 4)), L.Dense(4, dtype=dtype), L.Dense(4, dtype=dtype)])
    return keras.Model(x, L.Add(dtype=dtype)([inner(z), 2 * y]))


# (what makes a layer or model of a dtype policy, the shape that it takes)
CASES = {
    "conv": (lambda dtype: L.Conv1D(4, 3, strides=2, activation="relu", dtype=dtype), (9, 2)),
    "wrapped": (lambda dtype: L.TimeDistributed(ka.Regularized(L.Dense(4, dtype=dtype)), dtype=dtype), (3, 5)),
    "model": (network, (9, 2)),
    "adjoint": (lambda dtype: adjoint_of(L.Conv1D(4, 3, strides=2, dtype=dtype)), (4, 4)),
    "with a constant": (lambda dtype: ka.Lipschitz(L.Dense(4, dtype=dtype), 0.3), (5,)),
}


def operator_of(name, dtype):
    make, shape = CASES[name]
    layer = make(dtype)
    if not layer.built:
        layer.build((None, *shape))
    generator = np.random.default_rng(0)
    for weight in layer.weights:
        weight.assign(generator.standard_normal(weight.shape))
    return layer, ka.operator(layer, size=shape, linear_part=name != "adjoint")


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize(*("name", in_turn(list(CASES))))
def test_singular_values_are_those_of_the_kernel_in_single_precision(name, dtype):
    layer, rounded = operator_of(name, dtype)
    expected = np.linalg.svd(operator_of(name, "float32")[1].to_matrix().astype("float64"), compute_uv=False)
    x = random_input(layer.input.shape[1:] if name == "model" else CASES[name][1])
    before = numbers(ops.cast(layer(x), "float32"))
    for operator in (rounded, rounded.T, 2.0 * rounded / 2.0, rounded + 0.0 * rounded):
        np.testing.assert_allclose(operator.singular_values(2), expected[:2], rtol=1e-5)
    np.testing.assert_allclose(np.sqrt(rounded.gram().singular_values(2)), expected[:2], rtol=1e-5)
    assert float(numbers(rounded.bound())) >= expected[0]
    np.testing.assert_array_equal(numbers(ops.cast(layer(x), "float32")), before)  # which computes as it did
    weight = layer.weights[0]
    weight.assign(2 * weight)  # the same variables, now and later
    assert not np.allclose(rounded.singular_values(1), expected[:1], rtol=1e-2) or name == "with a constant"


@pytest.mark.any_backend
def test_norm_and_derivative_in_half_precision():
    layer, operator = operator_of("conv", "mixed_bfloat16")
    same, single = operator_of("conv", "float32")
    assert float(numbers(operator.norm())) == pytest.approx(float(numbers(single.norm())), rel=1e-6)
    for each, kernel in ((operator, layer.kernel), (single, same.kernel)):
        kernel.value.grad = None
        each.norm().backward()
    np.testing.assert_allclose(layer.kernel.value.grad.numpy(), same.kernel.value.grad.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.any_backend
def test_layers_that_are_held_in_lists_stay_as_they_are():
    class Chain(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.chain = [L.Dense(2, use_bias=False, dtype="mixed_bfloat16")]

        def build(self, shape):
            self.chain[0].build(shape)

        def call(self, x):
            return self.chain[0](x)

    layer = Chain(dtype="mixed_bfloat16")
    layer(np.ones((1, 3), "float32"))
    assert computing_in(layer, "float32") is None
    operator = ka.operator(layer)
    assert operator.widened() is operator
    expected = np.linalg.norm(numbers(layer.chain[0].kernel), 2)
    assert operator.singular_values(1)[0] == pytest.approx(expected, rel=1e-2)
