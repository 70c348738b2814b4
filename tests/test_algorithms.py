"""Every way to compute an adjoint convolution computes the transpose, in half precision too."""

import itertools
import math

import keras
import numpy as np
import pytest
from geometries import forward_matrix, joins, kernel_shape, label, problem_cases, random, x_shape, y_shape
from helpers import compiled, matrix
from keras import ops

import keras_adjoint as ka
from keras_adjoint.ops.algorithms import bilinear, choose
from keras_adjoint.ops.algorithms.bilinear import kernel_gradient
from keras_adjoint.ops.algorithms.choose import ALGORITHMS, BY_NAME
from keras_adjoint.ops.algorithms.problem import Problem
from keras_adjoint.ops.backend import current
from keras_adjoint.ops.geometry import Convolution, Window
from keras_adjoint.ops.precision import outputs_meet

CASES = [case for name, algorithm in BY_NAME.items() for case in problem_cases(name, fits=algorithm.fits)]


@pytest.mark.parametrize(("name", "problem"), CASES)
def test_algorithm_is_the_transpose(name, problem):
    kernel = random(kernel_shape(problem), 0, "float32")
    expected = forward_matrix(problem, kernel).T
    weights = ops.convert_to_tensor(kernel)
    found = matrix(lambda y: BY_NAME[name].apply(y, weights, problem.convolution), y_shape(problem)[1:], "float32")
    np.testing.assert_allclose(found, expected, rtol=0, atol=64 * np.finfo("float32").eps * np.abs(expected).max())


@pytest.mark.parametrize(("name", "problem"), CASES)
def test_an_empty_batch_comes_back_empty(name, problem, monkeypatch):
    if keras.backend.backend() == "tensorflow":  # oneDNN, which the tests do without, gives it back as it came
        for convolution in ("conv", "depthwise_conv"):
            monkeypatch.setattr(ops, convolution, lambda x, *others: x)
    weights = ops.convert_to_tensor(random(kernel_shape(problem), 0, "float32"))
    found = BY_NAME[name].apply(ops.zeros((0, *y_shape(problem)[1:])), weights, problem.convolution)
    assert tuple(found.shape) == (0, *x_shape(problem)[1:])


def of_a_large_kernel(rank, stride, groups):
    """A convolution of one small image, with more numbers in its kernel than in x and y together."""
    axes = tuple(Window(3 + axis, stride).at(5 + axis) for axis in range(rank))
    problem = Problem(Convolution(axes, groups), 1, 8, 12)
    assert math.prod(kernel_shape(problem)) > math.prod(x_shape(problem)) + math.prod(y_shape(problem))
    return problem


LARGE_KERNELS = [of_a_large_kernel(*kind) for kind in itertools.product((1, 2, 3), (1, 2), (1, 2))]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        pytest.param(name, problem, id=f"{name} {label(problem)}")
        for name, algorithm in BY_NAME.items()
        for problem in LARGE_KERNELS
        if algorithm.fits(problem)
    ],
)
def test_algorithm_is_the_transpose_for_a_kernel_larger_than_the_image(name, problem):
    """One sample at a time: an algorithm may rather move x and y then, which the unit tensors of a matrix outweigh."""
    kernel, y = random(kernel_shape(problem), 0, "float32"), random(y_shape(problem), 1, "float32")
    expected = (forward_matrix(problem, kernel).T @ y.ravel()).reshape(x_shape(problem))
    found = compiled(lambda y, kernel: BY_NAME[name].apply(y, kernel, problem.convolution))(
        ops.convert_to_tensor(y), ops.convert_to_tensor(kernel)
    )
    np.testing.assert_allclose(
        ops.convert_to_numpy(found), expected, rtol=0, atol=64 * np.finfo("float32").eps * np.abs(expected).max()
    )


LONG_STRIDES = [
    Problem(Convolution((Window(3, 10**10, padding=padding).at(8), Window(2, 90).at(95)), groups), 1, 2, filters)
    for padding, groups, filters in (("same", 1, 3), ("valid", 2, 2), ("valid", 2, 4))
]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        pytest.param(name, problem, id=f"{name} {label(problem)}")
        for name, algorithm in BY_NAME.items()
        for problem in LONG_STRIDES
        if algorithm.fits(problem)
    ],
)
def test_a_stride_that_is_longer_than_its_kernel_takes_neither_time_nor_memory(name, problem):
    """Most of its phases meet no tap; and where one output is all there is, the stride moves nothing."""
    kernel, y = random(kernel_shape(problem), 0, "float32"), random(y_shape(problem), 1, "float32")
    expected = (forward_matrix(problem, kernel).T @ y.ravel()).reshape(x_shape(problem))
    found = BY_NAME[name].apply(ops.convert_to_tensor(y), ops.convert_to_tensor(kernel), problem.convolution)
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=0, atol=1e-5)


def test_every_algorithm_is_tried():
    """But `fold` where the backend has no such operation."""
    tried = {case.values[0] for case in CASES}
    assert set(BY_NAME) - tried == (set() if current().FOLDED_RANKS else {"fold"})


@pytest.mark.any_backend
@pytest.mark.parametrize("name", ["subpixel", "phases", "columns", "shifts", "native"])
def test_the_pointwise_half_of_a_separable_convolution_is_exact_by_every_algorithm(monkeypatch, name):
    prepared = choose.prepared_adjoint.__wrapped__

    def by_name(problem, algorithm):
        return prepared(problem, name if BY_NAME[name].fits(problem) else None)

    monkeypatch.setattr(choose, "prepared_adjoint", by_name)
    source = keras.layers.SeparableConv2D(4, 3, strides=2, depth_multiplier=2)
    source.build((None, 9, 8, 3))
    report = ka.check_adjoint(source)
    assert report, report


