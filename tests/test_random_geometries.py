"""Convolutions of random geometry: the matrix of the adjoint is the transpose, for whatever hypothesis comes up with."""

import keras
import numpy as np
import pytest
from helpers import matrices
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_adjoint as ka
from keras_adjoint.ops.geometry import TransposedWindow, Window

L = keras.layers
CONVOLUTIONS = {1: L.Conv1D, 2: L.Conv2D, 3: L.Conv3D}


@st.composite
def convolutions(draw):
    """A convolution layer and the size of its input, with at least one output along every axis."""
    rank = draw(st.integers(1, 3))
    padding = draw(st.sampled_from(["valid", "same"] + ["causal"] * (rank == 1)))
    dilated = draw(st.booleans())
    axes = []
    for _ in range(rank):
        taps = draw(st.integers(1, 5 if rank < 3 else 3))
        stride, dilation = (1, draw(st.integers(1, 3))) if dilated else (draw(st.integers(1, 4)), 1)
        window = Window(taps, stride, dilation, padding)
        smallest = window.dilated_taps if padding == "valid" else 1
        axes.append((draw(st.integers(smallest, smallest + (8 if rank < 3 else 3))), window))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    layer = CONVOLUTIONS[rank](
        groups * draw(st.integers(1, 2)),
        tuple(window.taps for _, window in axes),
        strides=tuple(window.stride for _, window in axes),
        dilation_rate=tuple(window.dilation for _, window in axes),
        padding=padding,
        groups=groups,
        use_bias=False,
        dtype="float64",
    )
    return layer, (*(size for size, _ in axes), groups * draw(st.integers(1, 2)))


@given(convolutions(), st.integers(0, 2**31))
def test_matrix_of_the_adjoint_is_the_transpose_for_random_convolutions(drawn, seed):
    layer, shape = drawn
    layer.build((None, *shape))
    layer.kernel.assign(np.random.default_rng(seed).normal(size=layer.kernel.shape))
    outputs = layer.compute_output_shape((1, *shape))[1:]
    a, b = matrices([(layer, shape), (ka.adjoint(layer), outputs)], "float64")
    np.testing.assert_allclose(b, a.T, rtol=0, atol=1e-12 * np.abs(a).max())


windows = st.builds(
    Window, st.integers(1, 9), st.integers(1, 6), st.integers(1, 4), st.sampled_from(["valid", "same", "causal"])
)


@pytest.mark.any_backend
@given(windows, st.integers(1, 40))
@settings(max_examples=300)  # of integers
def test_possible_sizes_are_exactly_those_that_give_the_outputs(window, size):
    if window.padding == "valid" and size < window.dilated_taps:
        size += window.dilated_taps
    outputs = window.outputs(size)
    smallest, largest = window.possible_sizes(outputs)
    giving = [
        n
        for n in range(1, 200)
        if window.outputs(n) == outputs and (window.padding != "valid" or n >= window.dilated_taps)
    ]
    assert (smallest, largest) == (giving[0], giving[-1])


@pytest.mark.any_backend
@given(windows, st.integers(1, 40))
@settings(max_examples=300)  # of integers
def test_every_output_of_a_window_starts_inside_the_padded_input(window, size):
    if window.padding == "valid" and size < window.dilated_taps:
        size += window.dilated_taps
    axis = window.at(size)
    assert 0 <= axis.pad_before < max(window.dilated_taps, 1)
    last_start = (axis.outputs - 1) * axis.stride - axis.pad_before
    assert last_start < size


@pytest.mark.any_backend
@given(st.integers(1, 9), st.integers(1, 6), st.integers(1, 4), st.sampled_from(["valid", "same"]), st.integers(1, 30))
@settings(max_examples=300)  # of integers
def test_transposed_windows_tell_inputs_and_outputs_apart(taps, stride, dilation, padding, inputs):
    for extra in (None, *range(stride)):
        window = TransposedWindow(taps, stride, dilation, padding, extra)
        size = window.outputs(inputs)
        if size > 0:
            assert window.inputs(size) == inputs
            assert window.at(size).outputs == inputs
