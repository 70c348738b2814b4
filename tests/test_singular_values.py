"""Singular values of large operators: right, or refused."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_adjoint as ka
from keras_adjoint.operators import scipy_bridge

pytestmark = pytest.mark.any_backend


def dense_with(values, monkeypatch):
    """The operator of a layer with these singular values, whose matrix counts as large."""
    monkeypatch.setattr(scipy_bridge, "DENSE_SIDE", 4)
    size = len(values)
    generator = np.random.default_rng(0)
    left, right = (np.linalg.qr(generator.standard_normal((size, size)))[0] for _ in range(2))
    layer = layers.Dense(size, use_bias=False)
    layer.build((None, size))
    layer.kernel.assign((left * values) @ right)
    return ka.operator(layer)


def test_zero_has_the_singular_value_zero(monkeypatch):
    operator = dense_with(np.zeros(8), monkeypatch)
    left, values, right = operator.singular_values(3, vectors=True)
    np.testing.assert_array_equal(values, np.zeros(3))
    for vectors in (left, right):
        np.testing.assert_allclose(vectors @ vectors.T, np.eye(3), atol=1e-6)
    assert float(operator.bound()) == float(operator.norm()) == 0


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_what_is_no_number_has_no_singular_values(monkeypatch, number):
    operator = dense_with(np.ones(8), monkeypatch)
    operator.source.kernel.assign(np.full((8, 8), number))
    with pytest.raises(ka.KerasAdjointError, match="NaN or infinity"):
        operator.singular_values(3)


def test_values_that_are_lost_in_rounding_are_refused(monkeypatch):
    values = np.array([1.0, 0.5, 0.25, *np.full(27, 1e-9)])
    operator = dense_with(values, monkeypatch)
    np.testing.assert_allclose(operator.singular_values(3), values[:3], rtol=1e-5)
    with pytest.raises(ka.KerasAdjointError, match="Of the 8 largest singular values, [3-7] can be told from rounding"):
        operator.singular_values(8)


def test_small_values_are_right_or_refused(monkeypatch):
    values = 2.0 ** -np.arange(24)
    operator = dense_with(values, monkeypatch)
    returned = 0
    for count in range(1, 24):
        try:
            found = operator.singular_values(count)
        except ka.KerasAdjointError:
            continue
        returned += 1
        np.testing.assert_allclose(found, values[:count], rtol=2e-2)
    assert returned >= 8


def test_condition_of_a_large_operator_is_refused_before_its_matrix_is_made():
    conv = layers.Conv2D(8, 3, padding="same")
    conv.build((None, 256, 256, 8))
    operator = ka.operator(conv)
    for ask in (operator.condition, lambda: operator.singular_values(min(operator.shape))):
        with pytest.raises(ka.KerasAdjointError, match="Take a smaller `size`"):
            ask()
    with pytest.raises(ka.KerasAdjointError, match="do not converge"):
        operator.singular_values(which="smallest")


def test_a_singular_operator_has_an_infinite_condition():
    layer = layers.Dense(3)
    layer.build((None, 3))
    layer.kernel.assign(np.ones((3, 3)))
    assert ka.operator(layer).condition() == float("inf")
    layer.kernel.assign(np.diag([1.0, 2.0, 8.0]))
    assert ka.operator(layer).condition() == pytest.approx(8)
    keras.backend.clear_session()
    assert (0 * ka.operator(layer)).condition() == float("inf")
    assert float(ops.convert_to_numpy((0 * ka.operator(layer)).norm())) == 0
