"""A bound of a convolution's norm: the largest norm of its symbol (see `symbol`), or a bound by absolute values."""

import math
from collections.abc import Callable
from functools import lru_cache

import keras
from keras import ops

from keras_adjoint.operators.eigenvalues import largest_eigenvalue_bound, scaled
from keras_adjoint.operators.symbol import grids_of
from keras_adjoint.operators.symbol_blocks import gram_at, grids_for, kernel_by_groups, symbol_peak, waves_at
from keras_adjoint.ops import Tensor
from keras_adjoint.ops.backend import current
from keras_adjoint.ops.geometry import Convolution
from keras_adjoint.ops.precision import epsilon


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
    kernel, scale = scaled(kernel_by_groups(kernel, convolution))
    one, other = _by_symbol(kernel, convolution), _by_absolute_values(kernel, convolution)
    return scale * ops.where(one < other, one, other)  # PyTorch takes a `minimum` of float64 in float32


def _by_symbol(kernel: Tensor, convolution: Convolution) -> Tensor:
    taps, channels, _, filters = map(int, kernel.shape)
    grids = grids_for(kernel, convolution)
    squared_peak, deciding = _peak_of(convolution, channels, filters)(ops.stop_gradient(kernel))

    # The derivative is that of the one value which is the largest.
    there = waves_at(grids[0], deciding[None])
    alone = kernel
    if convolution.groups > 1:
        group = ops.argmax(largest_eigenvalue_bound(*gram_at(ops.stop_gradient(kernel), there))[0], axis=0)
        alone = kernel[:, :, group][:, :, None]
    block = largest_eigenvalue_bound(*gram_at(alone, there))[0, 0]
    squared = block * ops.stop_gradient(squared_peak / ops.where(block > _TINY, block, _TINY))

    # A sum of n products errs by n units of the sum of their absolute values, and the angle of a wave by as many as it has
    # radians. F is a sum over the taps; the errors of its Gram matrix, and of the squares of that, are relative to Frobenius
    # norms, which are at most √rows times the norm.
    rows, depth = sorted((len(grids[0].is_at_phase) * channels, filters))
    unit = epsilon(keras.backend.standardize_dtype(kernel.dtype))
    radians = 2 * math.pi * float(grids[0].steps.sum(axis=0).max())
    of_symbol = taps**0.5 * (taps + radians) * unit * ops.sqrt(ops.sum(ops.square(kernel)))
    return ops.sqrt(squared) * (1 + unit * rows * (depth + rows**0.5)) + of_symbol


_TINY = 1e-30


@lru_cache(256)
def _peak_of(convolution: Convolution, channels: int, filters: int) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """The squared peak of the symbol and where it is, as a function of a kernel by groups, without a derivative.

    JAX would compile each of its many operations by itself.
    """
    grids = list(grids_of(convolution, channels, filters))

    def peak(kernel: Tensor) -> tuple[Tensor, Tensor]:
        found = symbol_peak(kernel, grids)
        return found.squared, found.deciding

    return current().in_one(peak)


def _by_absolute_values(kernel: Tensor, convolution: Convolution) -> Tensor:
    """√(‖A‖₁‖A‖∞): of the taps, those at one phase reach one input."""
    at_phase = ops.convert_to_tensor(grids_of(convolution)[0].is_at_phase, kernel.dtype)
    absolute = ops.abs(kernel)
    of_outputs = ops.max(ops.sum(absolute, axis=(0, 1)))
    of_inputs = ops.max(ops.einsum("pt,tcg->pcg", at_phase, ops.sum(absolute, axis=3)))
    unit = epsilon(keras.backend.standardize_dtype(kernel.dtype))
    return ops.sqrt(of_outputs * of_inputs) * (1 + unit * math.prod(kernel.shape[:2]))
