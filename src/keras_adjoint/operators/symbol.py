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

and the maximum over v of both sides bounds ‖F‖² everywhere. `refinement` brings the grid closer where ‖F‖ is large.
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
MULTIPLY_ADDS = 2**29  # that the norms of all blocks may take, or twice as many as a forward if those are more
MOST_BLOCKS = 4096
MOST_SHIFTED = 4096  # frequencies of all shifted grids together


@dataclass(frozen=True)
class Frequencies:
    """Frequencies along one axis, and how far the norm may exceed its largest value at them.

    Attributes:
        values: The frequencies, in radians per step of the circle.
        is_coarse: Whether they are fewer than those of the circle.
        phases: Of every tap, its position within a stride.
        steps: Of every tap, its position in strides.
        stride: The stride.
        spread: Outputs between two that are on the same circle.
    """

    values: NDArray[np.float64]
    is_coarse: bool
    phases: NDArray[np.int64]
    steps: NDArray[np.int64]
    stride: int
    spread: int

    def factor(self, level: int = 0) -> float:
        """What ‖F‖² is at most, over its largest value at these; or, at a higher level, at points half as far apart each."""
        return 1 / math.cos(math.pi * int(self.steps.max()) / len(self.values) / 2**level) if self.is_coarse else 1.0


def frequencies_of(axis: Axis, density: int, *, shifted: bool = False) -> Frequencies:
    """The frequencies of one axis: those of its circle, or a coarser grid where that is smaller."""
    last_read = (axis.outputs - 1) * axis.stride + (axis.taps - 1) * axis.dilation - axis.pad_before
    positions = max(axis.size + axis.pad_before, last_read + 1)
    # Positions that are no multiple of both apart are never read together.
    common = math.gcd(axis.stride, axis.dilation)
    stride, dilation = axis.stride // common, axis.dilation // common
    taps = np.arange(axis.taps)
    if stride == 1:  # the positions in between are circles of their own
        phases, steps, circle, spread = 0 * taps, taps, -(-positions // axis.dilation), dilation
    else:
        phases, steps, circle = taps * dilation % stride, taps * dilation // stride, -(-positions // axis.stride)
        spread = 1
    degree = int(steps.max())
    count = min(circle, density * degree or 1)
    values = 2 * np.pi * (np.arange(count) + (0.5 if shifted else 0.0)) / count
    return Frequencies(values, degree > 0 and count < circle, phases, steps, stride, spread)


@dataclass(frozen=True)
class Grid:
    """The frequencies of all axes together.

    Attributes:
        axes: The frequencies of each axis.
        values: `(frequencies, axes)`: every combination of them, up to their signs.
        steps: `(axes, taps)`: of every tap, its position in strides.
        is_at_phase: `(phases, taps)`: 1 where a tap is at a phase, else 0. Phases without a tap are left out.
    """

    axes: tuple[Frequencies, ...]
    values: NDArray[np.float64]
    steps: NDArray[np.float64]
    is_at_phase: NDArray[np.float64]

    @property
    def is_coarse(self) -> bool:
        """Whether along some axis the frequencies are fewer than those of the circle."""
        return any(axis.is_coarse for axis in self.axes)

    @property
    def is_constant(self) -> bool:
        """Whether the symbol is the same at all frequencies, and real, since no two taps are read in different strides."""
        return not self.steps.any()

    def factor(self, level: int = 0) -> float:
        """See `Frequencies.factor`."""
        return math.prod(axis.factor(level) for axis in self.axes)


@lru_cache
def grids_of(convolution: Convolution, channels: int = 1, filters: int = 1) -> tuple[Grid, ...]:
    """Grids each of which bounds the norm: unshifted, and where all are as fine as the circle shifted by half a step as well.

    Args:
        convolution: The geometry.
        channels: Those of a group, which with the filters decide how many frequencies are worth their time.
        filters: Those of a group.
    """
    phases = math.prod(len(np.unique(frequencies_of(axis, 1).phases)) for axis in convolution.axes)
    rows = min(filters, channels * phases)
    forward = channels * filters * math.prod(axis.outputs * axis.taps for axis in convolution.axes)
    budget = max(MULTIPLY_ADDS, 2 * forward) / (3 * SQUARINGS * rows**3)  # in blocks
    for density in POINTS_PER_DEGREE:
        plain = [frequencies_of(axis, density) for axis in convolution.axes]
        count = math.prod(len(axis.values) for axis in plain)
        if count / 2 <= min(MOST_BLOCKS, budget):  # half of them are conjugates
            break
    shifts = list(product(*((False, True) if len(axis.values) > 1 else (False,) for axis in plain)))
    is_exact = not any(axis.is_coarse for axis in plain)
    is_cheap = count * len(shifts) <= min(MOST_SHIFTED, 2 * budget)
    every = shifts if is_exact and is_cheap else [(False,) * len(plain)]
    pairs = [list(zip(convolution.axes, shifted, strict=True)) for shifted in every]
    return tuple(_grid(tuple(frequencies_of(axis, density, shifted=by) for axis, by in pair)) for pair in pairs)


def _grid(axes: tuple[Frequencies, ...]) -> Grid:
    every = np.stack(np.meshgrid(*(axis.values for axis in axes), indexing="ij"), -1).reshape(-1, len(axes))
    steps = np.stack(np.meshgrid(*(axis.steps for axis in axes), indexing="ij")).reshape(len(axes), -1)
    at_phase = np.ones((1, 1))
    for axis in axes:
        at_phase = np.kron(at_phase, axis.phases == np.unique(axis.phases)[:, None])
    return Grid(axes, every[_without_conjugates(every)], steps.astype(float), at_phase)


def _without_conjugates(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Of every ω and −ω, at which the symbol of a real kernel has the same norm, the first."""
    turns = np.round(values / (2 * np.pi), 9) % 1
    opposite = np.round(-turns, 9) % 1
    keys = {tuple(row): number for number, row in reversed(list(enumerate(turns)))}
    return np.array([keys.get(tuple(row), number) >= number for number, row in enumerate(opposite)])
