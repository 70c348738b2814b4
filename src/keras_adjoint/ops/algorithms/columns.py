"""The adjoint as one matrix product and a sum: every output is spread to all the inputs that it was made from.

The product y Kᵀ gives each output its column: what it contributes to every position within its reach. With taps
t = r + u·s, block q collects the columns of the outputs q − u:

    x[q·s + r − before] = Σ_u column[q − u, r + u·s].

Where no two outputs meet, taps ≤ stride, there is one u and no sum: the adjoint is a matrix product, put in order.
It needs workspace for the columns, and pays where the forward has few channels or does not overlap.
"""

import itertools
import math

from keras import ops

from keras_adjoint.ops.algorithms.accumulate import accumulate_in_float32
from keras_adjoint.ops.algorithms.interleave import interleave
from keras_adjoint.ops.algorithms.polyphase import blocks_of
from keras_adjoint.ops.algorithms.problem import Work
from keras_adjoint.ops.window import window

MAX_SHIFTS = 128


def fits(problem):
    """Convolutions without groups and dilation, with a sum that is not too long to write out."""
    convolution = problem.convolution
    plain = convolution.groups == 1 and all(axis.dilation == 1 for axis in convolution.axes)
    return plain and problem.taps_per_phase <= MAX_SHIFTS


@accumulate_in_float32
def apply(y, kernel, convolution):
    """Aᵀ y for `y` of shape `(batch, *outputs, filters)` and `kernel` of shape `(*taps, channels, filters)`."""
    axes = convolution.axes
    channels, filters = map(int, kernel.shape[-2:])
    blocks = [blocks_of(axis) for axis in axes]
    counts = [block.count for block in blocks]
    shifts, present = shifts_of(convolution), phases_of(convolution)
    width = math.prod(present) * channels
    columns = ops.reshape(y, (-1, filters)) @ ops.transpose(matrix_of(kernel, shifts, present))
    columns = ops.reshape(columns, (-1, *ops.shape(y)[1:-1], math.prod(shifts) * width))
    total = None
    for number, shift in enumerate(itertools.product(*map(range, shifts))):
        part = columns[..., number * width : (number + 1) * width]
        part = window(part, [block.first - u for u, block in zip(shift, blocks, strict=True)], counts)
        total = part if total is None else total + part
    return interleave(total, convolution, present=present)


def shifts_of(convolution):
    """How many outputs meet at one position, along every axis."""
    return tuple(-(-axis.taps // axis.stride) for axis in convolution.axes)


def phases_of(convolution):
    """How many phases some tap meets, along every axis."""
    return tuple(min(axis.taps, axis.stride) for axis in convolution.axes)


def matrix_of(kernel, shifts, present):
    """The kernel with rows in the order (shifts, phases, channels), so that what one shift adds lies together."""
    *taps, channels, filters = map(int, kernel.shape)
    rank = len(taps)
    behind = [u * phases - size for u, phases, size in zip(shifts, present, taps, strict=True)]
    if any(behind):
        kernel = ops.pad(kernel, [*((0, zeros) for zeros in behind), (0, 0), (0, 0)])
    kernel = ops.reshape(kernel, (*itertools.chain(*zip(shifts, present, strict=True)), channels, filters))
    order = (*range(0, 2 * rank, 2), *range(1, 2 * rank, 2), 2 * rank, 2 * rank + 1)
    return ops.reshape(ops.transpose(kernel, order), (-1, filters))


def work(problem):
    """One product; the columns are written and read."""
    convolution = problem.convolution
    rows = problem.samples * problem.positions("outputs")
    width = math.prod(shifts_of(convolution)) * math.prod(phases_of(convolution)) * problem.channels
    elements = 2 * rows * width + 2 * problem.inputs
    return Work(
        rows, problem.filters, width, elements, calls=problem.taps_per_phase, workspace=rows * width + problem.inputs
    )
