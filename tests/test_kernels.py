"""Layouts and transposes of kernels: claims against dense matrices made by explicit loops, and every error read."""

import itertools
import re

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from references import loop_convolution, random

from keras_adjoint.kernels.layouts import adapt_channels, convert_layout, transpose_kernel

pytestmark = pytest.mark.any_backend
KERAS_LAYOUTS = {1: "WIO", 2: "HWIO", 3: "DHWIO"}
ALL_LAYOUTS = ["".join(axes) for layout in KERAS_LAYOUTS.values() for axes in itertools.permutations(layout)]
KINDS = ["conv_transpose", "conv", "flip", "swap_spatial", "swap_channels"]
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


def matrix_of(operator, shape):
    """The dense matrix of a linear operator on arrays of this shape, one column per unit input."""
    units = np.eye(np.prod(shape)).reshape(-1, *shape)
    return np.stack([np.asarray(operator(unit)).ravel() for unit in units], axis=1)


def matrix_of_batched(operator, shape):
    """The same for an operator of the active backend, which takes all unit inputs as one batch."""
    units = np.eye(np.prod(shape), dtype="float32").reshape(-1, *shape)
    return ops.convert_to_numpy(operator(ops.convert_to_tensor(units))).reshape(len(units), -1).T


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


@settings(max_examples=40)
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


@pytest.mark.every_backend
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


@pytest.mark.every_backend
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


@pytest.mark.every_backend
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


@pytest.mark.every_backend
@pytest.mark.parametrize("groups", [1, 2])
def test_grouped_conv_kernel_fits_the_stock_layer(groups):
    kernel = random(3, 5, 2, 6)
    forward = matrix_of_batched(
        lambda x: ops.conv(x, kernel, 1, "same", data_format="channels_last"), (5, 4, 2 * groups)
    )
    turned = transpose_kernel(kernel, "conv", groups=groups)
    backward = matrix_of_batched(lambda y: ops.conv(y, turned, 1, "same", data_format="channels_last"), (5, 4, 6))
    np.testing.assert_allclose(backward, forward.T, atol=1e-6)


@pytest.mark.every_backend
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
            "Did you mean \"conv_transpose\"? Received: kind='transpose'",
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
    ],
)
def test_errors_say_what_came_and_what_to_do(call, message):
    with pytest.raises(ValueError) as error:
        call()
    assert str(error.value) == message
