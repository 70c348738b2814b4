"""The adjoint as one matrix product and a sum: every output is spread to all the inputs that it was made from.

The product y Kᵀ gives each output its column: what it contributes to every position that its taps read. With taps
t = r + u·s, block q collects the columns of the outputs q − u:

    x[q·s + r − before] = Σ_u column[q − u, r + u·s].

Where no two outputs meet, taps ≤ stride, there is one u and no sum: the adjoint is a matrix product, put in order.
It needs workspace for the columns, and pays where the forward has few channels or does not overlap. `fold` leaves the sum to
the backend's own operation, for which every tap and channel of the columns is a plane of its own.
"""

import itertools
import math
from collections.abc import Sequence

from keras import ops

from keras_adjoint.ops import Tensor
from keras_adjoint.ops.algorithms.polyphase import blocks_of, interleave
from keras_adjoint.ops.algorithms.problem import Problem, Work
from keras_adjoint.ops.backend import current
from keras_adjoint.ops.backend.protocol import Adjoint
from keras_adjoint.ops.geometry import Convolution
from keras_adjoint.ops.precision import accumulate_in_float32
from keras_adjoint.ops.window import window

MAX_SHIFTS = 128


def fits(problem: Problem) -> bool:
    """Convolutions without groups and dilation, with a sum that is not too long to unroll."""
    convolution = problem.convolution
    plain = convolution.groups == 1 and all(axis.dilation == 1 for axis in convolution.axes)
    return plain and problem.taps_per_phase <= MAX_SHIFTS


def prepare(convolution: Convolution) -> Adjoint:
    """The function (y, kernel) ↦ Aᵀ y."""
    return lambda y, kernel: apply(y, kernel, convolution)


@accumulate_in_float32
def apply(y: Tensor, kernel: Tensor, convolution: Convolution) -> Tensor:
    """Aᵀ y for `y` of shape `(batch, *outputs, filters)` and `kernel` of shape `(*taps, channels, filters)`."""
    axes = convolution.axes
    channels, filters = current().fixed_shape(kernel)[-2:]
    blocks = [blocks_of(axis) for axis in axes]
    counts = [block.count for block in blocks]
    shifts, present = shifts_of(convolution), phases_present(convolution)
    width = math.prod(present) * channels
    columns = ops.reshape(y, (-1, filters)) @ ops.transpose(matrix_of(kernel, shifts, present))
    columns = ops.reshape(columns, (-1, *ops.shape(y)[1:-1], math.prod(shifts) * width))
    total = None
    for number, shift in enumerate(itertools.product(*map(range, shifts))):
        part = columns[..., number * width : (number + 1) * width]
        part = window(part, [block.first - u for u, block in zip(shift, blocks, strict=True)], counts)
        total = part if total is None else total + part
    return interleave(total, convolution, present=present)


def shifts_of(convolution: Convolution) -> tuple[int, ...]:
    """How many outputs meet at one position, along every axis."""
    return tuple(-(-axis.taps // axis.stride) for axis in convolution.axes)


def phases_present(convolution: Convolution) -> tuple[int, ...]:
    """How many phases some tap meets, along every axis."""
    return tuple(min(axis.taps, axis.stride) for axis in convolution.axes)


def matrix_of(kernel: Tensor, shifts: Sequence[int], present: Sequence[int]) -> Tensor:
    """The kernel with rows in the order (shifts, phases, channels), so that the part of one shift is contiguous."""
    *taps, channels, filters = current().fixed_shape(kernel)
    rank = len(taps)
    missing = [u * phases - size for u, phases, size in zip(shifts, present, taps, strict=True)]
    if any(missing):
        kernel = ops.pad(kernel, [*((0, zeros) for zeros in missing), (0, 0), (0, 0)])
    kernel = ops.reshape(kernel, (*itertools.chain(*zip(shifts, present, strict=True)), channels, filters))
    order = (*range(0, 2 * rank, 2), *range(1, 2 * rank, 2), 2 * rank, 2 * rank + 1)
    return ops.reshape(ops.transpose(kernel, order), (-1, filters))


def work(problem: Problem) -> Work:
    """One product; the columns are written and read."""
    convolution = problem.convolution
    rows = problem.samples * problem.positions("outputs")
    width = math.prod(shifts_of(convolution)) * math.prod(phases_present(convolution)) * problem.channels
    elements = 2 * rows * width + 2 * problem.inputs
    return Work(
        rows, problem.filters, width, elements, calls=problem.taps_per_phase, workspace=rows * width + problem.inputs
    )


def fits_fold(problem: Problem) -> bool:
    """Convolutions without groups, along as many axes as the backend folds."""
    return problem.convolution.groups == 1 and len(problem.convolution.axes) in current().FOLDED_RANKS


def prepare_fold(convolution: Convolution) -> Adjoint:
    """The function (y, kernel) ↦ Aᵀ y by the backend's own `fold`."""
    return lambda y, kernel: apply_fold(y, kernel, convolution)


@accumulate_in_float32
def apply_fold(y: Tensor, kernel: Tensor, convolution: Convolution) -> Tensor:
    """The same as `apply`, with the backend's own `fold`."""
    *taps, _, filters = current().fixed_shape(kernel)
    rank = len(taps)
    matrix = ops.reshape(ops.transpose(kernel, (rank, *range(rank), rank + 1)), (-1, filters))
    batch, *outputs, _ = ops.shape(y)
    # Not -1, which an empty batch does not determine.
    planes = ops.transpose(ops.reshape(y, (batch, math.prod(outputs), filters)), (0, 2, 1))
    return current().fold(matrix @ planes, convolution)