def of_long_sums(stride):
    """A convolution whose adjoint sums 4096 numbers, whether outputs meet in a position or not."""
    return Problem(Convolution((Window(8, stride).at(32),)), 1, 512, 512 * stride)


@pytest.mark.any_backend
@pytest.mark.parametrize("problem", problem_cases())
def test_outputs_meet_where_two_of_them_read_one_position(problem):
    readers = {}
    for output, _, position in joins(problem.convolution):
        readers.setdefault(position, set()).add(output)
    assert outputs_meet(problem.convolution) or all(len(outputs) == 1 for outputs in readers.values())


@pytest.mark.any_backend
@pytest.mark.parametrize(("taps", "stride", "meet"), [(1, 1, False), (2, 2, False), (2, 3, False), (3, 2, True)])
def test_outputs_do_not_meet_where_a_kernel_fits_into_its_stride(taps, stride, meet):
    assert outputs_meet(Convolution((Window(taps, stride).at(12), Window(1).at(4)))) == meet


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    ("name", "stride"),
    [
        pytest.param(algorithm.name, stride, id=f"{algorithm.name}, {meet}")
        for algorithm in ALGORITHMS
        for stride, meet in ((1, "outputs meet"), (8, "no outputs meet"))
        if algorithm.name != "native" and algorithm.fits(of_long_sums(stride))  # the backend itself sums as it likes
    ],
)
def test_algorithm_sums_half_precision_like_the_forward(name, stride, dtype):
    """Sums of 4096 ones: in bfloat16 a running sum stays at 256, in float16 at 2048."""
    problem = of_long_sums(stride)
    ones = [ops.convert_to_tensor(np.ones(of(problem)), dtype) for of in (y_shape, x_shape, kernel_shape)]

    def run(y, x, kernel):
        convolution = problem.convolution
        return BY_NAME[name].apply(y, kernel, convolution), bilinear.forward(x, kernel, convolution)

    x, y = compiled(run)(*ones)
    assert keras.backend.standardize_dtype(x.dtype) == dtype
    off = abs(float(x[0, 16, 0]) - 4096), abs(float(y[0, 1, 0]) - 8 * problem.channels)
    assert off[0] <= off[1]


@pytest.mark.parametrize("algorithm", ["subpixel", "phases"])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_long_depthwise_kernel_in_half_precision_comes_to_an_end(stride, algorithm):
    """oneDNN's stride-1 convolution hangs for rows of more than 14 taps and up to 16 channels."""
    convolution = Convolution((Window(32, stride).at(64),), groups=4)
    y, kernel = ops.ones((1, convolution.axes[0].outputs, 4), "bfloat16"), ops.ones((32, 1, 4), "bfloat16")
    x = BY_NAME[algorithm].apply(y, kernel, convolution)
    assert keras.backend.standardize_dtype(x.dtype) == "bfloat16"
    assert float(x[0, 31, 0]) == min(32 // stride, y.shape[1])


@pytest.mark.parametrize("problem", problem_cases())
def test_kernel_gradient_tap_by_tap_is_what_joins_x_and_y(problem):
    x, y = random((2, *x_shape(problem)[1:]), 0), random((2, *y_shape(problem)[1:]), 1)
    channels, filters = problem.group
    expected = np.zeros(kernel_shape(problem))
    for output, tap, position in joins(problem.convolution):
        for group in range(problem.convolution.groups):
            read = x[(slice(None), *position, slice(group * channels, (group + 1) * channels))]
            made = slice(group * filters, (group + 1) * filters)
            expected[(*tap, slice(None), made)] += read.T @ y[(slice(None), *output, made)]
    found = compiled(lambda x, y: kernel_gradient(x, y, problem.convolution))(*map(ops.convert_to_tensor, (x, y)))
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_kernel_gradient_tap_by_tap_sums_half_precision_exactly(dtype):
    problem = Problem(Convolution((Window(3, dilation=2).at(4100),)), 1, 4, 4)
    x, y = ops.ones(x_shape(problem), dtype), ops.ones(y_shape(problem), dtype)
    found = compiled(lambda x, y: kernel_gradient(x, y, problem.convolution))(x, y)
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    assert (ops.convert_to_numpy(ops.cast(found, "float32")) == 4096).all()


@pytest.mark.only_on("tensorflow")  # the others run one operation after the other, or as one loop
@pytest.mark.parametrize("terms", ["sum_sequential", "map_sequential"])
def test_a_graph_begins_no_term_before_the_one_before_it_is_done(terms):
    import tensorflow as tf

    def run(x):
        return getattr(current(), terms)(lambda x, power: tf.exp(x) ** power, x, [(1.0,), (2.0,), (3.0,)])

    graph = tf.function(run).get_concrete_function(tf.TensorSpec((2,))).graph
    terms_of = [node for node in graph.get_operations() if node.type == "Exp"]
    waits = [node.inputs[0].op.control_inputs for node in terms_of]
    assert not waits[0]
    assert all(descends(after[0], term) for after, term in zip(waits[1:], terms_of[:-1], strict=True))


def descends(node, other):
    """Whether `node` of a graph is computed from `other`."""
    return node is other or any(descends(tensor.op, other) for tensor in node.inputs)
