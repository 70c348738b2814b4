"""The adjoint at stride s as one stride-1 convolution to s phases, which are then interleaved.

Along one axis, output j of the forward reads input position j·s + t − before with weight K[t]. The adjoint therefore
collects x[p − before] = Σ_j Σ_t [j·s + t = p] K[t] y[j]. Write the position as p = q·s + r with a phase r < s. Only
the taps t = r + u·s can meet it, from the outputs j = q − u, so that

    x[q·s + r − before] = Σ_u K[r + u·s] y[q − u].

For every phase this is a stride-1 convolution over q with the phase's own taps, last tap first. All phases share one
window of y, hence one convolution with s times the filters. At stride 1 there is one phase, it is the flipped
convolution, and the taps may be any distance apart.
"""

import math
from dataclasses import dataclass
from itertools import chain

from keras import ops

from keras_adjoint.lowerings.correlate import correlate
from keras_adjoint.lowerings.window import window


def fits(convolution):
    """A dilated tap would meet the phases out of step; along an axis of stride 1 there is nothing to meet."""
    return all(axis.stride == 1 or axis.dilation == 1 for axis in convolution.axes)


@dataclass(frozen=True)
class Plan:
    """Per axis: the window of y to read, the blocks q that come out, and the first position wanted of those."""

    starts: tuple
    lengths: tuple
    steps: tuple
    firsts: tuple
    dilation: tuple


def plan(convolution):
    """The windows of the stride-1 convolution."""
    rows = []
    for axis in convolution.axes:
        spacing = axis.dilation if axis.stride == 1 else 1
        taps_beyond_one = (-(-axis.taps // axis.stride) - 1) * spacing
        first = axis.before // axis.stride
        steps = (axis.before + axis.size - 1) // axis.stride - first + 1
        position = axis.before - first * axis.stride
        rows.append((first - taps_beyond_one, steps + taps_beyond_one, steps, position, spacing))
    return Plan(*zip(*rows, strict=True))


def apply(y, kernel, convolution):
    """Aᵀ y for `y` of shape `(batch, *outputs, filters)` and `kernel` of shape `(*taps, channels / groups, filters)`."""
    axes, groups = convolution.axes, convolution.groups
    wanted = plan(convolution)
    y = window(y, wanted.starts, wanted.lengths)
    phases = correlate(y, phase_kernel(kernel, convolution), wanted.dilation)
    x = interleave(phases, wanted.steps, [axis.stride for axis in axes], int(kernel.shape[-2]) * groups, groups)
    return window(x, wanted.firsts, [axis.size for axis in axes])


def phase_kernel(kernel, convolution):
    """The kernel of the convolution to all phases, of shape `(*taps of a phase, filters / groups, groups·∏s·channels)`.

    Keras numbers the filters of a grouped convolution group by group, so that the group leads in both channel axes.
    """
    axes, groups = convolution.axes, convolution.groups
    rank = len(axes)
    *taps, channels, filters = map(int, kernel.shape)
    behind = [-size % axis.stride for axis, size in zip(axes, taps, strict=True)]
    if any(behind):
        kernel = ops.pad(kernel, [(0, extra) for extra in behind] + [(0, 0), (0, 0)])
    split = [((size + extra) // axis.stride, axis.stride) for axis, size, extra in zip(axes, taps, behind, strict=True)]
    kernel = last_tap_first(kernel, split)
    kernel = ops.reshape(kernel, (*chain(*split), channels, groups, filters // groups))
    order = (*range(0, 2 * rank, 2), 2 * rank + 2, 2 * rank + 1, *range(1, 2 * rank, 2), 2 * rank)
    kernel = ops.transpose(kernel, order)
    return ops.reshape(kernel, (*(taps for taps, _ in split), filters // groups, -1))


def last_tap_first(kernel, split):
    """Reverse the taps of every phase, but not the phases. One axis at a time: TensorFlow reverses up to 8 axes."""
    shape = tuple(map(int, kernel.shape))
    for axis, (taps, phases) in enumerate(split):
        if taps > 1:
            kernel = ops.reshape(kernel, (math.prod(shape[:axis]), taps, phases, math.prod(shape[axis + 1 :])))
            kernel = ops.reshape(ops.flip(kernel, axis=1), shape)
    return kernel


def interleave(phases, steps, strides, channels, groups=1):
    """Phases side by side in the channels, `(batch, *steps, groups·∏s·channels/groups)`, to `(batch, *steps·s, channels)`."""
    rank = len(strides)
    if all(stride == 1 for stride in strides):
        return phases
    # The first axis of blocks follows the batch before and after, so that the two move as one.
    x = ops.reshape(phases, (-1, *steps[1:], groups, *strides, channels // groups))
    pairs = [(i, 1 + rank + i) for i in range(rank)]
    x = ops.transpose(x, (*chain(*pairs), rank, 1 + 2 * rank))
    return ops.reshape(x, (-1, *(step * stride for step, stride in zip(steps, strides, strict=True)), channels))
