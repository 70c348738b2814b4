"""Adapters of channels and biases: what becomes of features and their scale, in floating point and in integers."""

import itertools

import numpy as np
import pytest
from keras import ops
from references import FRAMEWORKS, loop_convolution, random, tensor

from keras_adjoint.kernels.channels import METHODS, adapter_matrix, inverse_matrix
from keras_adjoint.kernels.layouts import adapt_bias, adapt_channels, convert_layout, transpose_kernel

pytestmark = pytest.mark.any_backend


@pytest.mark.parametrize("size, target", [(1, 3), (2, 5), (3, 3), (4, 8)])
def test_methods_are_pairs_of_pseudo_inverses(size, target):
    for method, n, m in [
        ("repeat", size, target),
        ("pad", size, target),
        ("average", target, size),
        ("truncate", target, size),
    ]:
        matrix = adapter_matrix(n, m, method)
        assert matrix.shape == (n, m) and matrix.dtype == "float64"
        np.testing.assert_allclose(inverse_matrix(n, m, method), np.linalg.pinv(matrix), atol=1e-12)
    for up, down in [("repeat", "average"), ("pad", "truncate")]:
        undone = adapter_matrix(size, target, up) @ adapter_matrix(target, size, down)
        np.testing.assert_allclose(undone, np.eye(size), atol=1e-15)


def test_matrices_are_what_their_names_say():
    for i, j in np.ndindex(3, 7):
        assert adapter_matrix(3, 7, "repeat")[i, j] == (j % 3 == i)
        assert adapter_matrix(3, 7, "pad")[i, j] == (i == j)
        assert adapter_matrix(7, 3, "truncate")[j, i] == (i == j)
        assert adapter_matrix(7, 3, "average")[j, i] == (j % 3 == i) / [3, 2, 2][i]


@pytest.mark.parametrize("method, target", [("repeat", 7), ("pad", 7), ("average", 2), ("truncate", 2)])
def test_adapted_filters_make_adapted_features(method, target):
    x, kernel, matrix = random(5, 4, 3), random(3, 2, 3, 5, seed=1), adapter_matrix(5, target, method)
    adapted = adapt_channels(kernel, out_channels=target, method=method)
    assert adapted.dtype == kernel.dtype
    np.testing.assert_allclose(loop_convolution(x, adapted), loop_convolution(x, kernel) @ matrix, atol=1e-5)


@pytest.mark.parametrize("method, target", [("repeat", 7), ("pad", 7), ("average", 2), ("truncate", 2)])
def test_adapted_inputs_answer_to_adapted_features_as_before(method, target):
    x, kernel, matrix = random(5, 4, 5), random(3, 2, 5, 3, seed=1), adapter_matrix(5, target, method)
    x = x @ matrix @ np.linalg.pinv(matrix)  # what the method can lose is lost already
    adapted = adapt_channels(kernel, in_channels=target, method=method)
    np.testing.assert_allclose(loop_convolution(x @ matrix, adapted), loop_convolution(x, kernel), atol=1e-5)


@pytest.mark.every_backend
def test_filters_of_a_transposed_convolution_are_adapted_in_its_own_layout():
    kernel, y = random(3, 2, 5, 4), random(1, 4, 3, 4, seed=1)
    adapted = adapt_channels(kernel, out_channels=12, layout="HWOI")
    x, more = (ops.conv_transpose(y, k, 2, "same", data_format="channels_last") for k in (kernel, adapted))
    expected = ops.convert_to_numpy(x) @ adapter_matrix(5, 12, "repeat")
    np.testing.assert_allclose(ops.convert_to_numpy(more), expected, atol=1e-5)


@pytest.mark.parametrize("target", [5, 9, 32])
def test_repeating_keeps_the_answer_to_constant_features(target):
    # A picture that is 1 everywhere stays one when repeated, and its answer must not grow with the channels.
    kernel = random(3, 3, 5, 4)
    adapted = adapt_channels(kernel, in_channels=target)
    np.testing.assert_allclose(adapted.sum(axis=2), kernel.sum(axis=2), atol=1e-5)


