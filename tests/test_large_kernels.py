"""Kernels of deep layers, which a backend may move in memory in another way than small ones: same numbers, same gradients."""

import autodiff
import numpy as np
import pytest
from geometries import random, x_shape, y_shape
from helpers import BACKENDS, compiled, in_turn
from keras import ops

from keras_adjoint.ops.algorithms.choose import BY_NAME, adjoint_convolution
from keras_adjoint.ops.algorithms.problem import Problem
from keras_adjoint.ops.geometry import Convolution, Window

KERNELS = [(4, 128, 256), (2, 2, 128, 256), (2, 2, 2, 64, 256)]  # of 2¹⁷ numbers


def problem_of(shape, stride):
    *taps, channels, filters = shape
    axes = tuple(Window(count, stride, padding="same").at(5) for count in taps)
    return Problem(Convolution(axes), 2, channels, filters)


@pytest.mark.parametrize(
    ("name", "shape", "stride"),
    in_turn(
        [
            (name, shape, stride)
            for name, algorithm in BY_NAME.items()
            for shape in KERNELS
            for stride in (1, 2)
            if algorithm.fits(problem_of(shape, stride))
        ],
        backends=lambda case: BACKENDS if len(case[1]) == 4 else ("torch",),
        always=["torch"],
    ),
)
def test_large_kernels_in_single_precision_are_those_in_double(name, shape, stride):
    problem = problem_of(shape, stride)
    arrays = [random(of, seed) for seed, of in enumerate((y_shape(problem), shape, x_shape(problem)))]
    values, derivatives = {}, {}
    for dtype in ("float32", "float64"):
        y, kernel, weight = (ops.convert_to_tensor(array, dtype=dtype) for array in arrays)

        def adjoint(y, kernel):
            return adjoint_convolution(y, kernel, problem.convolution, name)

        values[dtype] = ops.convert_to_numpy(compiled(adjoint)(y, kernel))
        derivatives[dtype] = autodiff.gradients(
            lambda y, kernel, w=weight: ops.sum(w * adjoint(y, kernel)), (y, kernel)
        )
    agree(values["float32"], values["float64"])
    for single, double in zip(derivatives["float32"], derivatives["float64"], strict=True):
        agree(single, double)


def agree(single, double):
    np.testing.assert_allclose(single, double, rtol=0, atol=1e-5 * np.abs(double).max())
