"""Complex numbers are refused between the calls of a model, also by gradients, and followed inside of one layer."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_adjoint as ka

pytestmark = pytest.mark.any_backend

L = keras.layers
GRADIENT = {"activation": "gradient", "gates": "gradient", "norm": "adjoint", "pooling": "switches", "bias": "none"}


def complex_inside(x):
    return ops.imag(ops.multiply(ops.cast(x, "complex64"), np.complex64(2 - 3j)))


WITH_COMPLEX_TENSORS = {
    "real": lambda x: ops.real(ops.cast(x, "complex64")),
    "absolute": lambda x: ops.abs(ops.cast(x, "complex64")),
    "square": lambda x: ops.imag(ops.square(ops.cast(x, "complex64"))),
    "given": lambda x: ops.cast(x, "complex64"),
}
BACKWARD = {
    "adjoint": ka.adjoint,
    "linear part": lambda model: ka.adjoint(model, linear_part=True),
    "mirror": ka.mirror,
    "gradient": lambda model: ka.autoencoder(model, **GRADIENT),
}


@pytest.mark.parametrize("outputs_of", WITH_COMPLEX_TENSORS.values(), ids=WITH_COMPLEX_TENSORS)
@pytest.mark.parametrize("backward", BACKWARD.values(), ids=BACKWARD)
def test_complex_tensors_are_refused_and_have_no_gradient_of_zeros(backward, outputs_of):
    x = keras.Input((4,))
    model = keras.Model(x, outputs_of(L.Dense(3)(x)), name="net")
    with pytest.raises(
        ka.NoRuleError, match=r"`net/cast\w*` takes or gives complex numbers.*Lambda.*Received: Cast, complex64"
    ):
        backward(model)


def test_complex_numbers_inside_of_a_layer_are_its_own_affair():
    x = keras.Input((4,))
    model = keras.Model(x, L.Lambda(complex_inside)(x))
    adjoint, rows = ka.adjoint(model), np.eye(4, dtype="float32")
    np.testing.assert_allclose(ops.convert_to_numpy(adjoint(rows)), -3.0 * rows, rtol=1e-6)
    gradient = ka.autoencoder(model, **GRADIENT)
    np.testing.assert_allclose(ops.convert_to_numpy(gradient(rows)), 9.0 * rows, rtol=1e-6)
