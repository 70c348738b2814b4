"""Kernels of deep layers, which a backend may move in memory in another way than small ones: same numbers, same gradients."""

import autodiff
import numpy as np
import pytest
from geometries import random
from keras import ops

from keras_adjoint.ops.algorithms.choose import BY_NAME, adjoint_convolution, problem_of
from keras_adjoint.ops.geometry import Window, convolution_of

KERNELS = [(4, 128, 256), (2, 2, 128, 256), (2, 2, 2, 64, 256)]  # of 2¹⁷ numbers


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", KERNELS, ids=str)
@pytest.mark.parametrize("name", BY_NAME)
def test_large_kernels_in_single_precision_are_those_in_double(name, shape, stride):
    *taps, channels, filters = shape
    sizes = (5,) * len(taps)
    convolution = convolution_of(sizes, tuple(Window(count, stride, padding="same") for count in taps))
    y_shape, x_shape = (2, *convolution.each("outputs"), filters), (2, *sizes, channels)
    arrays = [random(of, seed) for seed, of in enumerate((y_shape, shape, x_shape))]
    values, derivatives = {}, {}
    for dtype in ("float32", "float64"):
        y, kernel, weight = (ops.convert_to_tensor(array, dtype=dtype) for array in arrays)
        if not BY_NAME[name].fits(problem_of(y, kernel, convolution)):
            pytest.skip("not a convolution for it")

        def adjoint(y, kernel):
            return adjoint_convolution(y, kernel, convolution, name)

        values[dtype] = ops.convert_to_numpy(adjoint(y, kernel))
        derivatives[dtype] = autodiff.gradients(
            lambda y, kernel, w=weight: ops.sum(w * adjoint(y, kernel)), (y, kernel)
        )
    agree(values["float32"], values["float64"])
    for single, double in zip(derivatives["float32"], derivatives["float64"], strict=True):
        agree(single, double)


def agree(single, double):
    np.testing.assert_allclose(single, double, rtol=0, atol=1e-5 * np.abs(double).max())
