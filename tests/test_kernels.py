"""Kernels as arrays: every claim of `kernels.py` against dense matrices made by explicit loops, and its errors read."""

import builtins
import itertools
import re

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from keras_adjoint.channels import METHODS, adapter_matrix, inverse_matrix
from keras_adjoint.kernels import adapt_bias, adapt_channels, convert_layout, transpose_kernel

KERAS_LAYOUTS = {1: "WIO", 2: "HWIO", 3: "DHWIO"}
ALL_LAYOUTS = ["".join(axes) for layout in KERAS_LAYOUTS.values() for axes in itertools.permutations(layout)]
KINDS = ["conv_transpose", "conv", "flip", "swap_spatial", "swap_channels"]
FRAMEWORKS = ["jax", "tensorflow", "torch"]
# name: taps, input size, strides, padding; sizes that a stock transposed convolution gives back
GEOMETRIES = {
    "1d, stride 1": ((3,), (7,), 1, "same"),
    "1d, stride 2": ((4,), (8,), 2, "valid"),
    "2d, stride 1": ((3, 2), (5, 4), 1, "same"),
    "2d, stride 1, valid": ((3, 2), (5, 4), 1, "valid"),
    "2d, stride 2": ((3, 3), (6, 4), 2, "same"),
    "2d, stride 2, valid": ((3, 2), (5, 4), 2, "valid"),
    "3d, stride 1": ((2, 3, 1), (3, 4, 2), 1, "same"),
    "3d, stride 2": ((3, 2, 2), (4, 4, 2), 2, "same"),
}


