"""Every derivative of every algorithm: reverse and forward mode, second order, maps over batches, compiled and not.

The reference is `reference`, the adjoint as a product of matrices, whose derivatives no rule of ours touches.
"""

import itertools

import autodiff
import numpy as np
import pytest
from geometries import joins, kernel_shape, label, problems, random, x_shape, y_shape
from helpers import BACKEND
from keras import ops

from keras_adjoint.ops.algorithms.bilinear import BilinearForm
from keras_adjoint.ops.algorithms.choose import BY_NAME, adjoint_convolution
from keras_adjoint.ops.backend import current

# One of each kind: several samples, so that the batch has something to be confused with.
PROBLEMS = [
    problem for number, problem in enumerate(problems()) if len(problem.convolution.axes) < 3 and number % 23 == 0
]
CASES = [
    pytest.param(problem, algorithm, id=f"{algorithm.name}, {label(problem)}")
    for problem, algorithm in itertools.product(PROBLEMS, BY_NAME.values())
    if algorithm.fits(problem)
]
SAMPLES = 2


def tensor(shape, seed):
    return ops.convert_to_tensor(random(shape, seed), dtype="float64")


def arguments(problem, seed=0):
    """(y, kernel) of several samples."""
    return tensor((SAMPLES, *y_shape(problem)[1:]), seed), tensor(kernel_shape(problem), seed + 1)


def lowered(problem, algorithm):
    """(y, kernel) ↦ Aᵀ y with the library's derivatives."""
    form = BilinearForm(problem.convolution, algorithm)
    return lambda y, kernel: current().differentiable(form)(y, kernel)


def reference(problem):
    """(y, kernel) ↦ Aᵀ y by a constant tensor that says which tap joins which positions."""
    convolution = problem.convolution
    sizes, outputs, taps = (convolution.each(name) for name in ("size", "outputs", "taps"))
    joined = np.zeros((*outputs, *taps, *sizes))
    for output, tap, position in joins(convolution):
        joined[(*output, *tap, *position)] = 1
    joined = joined.reshape(np.prod(outputs), np.prod(taps), np.prod(sizes))
    groups, (channels, filters) = convolution.groups, problem.group

    def adjoint(y, kernel):
        y = ops.reshape(y, (-1, int(np.prod(outputs)), groups, filters))
        kernel = ops.reshape(kernel, (-1, channels, groups, filters))
        x = ops.einsum("jtp,njgf,tcgf->npgc", ops.convert_to_tensor(joined, dtype="float64"), y, kernel)
        return ops.reshape(x, (-1, *sizes, problem.channels))

    return adjoint


def squared(function, weight):
    """A scalar of degree four in (y, kernel), whose second derivatives are not zero."""
    return lambda y, kernel: ops.sum(weight * ops.square(function(y, kernel)))


def weight_of(problem):
    return tensor((SAMPLES, *x_shape(problem)[1:]), 5)


def agree(found, expected):
    for one, other in zip(found, expected, strict=True):
        one, other = np.asarray(one), np.asarray(other)
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-10 * max(1, np.abs(other).max()))


@pytest.mark.parametrize(("problem", "algorithm"), CASES)
def test_reverse_mode(problem, algorithm):
    primals, weight = arguments(problem), weight_of(problem)
    ways = (lowered(problem, algorithm), reference(problem))
    agree(*(autodiff.gradients(squared(way, weight), primals) for way in ways))


@pytest.mark.parametrize(("problem", "algorithm"), CASES)
def test_forward_mode(problem, algorithm):
    primals, tangents = arguments(problem), arguments(problem, 2)
    ways = (lowered(problem, algorithm), reference(problem))
    agree(*(autodiff.forward_derivative(way, primals, tangents) for way in ways))


@pytest.mark.parametrize(("problem", "algorithm"), CASES)
def test_second_order(problem, algorithm):
    primals, tangents, weight = arguments(problem), arguments(problem, 2), weight_of(problem)
    ways = (lowered(problem, algorithm), reference(problem))
    agree(*(autodiff.hessian_product(squared(way, weight), primals, tangents) for way in ways))


@pytest.mark.parametrize(("problem", "algorithm"), CASES)
@pytest.mark.parametrize("mapped", [(0, None), (None, 0), (0, 0)], ids=["over y", "over kernels", "over both"])
def test_mapped(problem, algorithm, mapped):
    """A map over examples, kernels or pairs is the loop, and so are its gradients."""
    pairs = [arguments(problem, seed) for seed in (0, 10, 20)]
    stacked = [
        ops.stack([pair[place] for pair in pairs]) if axis == 0 else pairs[0][place]
        for place, axis in enumerate(mapped)
    ]
    looped = [[pair[place] if axis == 0 else pairs[0][place] for place, axis in enumerate(mapped)] for pair in pairs]
    way, weight = lowered(problem, algorithm), weight_of(problem)
    agree(
        autodiff.mapped(way, mapped)(*stacked),
        [ops.convert_to_numpy(way(*pair)) for pair in looped],
    )
    if autodiff.mapped_gradients is not None:
        each = autodiff.mapped_gradients(squared(way, weight), mapped)(*stacked)
        expected = zip(*(autodiff.gradients(squared(way, weight), pair) for pair in looped), strict=True)
        agree(each, [np.stack(gradients) for gradients in expected])


@pytest.mark.parametrize(("problem", "algorithm"), CASES)
def test_compiled(problem, algorithm):
    y, kernel = arguments(problem)
    way = lowered(problem, algorithm)
    agree([ops.convert_to_numpy(autodiff.compiled(way)(y, kernel))], [ops.convert_to_numpy(way(y, kernel))])


@pytest.mark.parametrize("problem", PROBLEMS[:6], ids=label)
def test_chosen_algorithm_has_derivatives_when_compiled(problem):
    """What a training step does: the gradient of a compiled function, with the algorithm that is chosen."""
    primals, weight = arguments(problem), weight_of(problem)
    way = squared(lambda y, kernel: adjoint_convolution(y, kernel, problem.convolution), weight)
    found = autodiff.compiled_gradients(way)(*primals)
    agree(found, autodiff.gradients(squared(reference(problem), weight), primals))


@pytest.mark.skipif(BACKEND != "jax", reason="only JAX has primitives to look at")
def test_jax_differentiates_into_our_own_primitive_alone():
    import jax

    problem = PROBLEMS[0]
    way = jax.grad(squared(lowered(problem, BY_NAME["subpixel"]), weight_of(problem)), argnums=(0, 1))
    program = jax.make_jaxpr(lambda primals, tangents: jax.jvp(way, primals, tangents))
    text = str(program(arguments(problem), arguments(problem, 2)))
    assert "keras_adjoint_bilinear_form" in text and "conv_general_dilated" not in text
