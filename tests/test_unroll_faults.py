"""`unroll` and bad input: samples that are not finite, kernels of any scale, and what is no starting point."""

from itertools import product

import keras
import numpy as np
import pytest
from autodiff import kernel_gradients
from helpers import in_turn
from keras import layers, ops

import keras_adjoint as ka
from keras_adjoint.ops.backend import current
from keras_adjoint.solvers import arguments
from keras_adjoint.solvers.operator_layers import OperatorLayer
from keras_adjoint.solvers.proximal import PROXIMALS

BACKEND = keras.backend.backend()
METHODS = ("ista", "fista", "primal_dual", "admm")
TURNS = ("jax", "tensorflow", "torch", "torch")  # those that compile every network have the cheapest
SCALED = [("ista", "soft"), ("fista", "soft"), ("primal_dual", "tv"), ("admm", "tv")]
EXTREMES = {  # of what float64 and float32 have squares of
    "torch": [("float64", 1e-150), ("float64", 1e150), ("float32", 1e-17), ("float32", 1e17)],
    "tensorflow": [("float64", 1e150), ("float32", 1e-17)],
    "jax": [("float32", 1e17)],
}


def numpy(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


def strided(dtype="float32", scale=1.0):
    """A strided convolution, and some of what it gives."""
    conv = layers.Conv1D(3, 3, strides=2, padding="same", use_bias=False, dtype=dtype)
    conv.build((None, 8, 2))
    generator = np.random.default_rng(0)
    conv.kernel.assign(scale * generator.normal(size=conv.kernel.shape))
    return conv, generator.normal(size=(3, 4, 3)).astype(dtype)


CASES = [("ista", "box"), ("fista", "soft"), ("primal_dual", "tv"), ("admm", "nonnegative")]


@pytest.mark.parametrize(
    ("method", "prox"), in_turn(CASES, name="-".join, backends=lambda case: TURNS, always=["torch"])
)
def test_samples_that_are_not_finite_are_named_and_leave_values_and_gradients_of_others_alone(method, prox):
    layer, y = strided()
    network = ka.unroll(layer, 2, method=method, prox=prox, weight=0.1 if PROXIMALS[prox].is_scaled else None)
    expected, bad = numpy(network(y)), y.copy()
    bad[1, 0, 0], bad[2, 1, 1] = np.inf, np.nan
    with pytest.warns(UserWarning, match="y is not finite in sample 1, 2,"):
        found = numpy(network(bad))
    np.testing.assert_allclose(found[0], expected[0], atol=1e-6)
    assert np.isnan(found[1:]).all()

    def of_first(given):
        (gradient,) = kernel_gradients(lambda: ops.sum(ops.square(network(given)[:1])), [layer.kernel])
        return gradient

    np.testing.assert_allclose(of_first(bad), of_first(y), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "prox"),
    [
        *in_turn(SCALED, name="-".join, backends=lambda case: TURNS, always=["torch"]),
        *(
            pytest.param(*case, marks=pytest.mark.exhaustive)
            for case in product(METHODS, ("soft", "tv"))
            if case not in SCALED
        ),
    ],
)
def test_the_scale_of_the_kernel_makes_no_difference_to_values_and_gradients(method, prox):
    def of_scale(dtype, scale):
        layer, y = strided(dtype, scale)
        network = ka.unroll(layer, 2, method=method, prox=prox, weight=0.05 * scale)
        unit = ops.convert_to_tensor(scale, dtype)
        (gradient,) = kernel_gradients(lambda: ops.sum(network(y) * unit), [layer.kernel])
        return scale * numpy(network(y)), scale * gradient

    expected = of_scale("float64", 1.0)
    for dtype, scale in EXTREMES[BACKEND]:
        for one, other in zip(of_scale(dtype, scale), expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max())


def test_kernels_whose_steps_are_no_numbers_are_named():
    layer, y = strided(scale=1e25)
    with pytest.warns(UserWarning, match=f"Divide the kernel of `{layer.name}` by a number. Received: L="):
        ka.unroll(layer, 1, prox="box")(y)


@pytest.mark.any_backend
def test_start_that_does_not_take_y_is_refused():
    layer, _ = strided()
    wrong = layers.Dense(2)
    wrong.build((None, 4, 7))
    with pytest.raises(ValueError, match=r"`start` takes what the layer gives: \(4, 3\). Received: start=.*value 7"):
        ka.unroll(layer, 2, prox="box", start=wrong)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "options", [{"ridge": np.complex64(1j)}, {"ridge": np.array(1j)}, {"weights": np.array([1j] * 3)}]
)
def test_complex_options_are_refused(options):
    layer, y = strided()
    with pytest.raises(ValueError, match=f"`{next(iter(options))}` .*Received: .*j"):
        ka.lstsq(ka.operator(layer, size=(8, 2)), y, **options)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("prox", ["soft", "tv"])
def test_no_samples_give_none(method, prox):
    rescaling, dense = layers.Rescaling(1.0), layers.Dense(7, use_bias=False)
    layer, shape = (rescaling, (4, 4, 1)) if prox == "tv" else (dense, (5,))
    outputs = layer(keras.Input(shape)).shape[1:]
    network = ka.unroll(layer, 2, method=method, prox=prox, weight=0.1)
    assert network(np.zeros((0, *outputs), "float32")).shape == (0, *shape)


@pytest.mark.only_on("jax")
def test_tolerance_of_float64_is_that_of_what_the_backend_computes_in():
    import jax

    assert arguments.tolerance_for(None, "float64") == 1e-10
    with jax.enable_x64(False):
        assert arguments.tolerance_for(None, "float64") == 1e-5
        assert current().held_dtype("float64") == "float32"


@pytest.mark.only_on("torch")
def test_forward_derivatives_of_solutions_are_refused_and_those_by_two_in_reverse_are_right():
    import torch

    layer, y = strided("float64")
    A = ka.operator(layer, size=(8, 2))

    def solve(y):
        return ka.lstsq(A, y, ridge=0.1).x

    y = torch.asarray(y)
    with pytest.raises(ka.KerasAdjointError, match="in reverse alone.*torch.func.jacrev"):
        torch.func.jvp(solve, (y,), (y,))
    found = torch.autograd.functional.jvp(solve, y, y)
    np.testing.assert_allclose(numpy(found[1]), numpy(found[0]), rtol=1e-6)  # the solution is linear in y


@pytest.mark.any_backend
def test_a_part_that_there_is_not_is_refused_in_a_call_as_in_a_model():
    layer = OperatorLayer(strided()[0])
    for x in (np.ones((1, 8, 2), "float32"), keras.Input((8, 2))):
        with pytest.raises(ValueError, match="`part` must be one of .*Received: part='backward'"):
            layer(x, part="backward")