def random(*shape, seed=0, dtype="float32"):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def loop_convolution(x, kernel, strides=1, padding="valid", groups=1):
    """A convolution without batch axis, one output and one tap at a time."""
    *taps, inputs, filters = kernel.shape
    sizes = x.shape[:-1]
    if padding == "same":
        outputs = [-(-size // strides) for size in sizes]
        zeros = [max((n - 1) * strides + k - size, 0) for n, k, size in zip(outputs, taps, sizes, strict=True)]
        x = np.pad(x, [(total // 2, total - total // 2) for total in zeros] + [(0, 0)])
    else:
        outputs = [(size - k) // strides + 1 for size, k in zip(sizes, taps, strict=True)]
    y = np.zeros((*outputs, filters))
    for place in np.ndindex(*outputs):
        for tap in np.ndindex(*taps):
            pixel = x[tuple(p * strides + t for p, t in zip(place, tap, strict=True))]
            for filter in range(filters):
                first = filter // (filters // groups) * inputs
                y[place][filter] += pixel[first : first + inputs] @ kernel[tap][:, filter]
    return y


def matrix_of(operator, shape):
    """The dense matrix of a linear operator on arrays of this shape, one column per unit input."""
    units = np.eye(np.prod(shape)).reshape(-1, *shape)
    return np.stack([np.asarray(operator(unit)).ravel() for unit in units], axis=1)


def matrix_of_batched(operator, shape):
    """The same for an operator of the active backend, which takes all unit inputs as one batch."""
    units = np.eye(np.prod(shape), dtype="float32").reshape(-1, *shape)
    return ops.convert_to_numpy(operator(ops.convert_to_tensor(units))).reshape(len(units), -1).T


def tensor(framework, array, dtype=None):
    """A tensor of any installed framework, whichever backend is active."""
    module, make = {
        "jax": ("jax.numpy", "asarray"),
        "tensorflow": ("tensorflow", "convert_to_tensor"),
        "torch": ("torch", "tensor"),
    }[framework]
    module = pytest.importorskip(module)
    return getattr(module, make)(array, dtype=dtype and getattr(module, dtype))


# Layouts


@pytest.mark.parametrize("target", ALL_LAYOUTS)
def test_converted_layout_keeps_every_entry(target):
    source = KERAS_LAYOUTS[len(target) - 2]
    kernel = random(*range(2, 2 + len(source)))
    np.testing.assert_array_equal(convert_layout(kernel, source, target), np.einsum(f"{source}->{target}", kernel))


def test_default_conversion_is_from_the_articles_layout_to_keras():
    kernel = random(32, 5, 3, 64)
    converted = convert_layout(kernel)
    assert converted.shape == (5, 3, 64, 32)
    assert converted[4, 1, 7, 30] == kernel[30, 4, 1, 7]


@settings(max_examples=40, deadline=None)
@given(data=st.data(), spatial=st.sampled_from(["", "T", "HW", "DHW", "abXY"]))
def test_layout_round_trip_is_identity(data, spatial):
    source = "".join(data.draw(st.permutations(spatial + "IO")))
    target = "".join(data.draw(st.permutations(spatial + "IO")))
    kernel = random(*data.draw(st.lists(st.integers(1, 4), min_size=len(source), max_size=len(source))))
    there = convert_layout(kernel, source, target)
    assert there.shape == tuple(kernel.shape[source.index(axis)] for axis in target)
    np.testing.assert_array_equal(convert_layout(there, target, source), kernel)


def test_pytorch_weight_in_keras_layout_computes_the_same_convolution():
    torch = pytest.importorskip("torch")
    weight, x = torch.from_numpy(random(6, 2, 3, 2)), random(1, 4, 5, 4, seed=1)
    expected = torch.nn.functional.conv2d(torch.from_numpy(x), weight, groups=2)
    kernel = convert_layout(weight, "OIHW", "HWIO").numpy()
    y = loop_convolution(np.moveaxis(x[0], 0, -1), kernel, groups=2)
    np.testing.assert_allclose(np.moveaxis(y, -1, 0), expected[0].numpy(), atol=1e-5)


# Transposes


@pytest.mark.parametrize("name", GEOMETRIES)
def test_conv_transpose_kernel_makes_the_stock_transposed_convolution_the_adjoint(name):
    taps, sizes, strides, padding = GEOMETRIES[name]
    kernel = random(*taps, 3, 2)
    fitted = transpose_kernel(kernel, layout=KERAS_LAYOUTS[len(taps)])
    forward = matrix_of(lambda x: loop_convolution(x, kernel, strides, padding), (*sizes, 3))
    outputs = loop_convolution(np.zeros((*sizes, 3)), kernel, strides, padding).shape
    backward = matrix_of_batched(
        lambda y: ops.conv_transpose(y, fitted, strides, padding, data_format="channels_last"),
        outputs,
    )
    np.testing.assert_allclose(backward, forward.T, atol=1e-6)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_dense_conv_transpose_kernel_of_groups_is_their_adjoint(rank):
    taps, sizes = (3, 2, 1)[:rank], (6, 4, 2)[:rank]
    kernel = random(*taps, 2, 6)
    dense = transpose_kernel(kernel, groups=3, layout=KERAS_LAYOUTS[rank])
    assert dense.shape == (*taps, 6, 6)
    forward = matrix_of(lambda x: loop_convolution(x, kernel, 2, "same", groups=3), (*sizes, 6))
    np.testing.assert_array_equal(
        matrix_of(lambda x: loop_convolution(x, dense, 2, "same"), (*sizes, 6)),
        forward,
    )
    outputs = loop_convolution(np.zeros((*sizes, 6)), kernel, 2, "same", groups=3).shape
    backward = matrix_of_batched(
        lambda y: ops.conv_transpose(y, dense, 2, "same", data_format="channels_last"),
        outputs,
    )
    np.testing.assert_allclose(backward, forward.T, atol=1e-6)


def test_conv_transpose_kernel_fits_the_stock_layer():
    forward = keras.layers.Conv2D(4, (3, 2), strides=2, padding="same", use_bias=False, data_format="channels_last")
    forward.build((None, 6, 4, 3))
    layer = keras.layers.Conv2DTranspose(
        3, (3, 2), strides=2, padding="same", use_bias=False, data_format="channels_last"
    )
    layer.build((None, 3, 2, 4))
    layer.set_weights([transpose_kernel(forward.kernel)])
    a, b = matrix_of_batched(forward, (6, 4, 3)), matrix_of_batched(layer, (3, 2, 4))
    np.testing.assert_allclose(b, a.T, atol=1e-6)


@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_conv_kernel_makes_a_plain_convolution_the_adjoint(rank, groups):
    # The adjoint of an unpadded convolution pads by taps - 1 on both sides.
    taps, sizes = (3, 2, 1)[:rank], (4, 3, 2)[:rank]
    kernel = random(*taps, 2, 6)
    turned = transpose_kernel(kernel, "conv", layout=KERAS_LAYOUTS[rank], groups=groups)
    assert turned.shape == (*taps, 6 // groups, 2 * groups)
    forward = matrix_of(lambda x: loop_convolution(x, kernel, groups=groups), (*sizes, 2 * groups))
    outputs = loop_convolution(np.zeros((*sizes, 2 * groups)), kernel, groups=groups).shape
    backward = matrix_of(
        lambda y: loop_convolution(np.pad(y, [(k - 1, k - 1) for k in taps] + [(0, 0)]), turned, groups=groups),
        outputs,
    )
    np.testing.assert_allclose(backward, forward.T, atol=1e-6)


@pytest.mark.parametrize("groups", [1, 2])
def test_grouped_conv_kernel_fits_the_stock_layer(groups):
    kernel = random(3, 5, 2, 6)
    forward = matrix_of_batched(
        lambda x: ops.conv(x, kernel, 1, "same", data_format="channels_last"), (5, 4, 2 * groups)
    )
    turned = transpose_kernel(kernel, "conv", groups=groups)
    backward = matrix_of_batched(lambda y: ops.conv(y, turned, 1, "same", data_format="channels_last"), (5, 4, 6))
    np.testing.assert_allclose(backward, forward.T, atol=1e-6)


def test_depthwise_kernel_is_a_grouped_one():
    kernel, x, y = random(3, 3, 4, 2), random(1, 5, 5, 4, seed=1), random(1, 3, 3, 8, seed=2)
    ax = ops.depthwise_conv(x, kernel, data_format="channels_last")
    dense = transpose_kernel(kernel.reshape(3, 3, 1, 8), groups=4)
    aty = ops.conv_transpose(y, dense, 1, "valid", data_format="channels_last")
    ax, aty = ops.convert_to_numpy(ax), ops.convert_to_numpy(aty)
    np.testing.assert_allclose(np.vdot(ax, y), np.vdot(x, aty), rtol=1e-4)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_flip_reverses_every_spatial_axis_and_nothing_else(rank):
    kernel = random(*(4, 3, 2)[:rank], 2, 3)
    flipped = transpose_kernel(kernel, "flip", layout=KERAS_LAYOUTS[rank])
    for place in np.ndindex(*kernel.shape[:rank]):
        opposite = tuple(k - 1 - t for k, t in zip(kernel.shape, place, strict=False))
        np.testing.assert_array_equal(flipped[place], kernel[opposite])


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2])
def test_swapped_spatial_axes_are_right_for_transposed_images(rank, groups):
    kernel, x = random(*(3, 2, 1)[:rank], 2, 4), random(*(4, 5, 3)[:rank], 2 * groups, seed=1)
    reverse = (*reversed(range(rank)), rank)
    swapped = transpose_kernel(kernel, "swap_spatial", layout=KERAS_LAYOUTS[rank], groups=groups)
    np.testing.assert_allclose(
        loop_convolution(x.transpose(reverse), swapped, groups=groups),
        loop_convolution(x, kernel, groups=groups).transpose(reverse),
        atol=1e-6,
    )


def test_swapped_channels_are_the_adjoint_of_pointwise_kernels_only():
    assert np.array_equal(*(transpose_kernel(random(1, 1, 2, 6), kind, groups=2) for kind in ("swap_channels", "conv")))
    assert not np.allclose(*(transpose_kernel(random(3, 1, 2, 6), kind) for kind in ("swap_channels", "conv")))


@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("kind", ["conv", "flip", "swap_spatial", "swap_channels"])
def test_transposing_twice_gives_the_kernel_back(kind, groups):
    kernel = random(3, 2, 2, 6)
    twice = transpose_kernel(transpose_kernel(kernel, kind, groups=groups), kind, groups=groups)
    np.testing.assert_array_equal(twice, kernel)


@pytest.mark.parametrize("layout", ALL_LAYOUTS)
def test_transposes_do_not_depend_on_the_layout(layout):
    keras_layout = KERAS_LAYOUTS[len(layout) - 2]
    kernel = random(*(4, 3, 2)[: len(layout) - 2], 2, 6)
    for kind in KINDS:
        result = transpose_kernel(convert_layout(kernel, keras_layout, layout), kind, layout=layout, groups=2)
        expected = transpose_kernel(kernel, kind, layout=keras_layout, groups=2)
        if kind == "swap_spatial":  # "in reverse order" is about the order in which the layout names them
            spatial = [axis for axis in layout if axis not in "IO"]
            moved = dict(zip(spatial, reversed(spatial), strict=True))
            expected = np.einsum(f"{keras_layout}->{''.join(moved.get(axis, axis) for axis in keras_layout)}", kernel)
        np.testing.assert_array_equal(convert_layout(result, layout, keras_layout), expected)


# Channels and biases


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


# Kinds of arrays


def everything(kernel):
    """Every function of the module, on one 2 × 3 × 2 × 6 kernel in `HWIO`; all give floating point results of it."""
    yield convert_layout(kernel, "HWIO", "OIHW")
    for kind, groups in itertools.product(KINDS, (1, 2)):
        yield transpose_kernel(kernel, kind, groups=groups)
    yield adapt_channels(kernel)
    for method, sizes in [("repeat", (5, 9)), ("average", (1, 4)), ("truncate", (1, 4)), ("pad", (5, 9))]:
        yield adapt_channels(kernel, in_channels=sizes[0], out_channels=sizes[1], method=method)
    bias = kernel[0, 0, 0]
    for method, size in [("repeat", 9), ("average", 4), ("truncate", 4), ("pad", 9), ("zeros", 3)]:
        yield adapt_bias(bias, size, method)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_tensors_of_every_framework_give_its_tensors_whatever_the_backend(framework):
    kernel = random(2, 3, 2, 6)
    tensors = everything(tensor(framework, kernel))
    for result, expected in zip(tensors, everything(kernel), strict=True):
        assert isinstance(expected, np.ndarray)
        assert isinstance(result, type(tensor(framework, kernel)))
        np.testing.assert_allclose(np.asarray(result), expected, rtol=1e-6)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_dtypes_of_tensors_are_kept(framework):
    kernel = tensor(framework, random(2, 3, 2, 6), "bfloat16")
    assert {result.dtype for result in everything(kernel)} == {kernel.dtype}


@pytest.mark.parametrize("dtype", ["float16", "float64", "bfloat16"])
def test_numpy_dtypes_are_kept(dtype):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    kernel = random(2, 3, 2, 6).astype(getattr(ml_dtypes, dtype, dtype))
    assert {result.dtype.name for result in everything(kernel)} == {dtype}


def test_half_precision_averages_are_added_in_single_precision():
    kernel = random(1, 1, 1, 2000, dtype="float16") + np.float16(1)
    averaged = adapt_channels(kernel, out_channels=1, method="average")
    np.testing.assert_allclose(averaged[0, 0, 0, 0], kernel.astype("float64").mean(), rtol=2e-3)


def test_variables_give_tensors_of_the_active_backend():
    variable = keras.Variable(random(2, 3, 2, 6))
    for result, expected in zip(everything(variable), everything(random(2, 3, 2, 6)), strict=True):
        assert ops.is_tensor(result) and not isinstance(result, keras.Variable)
        np.testing.assert_allclose(ops.convert_to_numpy(result), expected, rtol=1e-6)


def test_symbolic_kernels_are_rearranged_symbolically():
    kernel = keras.Input(batch_shape=(2, 3, 2, 6))
    outputs = list(everything(kernel))
    model = keras.Model(kernel, outputs[:-1])
    for result, expected in zip(model(random(2, 3, 2, 6)), everything(random(2, 3, 2, 6)), strict=False):
        np.testing.assert_allclose(ops.convert_to_numpy(result), expected, rtol=1e-6)


def test_lists_are_read_as_numpy_arrays():
    assert adapt_bias([1.0, 2.0], 3).tolist() == [1, 2, 1]


def test_numpy_results_can_become_torch_tensors():
    torch = pytest.importorskip("torch")
    for result in everything(random(2, 3, 2, 6)):
        torch.from_numpy(result)  # refuses views with negative strides


def test_numpy_kernels_import_no_framework(monkeypatch):
    import_module, imported = builtins.__import__, []

    def watch(name, *args, **kwargs):
        imported.append(name.partition(".")[0])
        return import_module(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", watch)
    list(everything(random(2, 3, 2, 6)))
    assert not {"jax", "tensorflow", "torch"} & {*imported}


def gradients(function, kernel):
    """The gradient of `function` by the active backend, as NumPy."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return np.asarray(jax.grad(function)(jax.numpy.asarray(kernel)))
    if backend == "tensorflow":
        import tensorflow as tf

        variable = tf.Variable(kernel)
        with tf.GradientTape() as tape:
            value = function(variable)
        gradient = tape.gradient(value, variable)
        assert isinstance(gradient, tf.Tensor), "sparse gradients cannot be clipped or read"
        return gradient.numpy()
    import torch

    kernel = torch.tensor(kernel, requires_grad=True)
    function(kernel).backward()
    return kernel.grad.numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_flow_through_transposes(kind):
    # The sum of squares of rearranged entries has the gradient 2 · kernel.
    kernel = random(3, 2, 2, 6)
    gradient = gradients(lambda k: ops.sum(transpose_kernel(k, kind, groups=2) ** 2), kernel)
    np.testing.assert_allclose(gradient, 2 * kernel, rtol=1e-6)


@pytest.mark.parametrize("method, target", [("repeat", 9), ("pad", 9), ("average", 4), ("truncate", 4)])
@pytest.mark.parametrize("layout", ["HWIO", "OIHW"])
def test_gradients_flow_through_adapters(method, target, layout):
    kernel = convert_layout(random(3, 2, 2, 6), "HWIO", layout)
    gradient = gradients(
        lambda k: ops.sum(adapt_channels(k, out_channels=target, method=method, layout=layout)), kernel
    )
    expected = adapter_matrix(6, target, method).sum(axis=1)
    expected = np.broadcast_to(expected, (3, 2, 2, 6))
    np.testing.assert_allclose(convert_layout(gradient, layout, "HWIO"), expected, rtol=1e-6)


def test_gradients_flow_through_biases():
    gradient = gradients(lambda b: ops.sum(adapt_bias(b, 5) * ops.arange(5, dtype="float32")), random(2))
    np.testing.assert_allclose(gradient, [0 + 2 + 4, 1 + 3])


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
    "layout", ["HWCO", "HWI", "HWOO", "HWIOO", "HHIO", "", "H2IO", "HW-IO", "hwio", None, 4, ("H", "W", "I", "O")]
)
def test_malformed_layouts_are_refused_by_every_function(layout):
    message = "A layout names each axis of a kernel by a letter of its own, .* Received: "
    for argument, call in [
        ("source", lambda: convert_layout(KERNEL, layout, "HWIO")),
        ("target", lambda: convert_layout(KERNEL, "HWIO", layout)),
        ("layout", lambda: transpose_kernel(KERNEL, layout=layout)),
        ("layout", lambda: adapt_channels(KERNEL, layout=layout)),
    ]:
        with pytest.raises(ValueError, match=message + re.escape(f"{argument}={layout!r}") + "$"):
            call()


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: convert_layout(KERNEL, "HWIO", "OITW"),
            "`source` and `target` must name the same axes, in any order. Received: source='HWIO', target='OITW'",
        ),
        (
            lambda: transpose_kernel(KERNEL, layout="WIO"),
            'The layout names 3 axes, but the kernel has 4. Keras\' layouts are "WIO", "HWIO" and "DHWIO". '
            "Received: kernel.shape=(3, 3, 4, 6), layout='WIO'",
        ),
        (
            lambda: transpose_kernel(KERNEL, "transpose"),
            '`kind` must be one of "conv_transpose", "conv", "flip", "swap_spatial", "swap_channels". '
            "Received: kind='transpose'",
        ),
        (
            lambda: transpose_kernel(KERNEL, groups=4),
            "`groups` must divide the filters, which are 6. "
            "Received: groups=4, kernel.shape=(3, 3, 4, 6), layout='HWIO'",
        ),
        (
            lambda: transpose_kernel(KERNEL, groups=0),
            "`groups` must be a positive integer. Received: groups=0",
        ),
        (
            lambda: transpose_kernel(KERNEL, groups=2.0),
            "`groups` must be a positive integer. Received: groups=2.0",
        ),
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
