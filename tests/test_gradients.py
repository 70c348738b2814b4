"""Derivatives of the adjoint: with respect to its input they are the forward, with respect to the kernel the forward's."""

import numpy as np
import pytest
from autodiff import compiled, gradients, kernel_gradients
from extent import EXHAUSTIVE
from helpers import BACKEND, build_pair, operators
from keras import ops
from layer_list import HALF, KERAS, LAYERS, ONE_OF_EACH_FAMILY, for_each

WITH_KERNEL = [case for case in LAYERS if case.trains and case.settings.get("scale", True) is not False]
# PyTorch takes most of a second to compile a layer: those whose derivatives are ours are enough for `make test`.
ALL_COMPILED = EXHAUSTIVE or BACKEND != "torch"
TO_COMPILE = [case for case in ONE_OF_EACH_FAMILY if ALL_COMPILED or case in WITH_KERNEL]


def random_like(shape, seed, dtype):
    return ops.convert_to_tensor(np.random.default_rng(seed).normal(size=shape), dtype=dtype)


def probes(case, layer):
    """Random (x, y) for one example."""
    y_shape = (1, *layer.output.shape[1:])
    return random_like((1, *case.input_shape), 1, layer.compute_dtype), random_like(y_shape, 2, layer.compute_dtype)


def tolerance(case, layer):
    single = layer.compute_dtype == "float32" or BACKEND in case.single_on
    return {"rtol": 2e-4, "atol": 2e-4} if single else {"rtol": 1e-9, "atol": 1e-9}


@for_each(LAYERS, quick=HALF)
def test_gradient_with_respect_to_the_input_is_the_forward(case):
    """∂⟨x, Aᵀ y⟩ / ∂y = A x, because ⟨x, Aᵀ y⟩ = ⟨A x, y⟩ is linear in y."""
    layer, adjoint = build_pair(case)
    forward, backward = operators(case, layer, adjoint)
    x, y = probes(case, layer)
    (gradient,) = gradients(lambda y: ops.sum(x * backward(y)), [y])
    np.testing.assert_allclose(gradient, ops.convert_to_numpy(forward(x)), **tolerance(case, layer))


@for_each(WITH_KERNEL, quick=HALF)
def test_gradient_with_respect_to_the_kernels_is_that_of_the_forward(case):
    """⟨x, Aᵀ y⟩ and ⟨A x, y⟩ are the same function of the kernels."""
    layer, adjoint = build_pair(case)
    forward, backward = operators(case, layer, adjoint)
    x, y = probes(case, layer)
    bias = getattr(layer, "bias", None), getattr(layer, "beta", None)
    kernels = [weight for weight in layer.trainable_weights if all(weight is not other for other in bias)]
    backwards = kernel_gradients(lambda: ops.sum(x * backward(y)), kernels)
    forwards = kernel_gradients(lambda: ops.sum(y * forward(x)), kernels)
    for found, expected in zip(backwards, forwards, strict=True):
        np.testing.assert_allclose(found, expected, **tolerance(case, layer))


@pytest.mark.skipif(BACKEND == "torch" and KERAS < (3, 15), reason="torch.compile takes no layer of this Keras")
@for_each(TO_COMPILE)
def test_compiled_adjoint_computes_what_the_eager_one_does(case):
    layer, adjoint = build_pair(case, "float32")
    _, backward = operators(case, layer, adjoint)
    _, y = probes(case, layer)
    expected, found = (ops.convert_to_numpy(run(y)) for run in (backward, compiled(backward)))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