def test_both_axes_are_adapted_at_once_in_any_layout():
    kernel = random(3, 2, 4, 6)
    expected = np.einsum("hwio,ij,op->hwjp", kernel, inverse_matrix(4, 2, "average").T, adapter_matrix(6, 4, "average"))
    for layout in map("".join, itertools.permutations("HWIO")):
        adapted = adapt_channels(
            convert_layout(kernel, "HWIO", layout), in_channels=2, out_channels=4, method="average", layout=layout
        )
        np.testing.assert_allclose(convert_layout(adapted, layout, "HWIO"), expected, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_asked_for_is_nothing_changed(method):
    kernel = random(3, 2, 4, 6)
    assert adapt_channels(kernel, method=method) is kernel
    same = adapt_channels(kernel, in_channels=4, out_channels=6, method=method)
    np.testing.assert_array_equal(same, kernel)


def test_average_undoes_repeat():
    kernel, bias = random(3, 2, 4, 6), random(6)
    more = adapt_channels(kernel, in_channels=9, out_channels=13)
    np.testing.assert_allclose(adapt_channels(more, in_channels=4, out_channels=6, method="average"), kernel, rtol=1e-5)
    np.testing.assert_allclose(adapt_bias(adapt_bias(bias, 13), 6, "average"), bias, rtol=1e-6)


@pytest.mark.parametrize(
    "method, size, expected",
    [
        ("repeat", 5, [1, 2, 6, 1, 2]),
        ("average", 2, [3.5, 2]),
        ("average", 1, [3]),
        ("truncate", 2, [1, 2]),
        ("pad", 5, [1, 2, 6, 0, 0]),
        ("zeros", 2, [0, 0]),
        ("zeros", 7, [0] * 7),
    ],
)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_adapted_bias_holds_these_numbers(method, size, expected, dtype):
    adapted = adapt_bias(np.array([1, 2, 6], dtype), size, method)
    assert adapted.dtype == dtype
    np.testing.assert_allclose(adapted, np.array(expected, dtype), rtol=1e-3)


# Integers


@pytest.mark.parametrize("framework", ["numpy", *FRAMEWORKS])
def test_integers_are_copied_cut_and_padded_exactly(framework):
    kernel = np.random.default_rng(0).integers(-127, 128, (2, 3, 2, 6)).astype("int8")
    codes = kernel if framework == "numpy" else tensor(framework, kernel)
    for result, expected in [
        (transpose_kernel(codes, groups=2), transpose_kernel(kernel.astype("float64"), groups=2)),
        (transpose_kernel(codes, "conv"), transpose_kernel(kernel.astype("float64"), "conv")),
        (adapt_channels(codes, out_channels=13), adapt_channels(kernel.astype("float64"), out_channels=13)),
        (adapt_channels(codes, in_channels=1, method="truncate"), kernel[:, :, :1]),
        (adapt_channels(codes, in_channels=3, method="pad"), np.pad(kernel, [(0, 0), (0, 0), (0, 1), (0, 0)])),
    ]:
        assert result.dtype == codes.dtype
        np.testing.assert_array_equal(np.asarray(result), expected)


@pytest.mark.parametrize("framework", ["numpy", *FRAMEWORKS])
@pytest.mark.parametrize("sizes", [{"out_channels": 4}, {"in_channels": 1}])
def test_integers_are_not_averaged(framework, sizes):
    kernel = np.ones((2, 3, 2, 6), "int8")
    kernel = kernel if framework == "numpy" else tensor(framework, kernel)
    with pytest.raises(ValueError, match=r"not averaged, .* to floating point first\. Received: dtype=.*int8"):
        adapt_channels(kernel, **sizes, method="average")


def test_integers_are_not_divided_among_copies():
    with pytest.raises(ValueError, match="or divided among copies"):
        adapt_channels(np.ones((1, 1, 2, 2), "uint8"), in_channels=4)


# Errors


KERNEL = np.zeros((3, 3, 4, 6))


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: adapt_channels(KERNEL, out_channels=12, method="learned"),
            '`method` must be one of "repeat", "average", "truncate", "pad". Received: method=\'learned\'',
        ),
        (
            lambda: adapt_channels(KERNEL, out_channels=12, method="average"),
            "`method='average'` cannot make more channels (12) out of 6. Use `method='repeat'` instead. "
            "Received: method='average', size=6, target=12",
        ),
        (
            lambda: adapt_channels(KERNEL, in_channels=5, method="truncate"),
            "`method='truncate'` cannot make more channels (5) out of 4. Use `method='pad'` instead. "
            "Received: method='truncate', size=4, target=5",
        ),
        (
            lambda: adapt_channels(KERNEL, in_channels=2),
            "`method='repeat'` cannot make fewer channels (2) out of 4. Use `method='average'` instead. "
            "Received: method='repeat', size=4, target=2",
        ),
        (
            lambda: adapt_channels(KERNEL, in_channels=2, method="pad"),
            "`method='pad'` cannot make fewer channels (2) out of 4. Use `method='truncate'` instead. "
            "Received: method='pad', size=4, target=2",
        ),
        (
            lambda: adapt_channels(KERNEL, out_channels=0),
            "`target` must be a positive integer. Received: target=0",
        ),
        (
            lambda: adapt_bias(np.zeros(3), True),
            "`target` must be a positive integer. Received: target=True",
        ),
        (
            lambda: adapt_bias(np.zeros(3), -1, "zeros"),
            "`size` must be a positive integer. Received: size=-1",
        ),
        (
            lambda: adapt_bias(np.zeros((1, 3)), 3),
            "A bias has one axis. Received: bias.shape=(1, 3)",
        ),
        (
            lambda: adapt_bias(np.zeros(3), 6, "own"),
            '`method` must be one of "repeat", "average", "truncate", "pad", "zeros". Received: method=\'own\'',
        ),
    ],
)
def test_errors_say_what_came_and_what_to_do(call, message):
    with pytest.raises(ValueError) as error:
        call()
    assert str(error.value) == message
