"""Phases of an axis, the positions p = q·s + r with the same r: their taps, their convolutions, and how they interleave.

Along one axis, output j of the forward reads input position j·s + t·d − before with weight K[t], where `before` zeros are in
front of the input. The adjoint therefore collects x[p − before] = Σ_j Σ_t [j·s + t·d = p] K[t] y[j]. Write the position as
p = q·s + r with a block q and a phase r < s. Only taps with t·d ≡ r (mod s) meet it, so that

    x[q·s + r − before] = Σ_t [t·d ≡ r] K[t] y[q − (t·d − r) / s].

If t₀ is the first of those taps, the others are t₀ + m·s/g with g = gcd(s, d), and each reads y another d/g earlier. For
every phase this is a stride-1 convolution over q.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

from keras import ops

from keras_adjoint.ops import Size, Tensor
from keras_adjoint.ops.backend import current
from keras_adjoint.ops.geometry import Axis, Convolution
from keras_adjoint.ops.window import window


@dataclass(frozen=True)
class Blocks:
    """The blocks q that cover an axis: `count` of them from `first` on; x begins at `position` of the first one."""

    first: Size
    count: Size
    position: Size


def blocks_of(axis: Axis) -> Blocks:
    """The `Blocks` of an `Axis`."""
    first = axis.pad_before // axis.stride
    count = (axis.pad_before + axis.size - 1) // axis.stride - first + 1
    return Blocks(first, count, axis.pad_before - first * axis.stride)


@dataclass(frozen=True)
class Phase:
    """The taps of one phase: number m < `taps` is tap `tap` + m·`step` and reads y[q − `shift` − m·`spacing`]."""

    tap: int
    step: int
    taps: int
    shift: int
    spacing: int

    @property
    def cut(self) -> slice:
        """The slice of the kernel's axis that holds the taps."""
        return slice(self.tap, None, self.step)

    def window(self, blocks: Blocks) -> tuple[Size, Size]:
        """(start, length) of what the phase reads of y."""
        span = (self.taps - 1) * self.spacing
        return blocks.first - self.shift - span, blocks.count + span


def phase_count(axis: Axis) -> int:
    """How many phases there are up to the last one that a tap meets: fewer than s where the kernel is shorter."""
    return min(axis.stride, axis.dilated_taps)


def phases_of(axis: Axis) -> list[Phase | None]:
    """One `Phase` for every r < `phase_count`, `None` where no tap meets it."""
    divisor = math.gcd(axis.stride, axis.dilation)
    step = axis.stride // divisor
    phases: list[Phase | None] = []
    for phase in range(phase_count(axis)):
        tap = next((t for t in range(min(step, axis.taps)) if (t * axis.dilation - phase) % axis.stride == 0), None)
        if tap is None:
            phases.append(None)
            continue
        taps = -(-(axis.taps - tap) // step)
        shift = (tap * axis.dilation - phase) // axis.stride
        phases.append(Phase(tap, step, taps, shift, axis.dilation // divisor))
    return phases


def correlate(
    x: Tensor, kernel: Tensor, starts: Sequence[Size], lengths: Sequence[Size], dilation: Sequence[int]
) -> Tensor:
    """A stride-1 convolution over a window of `x`, grouped where the kernel has fewer input channels than `x`.

    Args:
        x: Tensor of shape `(batch, *sizes, channels)`, zero-extended in both directions.
        kernel: Tensor of shape `(*taps, channels / groups, filters)`.
        starts: The first position to read, one per axis.
        lengths: The number of positions to read, one per axis.
        dilation: One distance between taps per axis.

    Returns:
        A tensor of shape `(batch, *(lengths − (taps − 1) · dilation), filters)`.
    """
    pads = pads_of(starts, lengths, ops.shape(x)[1:-1])
    return current().convolve(x, kernel, pads, (1,) * len(pads), dilation)


def pads_of(starts: Sequence[Size], lengths: Sequence[Size], sizes: Sequence[Size]) -> tuple[tuple[Size, Size], ...]:
    """Zeros (before, after) of axes of `sizes` that are read from `starts` on; negative for what is not read."""
    windows = zip(starts, lengths, sizes, strict=True)
    return tuple((-start, start + length - size) for start, length, size in windows)


def join(phases: Sequence[Tensor | None], convolution: Convolution) -> Tensor:
    """Interleave those of `phases_of`, each `(batch, *blocks, channels)`, or `None` where no tap meets it."""
    like = next(phase for phase in phases if phase is not None)
    tensors = [ops.zeros_like(like) if phase is None else phase for phase in phases]
    together = ops.concatenate(tensors, axis=-1) if len(tensors) > 1 else like
    return interleave(together, convolution, present=tuple(map(phase_count, convolution.axes)))


def interleave(
    phases: Tensor, convolution: Convolution, groups: int = 1, present: tuple[int, ...] | None = None
) -> Tensor:
    """Put phases that lie side by side in the channels where they belong, see `interleaving`."""
    return interleaving(convolution, groups, present)(phases)


def interleaving(
    convolution: Convolution, groups: int = 1, present: tuple[int, ...] | None = None
) -> Callable[[Tensor], Tensor]:
    """The function that puts phases side by side in the channels where they belong.

    It takes a tensor of shape `(batch, *blocks, groups·∏present·channels/groups)` to one of shape `(batch, *sizes, channels)`.

    Args:
        convolution: The forward's geometry.
        groups: What leads in the channels, ahead of the phases.
        present: How many phases per axis there are, from the first one on; by default all s. The others are zero.
    """
    blocks = [blocks_of(axis) for axis in convolution.axes]
    counts, positions = [block.count for block in blocks], [block.position for block in blocks]
    strides, sizes = convolution.each("stride"), convolution.each("size")
    rank, present = len(strides), present or strides
    phases = math.prod(present)
    order = (*chain(*((i, 1 + rank + i) for i in range(rank))), rank, 1 + 2 * rank)
    # One axis at a time: backends cannot pad rank 8.
    padded = [
        (number, stride, math.prod(counts[axis + 1 :]) * math.prod(present[axis + 1 :]))
        for axis, (stride, number) in enumerate(zip(strides, present, strict=True))
        if number < stride
    ]
    covered = [count * stride for count, stride in zip(counts, strides, strict=True)]
    is_strided = any(stride > 1 for stride in strides)
    cut = cropped(positions, sizes, covered) if convolution.is_known else None

    def interleaved(x: Tensor) -> Tensor:
        if is_strided:
            size = x.shape[-1]
            channels = (size if type(size) is int else current().known_size(size)) // phases
            # The first axis of blocks follows the batch before and after, so that the two move as one.
            x = ops.reshape(x, (-1, *counts[1:], groups, *present, channels // groups))
            x = ops.transpose(x, order)
            for number, stride, inner in padded:
                x = ops.reshape(x, (-1, number, inner * channels))
                x = ops.pad(x, [(0, 0), (0, stride - number), (0, 0)])
            x = ops.reshape(x, (-1, *covered, channels))
        if cut is None:
            return window(x, positions, sizes)
        return x[cut] if cut else x

    return interleaved


def cropped(starts: Sequence[int], lengths: Sequence[int], sizes: Sequence[int]) -> tuple[slice, ...]:
    """The slices that cut windows out of axes of `sizes`, after the first axis; none where nothing is cut off."""
    if not any(starts) and list(lengths) == list(sizes):
        return ()
    return (slice(None), *(slice(start, start + length) for start, length in zip(starts, lengths, strict=True)))
