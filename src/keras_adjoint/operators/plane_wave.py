"""The plane wave that the adjoint of a large convolution lengthens nearly most."""

import math

from keras import ops

from keras_adjoint.operators.eigenvalues import largest_eigenvalue_bound, powered, scaled
from keras_adjoint.operators.symbol_blocks import gram_at, grids_for, kernel_by_groups, symbol_at, symbol_peak, waves_at
from keras_adjoint.ops import Tensor
from keras_adjoint.ops.geometry import Convolution


def plane_wave(kernel: Tensor, convolution: Convolution) -> tuple[Tensor, Tensor]:
    """What the adjoint of a large convolution lengthens nearly most, and a bound of its norm without what rounding adds.

    A plane wave at the frequency at which the symbol is largest, with the channels of its singular vector, is lengthened like
    that where zeros at the edge are far away. It fades towards them as half a period of a sine, which is the slowest way.

    Args:
        kernel: Tensor of shape `(*taps, channels / groups, filters)`.
        convolution: The geometry.

    Returns:
        (tensor of shape `(1, *outputs, filters)`, scalar tensor).
    """
    kernel, scale = scaled(ops.stop_gradient(kernel_by_groups(kernel, convolution)))
    grid = grids_for(kernel, convolution)[0]
    peak = symbol_peak(kernel, [grid])
    waves = waves_at(grid, peak.highest[None])
    group = ops.argmax(largest_eigenvalue_bound(*gram_at(kernel, waves))[0], axis=0)
    alone = kernel[:, :, group][:, :, None]
    real, imaginary = symbol_at(alone, waves)
    assert imaginary is not None  # whose taps are in different strides, or no zeros at the edge would be far away
    real, imaginary = real[0, 0], imaginary[0, 0]
    _, *power = powered(*gram_at(alone, waves))
    column = ops.argmax(ops.diagonal(power[0][0, 0]), axis=0)
    top, imaginary_top = (part[0, 0][:, column] for part in power)
    if real.shape[0] <= real.shape[1]:  # the power is that of F Fᴴ; the output for the input conj(v) is Fᵀ conj(v)
        top, imaginary_top = _times((top, -imaginary_top), (real, imaginary))
    phase = ops.zeros((), kernel.dtype)
    window = ops.ones((), kernel.dtype)
    for number, (axis, frequencies) in enumerate(zip(convolution.axes, grid.axes, strict=True)):
        place = ops.arange(axis.outputs, dtype=kernel.dtype)
        phase = phase[..., None] + place * peak.highest[number] / frequencies.spread
        window = window[..., None] * ops.sin(math.pi * (place + 1) / (axis.outputs + 1))
    phase, window = phase[..., None], window[..., None]
    wave = window * (ops.cos(phase) * top - ops.sin(phase) * imaginary_top)
    of_group = ops.cast(ops.arange(convolution.groups) == group, kernel.dtype)
    wave = ops.reshape(wave[..., None, :] * of_group[:, None], (1, *wave.shape[:-1], -1))
    return wave, scale * ops.sqrt(peak.squared)


def _times(row: tuple[Tensor, Tensor], matrix: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """A complex row times a complex matrix, each as real and imaginary part."""
    (real, imaginary), (real_matrix, imaginary_matrix) = (row[0][:, None], row[1][:, None]), matrix
    return (
        ops.sum(real * real_matrix - imaginary * imaginary_matrix, axis=0),
        ops.sum(real * imaginary_matrix + imaginary * real_matrix, axis=0),
    )
