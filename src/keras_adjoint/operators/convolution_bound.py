"""A bound of a convolution's norm: the largest norm of its symbol (see `symbol`), or a bound by absolute values."""

import math

import keras
import numpy as np
from keras import ops

from keras_adjoint.operators.eigenvalues import largest_eigenvalue_bound, scaled
from keras_adjoint.operators.symbol import grids_of
from keras_adjoint.ops import Tensor
from keras_adjoint.ops.geometry import Convolution
from keras_adjoint.ops.precision import epsilon

MOST_NUMBERS = 2**24  # of the symbol in memory at once


def convolution_bound(kernel: Tensor, convolution: Convolution) -> Tensor:
    """A number that is not below the norm of a convolution at its size, differentiable by the kernel.

    It is the smaller one of the symbol's norm and of √(‖A‖₁‖A‖∞), from the largest sums of absolute values that one input takes
    part in, and that one output is the sum of. Either is raised by what rounding may have taken off.

    Args:
        kernel: Tensor of shape `(*taps, channels / groups, filters)`.
        convolution: The geometry.

    Returns:
        A scalar tensor.
    """
    *taps, channels, filters = map(int, kernel.shape)
    groups = convolution.groups
    kernel, scale = scaled(ops.reshape(kernel, (math.prod(taps), channels, groups, filters // groups)))
    return scale * ops.minimum(_by_symbol(kernel, convolution), _by_absolute_values(kernel, convolution))


def _by_symbol(kernel: Tensor, convolution: Convolution) -> Tensor:
    taps, channels, _, filters = map(int, kernel.shape)
    grids, dtype = grids_of(convolution, channels, filters), kernel.dtype
    waves = np.concatenate([grid.waves for grid in grids])
    fixed = ops.stop_gradient(kernel)
    step = max(1, MOST_NUMBERS // (waves.shape[1] * math.prod(kernel.shape[1:])))
    parts = [waves[start : start + step] for start in range(0, len(waves), step)]
    largest = ops.concatenate([largest_eigenvalue_bound(*_gram(fixed, _tensors(part, dtype))) for part in parts])

    # Every grid has a bound of its own, and the smallest is taken.
    ends = np.cumsum([len(grid.waves) for grid in grids])
    slices = [(int(end) - len(grid.waves), int(end)) for end, grid in zip(ends, grids, strict=True)]
    highest = ops.max(largest, axis=1)  # of the groups
    factors = ops.convert_to_tensor([grid.factor for grid in grids], dtype)
    best = ops.argmin(ops.stack([ops.max(highest[start:stop]) for start, stop in slices]) * factors, axis=0)
    place = ops.stack([start + ops.argmax(highest[start:stop], axis=0) for start, stop in slices])[best]

    # The derivative is that of the one value which is the largest.
    there = [wave[place][None] for wave in _tensors(waves, dtype)]
    group = ops.argmax(largest[place], axis=0)
    gram = _gram(kernel[:, :, group][:, :, None], there)
    squared = largest_eigenvalue_bound(*gram)[0, 0] * factors[best]

    # A sum of n products errs by n units of the sum of their absolute values. F is a sum over the taps; the errors of its Gram
    # matrix, and of the squares of that, are relative to Frobenius norms, which are at most √rows times the norm.
    rows, depth = sorted((waves.shape[1] * channels, filters))
    unit = epsilon(keras.backend.standardize_dtype(dtype))
    of_symbol = taps**1.5 * unit * ops.sqrt(ops.sum(ops.square(kernel)))
    return ops.sqrt(squared) * (1 + unit * rows * (depth + rows**0.5)) + of_symbol


def _tensors(waves: np.ndarray, dtype: str) -> tuple[Tensor, Tensor]:
    return ops.convert_to_tensor(waves.real, dtype), ops.convert_to_tensor(waves.imag, dtype)


def _gram(kernel: Tensor, waves: tuple[Tensor, Tensor] | list[Tensor]) -> tuple[Tensor, Tensor]:
    """F Fᴴ or Fᴴ F, the smaller one, of the symbol F at each frequency and for each group: real and imaginary part."""
    count, phases, _ = waves[0].shape
    _, channels, groups, filters = kernel.shape
    shape = (count, phases * channels, groups, filters)
    real, imaginary = (
        ops.transpose(ops.reshape(ops.tensordot(wave, kernel, axes=1), shape), (0, 2, 1, 3)) for wave in waves
    )
    if phases * channels > filters:
        real, imaginary = ops.swapaxes(real, -1, -2), ops.swapaxes(imaginary, -1, -2)
    real_t, imaginary_t = ops.swapaxes(real, -1, -2), ops.swapaxes(imaginary, -1, -2)
    return real @ real_t + imaginary @ imaginary_t, imaginary @ real_t - real @ imaginary_t


def _by_absolute_values(kernel: Tensor, convolution: Convolution) -> Tensor:
    """√(‖A‖₁‖A‖∞): of the taps, those at one phase reach one input."""
    grid = grids_of(convolution)[0]
    at_phase = ops.convert_to_tensor(np.abs(grid.waves[0]) > 0.5, kernel.dtype)  # phases × taps
    absolute = ops.abs(kernel)
    of_outputs = ops.max(ops.sum(absolute, axis=(0, 1)))
    of_inputs = ops.max(ops.tensordot(at_phase, ops.sum(absolute, axis=3), axes=1))
    unit = epsilon(keras.backend.standardize_dtype(kernel.dtype))
    return ops.sqrt(of_outputs * of_inputs) * (1 + unit * math.prod(kernel.shape[:2]))
