"""The adjoint as one matrix product and a sum: every output is spread to all the inputs that it was made from.

The product y Kᵀ gives each output its column: what it contributes to every position within its reach. With taps
t = r + u·s, block q collects the columns of the outputs q − u:

    x[q·s + r − before] = Σ_u column[q − u, r + u·s].

Where no two outputs meet, taps ≤ stride, there is one u and no sum: the adjoint is a matrix product, put in order.
It needs room for the columns, and pays where the forward has few channels or does not overlap.
"""

import itertools
import math

from keras import ops

from keras_adjoint.lowerings.interleave import interleave
from keras_adjoint.lowerings.polyphase import blocks_of
from keras_adjoint.lowerings.table import Work
from keras_adjoint.window import window

MOST_SHIFTS = 128


def fits(problem):
    """Convolutions without groups and dilation, with a sum that is not too long to write out."""
    convolution = problem.convolution
    plain = convolution.groups == 1 and all(axis.dilation == 1 for axis in convolution.axes)
    return plain and problem.taps_per_phase <= MOST_SHIFTS


def apply(y, kernel, convolution):
    """Aᵀ y for `y` of shape `(batch, *outputs, filters)` and `kernel` of shape `(*taps, channels, filters)`."""
    axes = convolution.axes
    *taps, channels, filters = map(int, kernel.shape)
    rank = len(axes)
    outputs = ops.shape(y)[1:-1]
    columns = ops.reshape(y, (-1, filters)) @ ops.transpose(ops.reshape(kernel, (-1, filters)))
    columns = ops.reshape(columns, (-1, *outputs, *taps, channels))
    behind = [-size % axis.stride for axis, size in zip(axes, taps, strict=True)]
    if any(behind):
        columns = ops.pad(columns, [(0, 0)] * (1 + rank) + [(0, extra) for extra in behind] + [(0, 0)])
        taps = [size + extra for size, extra in zip(taps, behind, strict=True)]
    blocks = [blocks_of(axis) for axis in axes]
    total = None
    for shifts in itertools.product(*(range(size // axis.stride) for axis, size in zip(axes, taps, strict=True))):
        part = [slice(u * axis.stride, (u + 1) * axis.stride) for u, axis in zip(shifts, axes, strict=True)]
        part = columns[(slice(None),) * (1 + rank) + tuple(part)]
        starts = [block.first - u for u, block in zip(shifts, blocks, strict=True)]
        part = window(part, starts, [block.count for block in blocks])
        total = part if total is None else total + part
    total = ops.reshape(
        total, (-1, *(block.count for block in blocks), math.prod(convolution.each("stride")) * channels)
    )
    return interleave(total, convolution)


def work(problem):
    """One product; the columns are written and read."""
    rows = problem.samples * problem.positions("outputs")
    width = problem.positions("taps") * problem.channels
    columns = rows * problem.taps_per_phase * problem.positions("stride") * problem.channels
    elements = 2 * columns + 2 * problem.inputs
    return Work(rows, problem.filters, width, elements, calls=problem.taps_per_phase, room=columns + problem.inputs)
