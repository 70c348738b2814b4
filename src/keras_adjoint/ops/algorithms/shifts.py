"""The adjoint as a sum over taps: each moves y by its own distance and multiplies it with its own matrix.

For every phase (see `polyphase`), x[q·s + r − before] = Σ_t K[t] y[q − shift(t)]. A tap of a dense kernel is a matrix,
that of a grouped one a matrix per group, that of a depthwise one a number per channel; for the last, a compiler that
fuses makes one pass over memory of the whole sum.
"""

import itertools
import math

from keras import ops

from keras_adjoint.ops.algorithms.accumulate import accumulate_in_float32
from keras_adjoint.ops.algorithms.groups import groups_to_samples, samples_to_groups
from keras_adjoint.ops.algorithms.interleave import join
from keras_adjoint.ops.algorithms.polyphase import blocks_of, phases_of
from keras_adjoint.ops.algorithms.problem import Work
from keras_adjoint.ops.backend import current, sum_unrolled
from keras_adjoint.ops.geometry import is_known
from keras_adjoint.ops.window import window

MOST_TAPS = 128


def fits(problem):
    """Kernels that are not too long to write out."""
    return problem.positions("taps") <= MOST_TAPS


@accumulate_in_float32
def apply(y, kernel, convolution):
    """Aᵀ y for `y` of shape `(batch, *outputs, filters)` and `kernel` of shape `(*taps, channels / groups, filters)`."""
    groups = convolution.groups
    if groups == 1:
        return sum_over_taps(y, times_matrix(kernel), current().sum_sequential, convolution)
    if tuple(map(int, kernel.shape[-2:])) == (1, groups):
        return sum_over_taps(y, times_numbers(kernel), sum_unrolled, convolution)  # which a compiler fuses
    y = groups_to_samples(y, groups)
    x = sum_over_taps(y, times_matrices(kernel, groups), current().sum_sequential, convolution)
    return samples_to_groups(x, groups)


def sum_over_taps(y, multiply, add_up, convolution):
    """Every phase, and what they are together."""
    blocks = [blocks_of(axis) for axis in convolution.axes]
    phases = [
        one_phase(y, multiply, add_up, convolution, blocks, phase)
        for phase in itertools.product(*map(phases_of, convolution.axes))
    ]
    return join(phases, convolution)


def one_phase(y, multiply, add_up, convolution, blocks, phase):
    """The sum over the taps of one phase, of shape `(batch, *blocks, channels)`, or `None` if it has none."""
    if any(along is None for along in phase):
        return None
    windows = [along.window(block) for along, block in zip(phase, blocks, strict=True)]
    read = window(y, *zip(*windows, strict=True))
    counts = [block.count for block in blocks]
    return add_up(lambda y, tap, *starts: multiply(cut(y, starts, counts), tap), read, moves(convolution, phase))


def cut(x, starts, lengths):
    """A part of `x` along its spatial axes, which may start where only the running program knows."""
    if all(map(is_known, starts)):
        return x[(slice(None), *(slice(start, start + length) for start, length in zip(starts, lengths, strict=True)))]
    batch, *_, channels = ops.shape(x)
    return ops.slice(x, (0, *starts, 0), (batch, *lengths, channels))


def moves(convolution, phase):
    """For every tap of a phase: its number in the whole kernel, and where in the window it begins to read."""
    found = []
    for numbers in itertools.product(*(range(along.taps) for along in phase)):
        tap, starts = 0, []
        for number, along, axis in zip(numbers, phase, convolution.axes, strict=True):
            tap = tap * axis.taps + along.tap + number * along.step
            starts.append((along.taps - 1 - number) * along.spacing)
        found.append((tap, *starts))
    return found


def times_matrix(kernel):
    """`multiply(y, tap)`: y times the transpose of one tap of a dense kernel."""
    taps = ops.reshape(kernel, (-1, *kernel.shape[-2:]))
    return lambda y, tap: y @ ops.transpose(taps[tap])


def times_numbers(kernel):
    """The same for a depthwise kernel."""
    taps = ops.reshape(kernel, (-1, kernel.shape[-1]))
    return lambda y, tap: y * taps[tap]


def times_matrices(kernel, groups):
    """The same for a grouped kernel, where the groups of y are samples of their own."""
    *_, channels, filters = map(int, kernel.shape)
    taps = ops.reshape(kernel, (-1, channels, groups, filters // groups))

    def multiply(y, tap):
        _, *sizes, depth = ops.shape(y)
        # Tap by tap, for a long kernel is many times as large as y, and so would be one with its groups in front.
        matrices = ops.transpose(taps[tap], (1, 2, 0))
        return ops.reshape(ops.reshape(y, (groups, -1, depth)) @ matrices, (-1, *sizes, channels))

    return multiply


def work(problem):
    """A product per tap, which is added to x; the groups of a kernel are brought to the front."""
    channels, filters = problem.group
    taps = problem.positions("taps")
    added = taps * problem.inputs // problem.positions("stride")
    moved = 2 * problem.kernel if problem.kind == "grouped" else 0  # a plain matrix is read as it lies
    repeats = taps * problem.convolution.groups
    # Depthwise terms are fused. A matrix product needs its window of y cut out, and a compiler may do so for all phases first.
    windows = 1 if problem.group == (1, 1) else 2 * math.prod([min(a.stride, a.taps) for a in problem.convolution.axes])
    workspace = 2 * problem.inputs + windows * problem.outputs
    return Work(problem.blocks, filters, channels, added + moved, calls=taps, repeats=repeats, workspace=workspace)
