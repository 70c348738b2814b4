"""Every derivative of every algorithm: reverse and forward mode, second order, maps over batches, compiled and not.

The reference is `reference`, the adjoint as a product of matrices, whose derivatives no rule of ours touches.
"""

import autodiff
import numpy as np
import pytest
from covering import covering
from extent import EXHAUSTIVE
from geometries import joins, kernel_shape, label, problem_cases, problems, properties_of, random, x_shape, y_shape
from helpers import BACKEND, compiled
from keras import ops

from keras_adjoint.ops.algorithms.bilinear import BilinearForm
from keras_adjoint.ops.algorithms.choose import BY_NAME, adjoint_convolution
from keras_adjoint.ops.backend import current


def fitting(algorithm):
    return lambda problem: len(problem.convolution.axes) < 3 and algorithm.fits(problem)


# Each algorithm meets each property once in `make test`, and each two of them beyond it.
CASES = [
    case for name, algorithm in BY_NAME.items() for case in problem_cases(name, fits=fitting(algorithm), strength=1)
]
each_case = pytest.mark.parametrize(("name", "problem"), CASES)
# What is dearer: each algorithm and each property once.
DEARER = CASES if EXHAUSTIVE else covering(CASES, lambda case: {case.values[0], *properties_of(case.values[1])}, 1)
# JAX and TensorFlow trace each map and each forward derivative anew.
MAPPABLE = CASES if BACKEND == "torch" else DEARER
PROBLEMS = problems(lambda problem: len(problem.convolution.axes) < 3, strength=1)
MAPS = {"over y": (0, None), "over kernels": (None, 0), "over both": (0, 0)}
MAPPED = [  # each map in turn for `make test`
    pytest.param(
        *case.values,
        axes,
        id=f"{case.id} {over}",
    )
    for number, case in enumerate(MAPPABLE)
    for turn, (over, axes) in enumerate(MAPS.items())
    if EXHAUSTIVE or number % len(MAPS) == turn
]
SAMPLES = 2


def lacks_second_order(name, problem):
    """Keras' grouped convolution on TensorFlow is a `tf.function`, which forward over reverse mode does not get through."""
    dilated = max(problem.convolution.each("dilation")) > 1
    return BACKEND == "tensorflow" and name == "subpixel" and dilated and problem.convolution.groups > 1


def tensor(shape, seed):
    return ops.convert_to_tensor(random(shape, seed), dtype="float64")


def arguments(problem, seed=0):
    """(y, kernel) of several samples."""
    return tensor((SAMPLES, *y_shape(problem)[1:]), seed), tensor(kernel_shape(problem), seed + 1)


def adjoint_of(name, problem):
    """(y, kernel) ↦ Aᵀ y with the library's derivatives."""
    form = BilinearForm(problem.convolution, BY_NAME[name])
    return current().differentiable(form)


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


@each_case
def test_reverse_mode(name, problem):
    primals, weight = arguments(problem), weight_of(problem)
    ways = (adjoint_of(name, problem), reference(problem))
    agree(*(autodiff.gradients(squared(way, weight), primals) for way in ways))


@pytest.mark.parametrize(("name", "problem"), MAPPABLE)
def test_forward_mode(name, problem):
    primals, tangents = arguments(problem), arguments(problem, 2)
    ways = (adjoint_of(name, problem), reference(problem))
    agree(*(autodiff.forward_derivative(way, primals, tangents) for way in ways))


@pytest.mark.parametrize(("name", "problem"), [case for case in DEARER if not lacks_second_order(*case.values)])
def test_second_order(name, problem):
    primals, tangents, weight = arguments(problem), arguments(problem, 2), weight_of(problem)
    ways = (adjoint_of(name, problem), reference(problem))
    agree(*(autodiff.hessian_product(squared(way, weight), primals, tangents) for way in ways))


@pytest.mark.parametrize(("name", "problem", "mapped"), MAPPED)
def test_mapped(name, problem, mapped):
    """A map over examples, kernels or pairs is the loop, and so are its gradients."""
    arrays = [list(map(ops.convert_to_numpy, arguments(problem, seed))) for seed in (0, 10, 20)]
    looped = [
        [ops.convert_to_tensor((pair if axis == 0 else arrays[0])[place]) for place, axis in enumerate(mapped)]
        for pair in arrays
    ]
    stacked = [
        ops.convert_to_tensor(np.stack([pair[place] for pair in arrays]) if axis == 0 else arrays[0][place])
        for place, axis in enumerate(mapped)
    ]
    way, weight = adjoint_of(name, problem), weight_of(problem)
    one = compiled(way)
    agree(
        autodiff.mapped(way, mapped)(*stacked),
        [ops.convert_to_numpy(one(*pair)) for pair in looped],
    )
    if autodiff.mapped_gradients is not None:
        each = autodiff.mapped_gradients(squared(way, weight), mapped)(*stacked)
        one = autodiff.gradients_of(squared(way, weight))
        expected = zip(*(one(pair) for pair in looped), strict=True)
        agree(each, [np.stack(gradients) for gradients in expected])


@pytest.mark.parametrize(("name", "problem"), DEARER)
def test_compiled(name, problem):
    y, kernel = arguments(problem)
    way = adjoint_of(name, problem)
    agree([ops.convert_to_numpy(autodiff.compiled(way)(y, kernel))], [ops.convert_to_numpy(way(y, kernel))])


@pytest.mark.parametrize("problem", PROBLEMS[:6], ids=label)
def test_chosen_algorithm_has_derivatives_when_compiled(problem):
    """What a training step does: the gradient of a compiled function, with the algorithm that is chosen."""
    primals, weight = arguments(problem), weight_of(problem)
    way = squared(lambda y, kernel: adjoint_convolution(y, kernel, problem.convolution), weight)
    found = autodiff.compiled_gradients(way)(*primals)
    agree(found, autodiff.gradients(squared(reference(problem), weight), primals))


@pytest.mark.only_on("jax")  # it alone has primitives to look at
def test_jax_differentiates_into_our_own_primitive_alone():
    import jax

    problem = PROBLEMS[0]
    way = jax.grad(squared(adjoint_of("subpixel", problem), weight_of(problem)), argnums=(0, 1))
    program = jax.make_jaxpr(lambda primals, tangents: jax.jvp(way, primals, tangents))
    text = str(program(arguments(problem), arguments(problem, 2)))
    assert "keras_adjoint_bilinear_form" in text and "conv_general_dilated" not in text
