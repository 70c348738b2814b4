"""At which frequencies the norm of a convolution's symbol bounds that of the convolution.

With zeros around its input, a convolution reads positions from −b to e − 1 along an axis, of which 0 to n − 1 hold x. On a
circle of N ≥ max(n + b, e) positions it reads the same numbers, since nothing wraps around onto x. So A = P C E, where E
writes x into the circle, C is the circular convolution, and P picks the outputs, and ‖A‖ ≤ ‖C‖, as E and P have norm 1. C is
diagonal by blocks in the Fourier basis (Sedghi, Gupta and Long 2019, theorem 6). With the s positions between two outputs as
further channels, as a stride of s has them, the blocks are the values of the symbol

    F(ω)[(r, i), o] = Σ_t [t·d mod s = r] K[t, i, o] exp(i ω ⌊t·d / s⌋)

at ω = 2π j s / N, and ‖C‖ is the largest of their norms. Turning the circle by a constant angle per step changes nothing of A,
so that every shifted grid of frequencies gives a bound, and the smallest one is taken.

On large circles the norm is taken from a coarser grid. For a unit vector v, p(ω) = ‖F(ω) v‖² is a trigonometric polynomial of
degree m, the largest ⌊t·d / s⌋, along every axis. Up to π / m to either side of its maximum at ω₀, p(ω) ≥ p(ω₀) cos(m (ω − ω₀))
(M. Riesz 1914), and one of M > 2m equidistant points is within π / M. So, along one axis after the other,

    max p ≤ max over the grid of p · Π 1 / cos(π m / M),

and the maximum over v of both sides bounds ‖F‖² everywhere.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from keras_adjoint.operators.eigenvalues import SQUARINGS
from keras_adjoint.ops.geometry import Axis, Convolution

POINTS_PER_DEGREE = (32, 24, 16, 12, 8)  # of the coarse grid: the norm is exceeded by 0.3 % per axis, or by up to 4 %
MULTIPLY_ADDS = 2**29  # that the norms of all blocks may take, or half as many as a forward if those are more
MOST_BLOCKS = 4096
MOST_SHIFTED = 4096  # frequencies of all shifted grids together


@dataclass(frozen=True)
class Frequencies:
    """Frequencies along one axis, and how far the norm may exceed its largest value at them.

    Attributes:
        values: The frequencies, in radians per step of the circle.
        factor: What ‖F‖² is at most, over its largest value at these.
        phases: Of every tap, its position within a stride.
        steps: Of every tap, its position in strides.
        stride: The stride.
    """

    values: NDArray[np.float64]
    factor: float
    phases: NDArray[np.int64]
    steps: NDArray[np.int64]
    stride: int

    def waves(self) -> NDArray[np.complex128]:
        """exp(i ω ⌊t·d / s⌋) where the tap is at phase r, else 0; of shape (frequencies, phases, taps)."""
        waves = np.exp(1j * np.outer(self.values, self.steps))
        return waves[:, None, :] * (self.phases == np.arange(self.stride)[:, None])[None]


def frequencies_of(axis: Axis, density: int, *, shifted: bool = False) -> Frequencies:
    """The frequencies of one axis: those of its circle, or a coarser grid where that is smaller."""
    last_read = (axis.outputs - 1) * axis.stride + (axis.taps - 1) * axis.dilation - axis.pad_before
    positions = max(axis.size + axis.pad_before, last_read + 1)
    # Positions that are no multiple of both apart are never read together.
    common = math.gcd(axis.stride, axis.dilation)
    stride, dilation = axis.stride // common, axis.dilation // common
    taps = np.arange(axis.taps)
    if stride == 1:  # the positions in between are circles of their own
        phases, steps, circle = 0 * taps, taps, -(-positions // axis.dilation)
    else:
        phases, steps, circle = taps * dilation % stride, taps * dilation // stride, -(-positions // axis.stride)
    degree = int(steps.max())
    count = min(circle, density * degree or 1)
    factor = 1.0 if count == circle or degree == 0 else 1 / math.cos(math.pi * degree / count)
    values = 2 * np.pi * (np.arange(count) + (0.5 if shifted else 0.0)) / count
    return Frequencies(values, factor, phases, steps, stride)


@dataclass(frozen=True)
class Grid:
    """The frequencies of all axes together.

    Attributes:
        waves: `(frequencies, phases, taps)`: the factor of every tap in the symbol.
        factor: What ‖F‖² is at most, over its largest value at these.
    """

    waves: NDArray[np.complex128]
    factor: float


@lru_cache
def grids_of(convolution: Convolution, channels: int = 1, filters: int = 1) -> tuple[Grid, ...]:
    """Grids each of which bounds the norm: unshifted, and where there are few frequencies shifted by half a step as well.

    Args:
        convolution: The geometry.
        channels: Those of a group, which with the filters decide how many frequencies are worth their time.
        filters: Those of a group.
    """
    rows = min(filters, channels * math.prod(axis.stride for axis in convolution.axes))
    forward = channels * filters * math.prod(axis.outputs * axis.taps for axis in convolution.axes)
    for density in POINTS_PER_DEGREE:
        plain = [frequencies_of(axis, density) for axis in convolution.axes]
        blocks = math.prod(len(axis.values) for axis in plain) / 2  # half of them are conjugates
        if blocks <= MOST_BLOCKS and 3 * SQUARINGS * blocks * rows**3 <= max(MULTIPLY_ADDS, forward / 2):
            break
    count = math.prod(len(axis.values) for axis in plain)
    shifts = product(*((False, True) if len(axis.values) > 1 else (False,) for axis in plain))
    every = list(shifts) if count * 2 ** len(plain) <= MOST_SHIFTED else [(False,) * len(plain)]
    pairs = [list(zip(convolution.axes, shifted, strict=True)) for shifted in every]
    return tuple(_grid([frequencies_of(axis, density, shifted=by) for axis, by in pair]) for pair in pairs)


def _grid(axes: list[Frequencies]) -> Grid:
    waves = np.ones((1, 1, 1), complex)
    for axis in axes:
        waves = np.einsum("frt,gsu->fgrstu", waves, axis.waves())
        waves = waves.reshape(math.prod(waves.shape[:2]), math.prod(waves.shape[2:4]), -1)
    values = np.stack(np.meshgrid(*(axis.values for axis in axes), indexing="ij"), -1).reshape(-1, len(axes))
    return Grid(waves[_without_conjugates(values)], math.prod(axis.factor for axis in axes))


def _without_conjugates(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Of every ω and −ω, at which the symbol of a real kernel has the same norm, the first."""
    turns = np.round(values / (2 * np.pi), 9) % 1
    opposite = np.round(-turns, 9) % 1
    keys = {tuple(row): number for number, row in reversed(list(enumerate(turns)))}
    return np.array([keys.get(tuple(row), number) >= number for number, row in enumerate(opposite)])
