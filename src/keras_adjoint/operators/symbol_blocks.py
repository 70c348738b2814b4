"""The blocks of a convolution's symbol (see `symbol`) at given frequencies, and the largest of their norms."""

import math

import numpy as np
from keras import ops

from keras_adjoint.operators.eigenvalues import largest_eigenvalue_bound
from keras_adjoint.operators.refinement import Peak, peak_of
from keras_adjoint.operators.symbol import Grid, grids_of
from keras_adjoint.ops import Tensor
from keras_adjoint.ops.geometry import Convolution

MOST_NUMBERS = 2**24  # of the symbol in memory at once


def kernel_by_groups(kernel: Tensor, convolution: Convolution) -> Tensor:
    """The kernel as a tensor of shape `(taps, channels / groups, groups, filters / groups)`."""
    *taps, channels, filters = map(int, kernel.shape)
    return ops.reshape(kernel, (math.prod(taps), channels, convolution.groups, filters // convolution.groups))


def grids_for(kernel: Tensor, convolution: Convolution) -> tuple[Grid, ...]:
    """The grids of frequencies for a kernel by groups."""
    _, channels, _, filters = map(int, kernel.shape)
    return grids_of(convolution, channels, filters)


def waves_at(grid: Grid, points: Tensor) -> tuple[Tensor, Tensor | None]:
    """exp(i ω ⌊t·d / s⌋) where a tap is at phase r, else 0: real and imaginary part, of shape `(points, phases, taps)`.

    Where the symbol is constant, there is no imaginary part.
    """
    if grid.is_constant:
        is_at_phase = ops.convert_to_tensor(grid.is_at_phase, points.dtype)
        return ops.tile(is_at_phase[None], (points.shape[0], 1, 1)), None
    angles = ops.expand_dims(points @ ops.convert_to_tensor(grid.steps, points.dtype), 1)
    is_at_phase = ops.convert_to_tensor(grid.is_at_phase, points.dtype)
    return ops.cos(angles) * is_at_phase, ops.sin(angles) * is_at_phase


def symbol_at(kernel: Tensor, waves: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
    """The symbol F at each frequency and for each group, of shape `(points, groups, phases · channels, filters)`."""
    count, phases, _ = waves[0].shape
    _, channels, groups, filters = kernel.shape
    shape = (count, phases * channels, groups, filters)
    real, imaginary = (
        None
        if wave is None
        else ops.transpose(ops.reshape(ops.einsum("npt,tcgf->npcgf", wave, kernel), shape), (0, 2, 1, 3))
        for wave in waves
    )
    return real, imaginary


def gram_at(kernel: Tensor, waves: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
    """F Fᴴ or Fᵀ conj(F), the smaller one: real and imaginary part."""
    real, imaginary = symbol_at(kernel, waves)
    is_tall = real.shape[-2] > real.shape[-1]
    real, real_t = (real, ops.swapaxes(real, -1, -2))[:: -1 if is_tall else 1]
    if imaginary is None:
        return real @ real_t, None
    imaginary, imaginary_t = (imaginary, ops.swapaxes(imaginary, -1, -2))[:: -1 if is_tall else 1]
    return real @ real_t + imaginary @ imaginary_t, imaginary @ real_t - real @ imaginary_t


def symbol_peak(kernel: Tensor, grids: list[Grid]) -> Peak:
    """The peak of the symbol by the grid whose bound is smallest."""

    def norms_at(points: Tensor) -> Tensor:
        step = max(1, MOST_NUMBERS // (len(grids[0].is_at_phase) * math.prod(kernel.shape[1:])))
        parts = [points[start : start + step] for start in range(0, points.shape[0], step)]
        found = [largest_eigenvalue_bound(*gram_at(kernel, waves_at(grids[0], part))) for part in parts]
        return ops.max(ops.concatenate(found), axis=1)  # of the groups

    every = norms_at(ops.convert_to_tensor(np.concatenate([grid.values for grid in grids]), kernel.dtype))
    ends = np.cumsum([len(grid.values) for grid in grids])
    peaks = [
        peak_of(grid, every[int(end) - len(grid.values) : int(end)], norms_at)
        for grid, end in zip(grids, ends, strict=True)
    ]
    best = ops.argmin(ops.stack([peak.squared for peak in peaks]), axis=0)
    chosen = (ops.stack([getattr(peak, name) for peak in peaks])[best] for name in ("squared", "deciding", "highest"))
    return Peak(*chosen)
