"""Strided convolutions of one channel that give a single position along an axis, which PyTorch computes wrongly."""

import itertools

import keras
import numpy as np
import pytest
from autodiff import gradients, kernel_gradients
from encoders import values

import keras_adjoint as ka

L = keras.layers
RNG = np.random.default_rng(0)
KERNELS = [((4, 5), (1, 3)), ((5, 5), (2, 2)), ((5, 1), (3, 1)), ((3, 4, 3), (4, 1, 2)), ((3,), (2,))]
CONVOLUTIONS = {1: L.Conv1D, 2: L.Conv2D, 3: L.Conv3D}


def product(x, kernel, strides, outputs):
    """The convolution without padding, from its definition."""
    found = np.zeros((len(x), *outputs, kernel.shape[-1]))
    taps = kernel.shape[:-2]
    for position in itertools.product(*map(range, outputs)):
        corner = [slice(p * s, p * s + t) for p, s, t in zip(position, strides, taps, strict=True)]
        found[(slice(None), *position)] = np.tensordot(x[(slice(None), *corner)], kernel, x.ndim - 1)
    return found


@pytest.mark.parametrize("taps, strides", KERNELS, ids=str)
@pytest.mark.parametrize("batch", [1, 3])
def test_operators_blocks_and_derivatives_are_right_where_the_last_axis_has_one_position(taps, strides, batch):
    outputs = (*(2,) * (len(taps) - 1), 1)
    sizes = tuple((o - 1) * s + t for o, s, t in zip(outputs, strides, taps, strict=True))
    conv = CONVOLUTIONS[len(taps)](3, taps, strides=strides, use_bias=False)
    conv.build((None, *sizes, 1))
    x = RNG.normal(size=(batch, *sizes, 1)).astype("float32")
    y = RNG.normal(size=(batch, *outputs, 3)).astype("float32")
    expected = product(x.astype("float64"), values(conv.kernel).astype("float64"), strides, outputs)
    A, backward = ka.operator(conv, size=sizes), ka.adjoint(conv, output_size=sizes)
    given = keras.ops.convert_to_tensor(x)
    of_y = gradients(lambda y: keras.ops.sum(backward(y) * given), [keras.ops.convert_to_tensor(y)])
    for found in (A @ x, backward.apply_forward(given), *of_y):
        np.testing.assert_allclose(values(found), expected, rtol=1e-4, atol=1e-4)
    out = np.zeros_like(expected, "float32")
    ka.apply_blocks(conv, x, out, block=outputs)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)
    left, right = np.vdot(expected, y), np.vdot(x, values(backward(y)))
    assert abs(left - right) <= 1e-4 * np.linalg.norm(expected) * np.linalg.norm(y)


@pytest.mark.only_on("torch")
@pytest.mark.parametrize("rank", CONVOLUTIONS)
def test_the_adjoint_of_one_filter_is_trained_in_one_thread(rank):
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        conv = CONVOLUTIONS[rank](1, 2, use_bias=False)
        conv.build((None, *(5,) * rank, 3))
        y = RNG.normal(size=(1, *(4,) * rank, 1)).astype("float32")
        (kernel,) = kernel_gradients(lambda: keras.ops.sum(ka.adjoint(conv, algorithm="native")(y)), [conv.kernel])
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_allclose(values(kernel), np.full(conv.kernel.shape, y.sum()), rtol=1e-4)
