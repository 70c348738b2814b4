"""Phases of an axis: the positions p = q·s + r with the same r, in integer arithmetic alone.

Along one axis, output j of the forward reads input position j·s + t·d − before with weight K[t]. The adjoint therefore
collects x[p − before] = Σ_j Σ_t [j·s + t·d = p] K[t] y[j]. Write the position as p = q·s + r with a block q and a phase
r < s. Only taps with t·d ≡ r (mod s) meet it, so that

    x[q·s + r − before] = Σ_t [t·d ≡ r] K[t] y[q − (t·d − r) / s].

If t₀ is the first of those taps, the others are t₀ + m·s/g with g = gcd(s, d), and each reads y another d/g earlier. For
every phase this is a stride-1 convolution over q.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Blocks:
    """The blocks q that cover an axis: `count` of them from `first` on; x begins at `position` of the first one."""

    first: int
    count: int
    position: int


def blocks_of(axis):
    """The `Blocks` of an `Axis`."""
    first = axis.before // axis.stride
    count = (axis.before + axis.size - 1) // axis.stride - first + 1
    return Blocks(first, count, axis.before - first * axis.stride)


@dataclass(frozen=True)
class Phase:
    """The taps of one phase: number m < `taps` is tap `tap` + m·`step` and reads y[q − `shift` − m·`spacing`]."""

    tap: int
    step: int
    taps: int
    shift: int
    spacing: int

    @property
    def cut(self):
        """The slice of the kernel's axis that holds the taps."""
        return slice(self.tap, None, self.step)

    def window(self, blocks):
        """(start, length) of what the phase reads of y."""
        span = (self.taps - 1) * self.spacing
        return blocks.first - self.shift - span, blocks.count + span


def phases_of(axis):
    """One `Phase` for every r < s, `None` where no tap meets it."""
    divisor = math.gcd(axis.stride, axis.dilation)
    step = axis.stride // divisor
    phases = []
    for phase in range(axis.stride):
        tap = next((t for t in range(min(step, axis.taps)) if (t * axis.dilation - phase) % axis.stride == 0), None)
        if tap is None:
            phases.append(None)
            continue
        taps = -(-(axis.taps - tap) // step)
        shift = (tap * axis.dilation - phase) // axis.stride
        phases.append(Phase(tap, step, taps, shift, axis.dilation // divisor))
    return phases
