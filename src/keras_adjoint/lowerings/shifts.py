"""The adjoint as a sum over taps: each moves y by its own distance and multiplies it with its own matrix.

For every phase (see `polyphase`), x[q·s + r − before] = Σ_t K[t] y[q − shift(t)]. A tap of a dense kernel is a matrix,
that of a grouped one a matrix per group, that of a depthwise one a number per channel; for the last, a compiler that
fuses makes one pass over memory of the whole sum.
"""

import itertools

from keras import ops

from keras_adjoint.lowerings.interleave import join
from keras_adjoint.lowerings.polyphase import blocks_of, phases_of
from keras_adjoint.lowerings.precise import summed_in_float32
from keras_adjoint.lowerings.table import Work
from keras_adjoint.window import window

MOST_TAPS = 128


def fits(problem):
    """Kernels that are not too long to write out."""
    return problem.positions("taps") <= MOST_TAPS


@summed_in_float32
def apply(y, kernel, convolution):
    """Aᵀ y for `y` of shape `(batch, *outputs, filters)` and `kernel` of shape `(*taps, channels / groups, filters)`."""
    blocks = [blocks_of(axis) for axis in convolution.axes]
    multiply = multiplication(kernel, convolution.groups)
    phases = [one_phase(y, multiply, blocks, phase) for phase in itertools.product(*map(phases_of, convolution.axes))]
    return join(phases, convolution)


def one_phase(y, multiply, blocks, phase):
    """The sum over the taps of one phase, of shape `(batch, *blocks, channels)`, or `None` if it has none."""
    if any(along is None for along in phase):
        return None
    windows = [along.window(block) for along, block in zip(phase, blocks, strict=True)]
    read = window(y, *zip(*windows, strict=True))
    total = None
    for numbers in itertools.product(*(range(along.taps) for along in phase)):
        tap, cut = [], [slice(None)]
        for number, along, block in zip(numbers, phase, blocks, strict=True):
            tap.append(along.tap + number * along.step)
            start = (along.taps - 1 - number) * along.spacing
            cut.append(slice(start, start + block.count))
        term = multiply(read[tuple(cut)], tuple(tap))
        total = term if total is None else total + term
    return total


def multiplication(kernel, groups):
    """`multiply(y, tap)`: y times the transpose of one tap of the kernel."""
    *taps, channels, filters = map(int, kernel.shape)
    if groups == 1:
        return lambda y, tap: y @ ops.transpose(kernel[tap])
    if channels == 1 and filters == groups:
        return lambda y, tap: y * kernel[(*tap, 0)]

    def multiply(y, tap):
        matrices = ops.transpose(ops.reshape(kernel[tap], (channels, groups, filters // groups)), (1, 2, 0))
        _, *sizes, _ = ops.shape(y)
        y = ops.transpose(ops.reshape(y, (-1, groups, filters // groups)), (1, 0, 2))
        return ops.reshape(ops.transpose(y @ matrices, (1, 0, 2)), (-1, *sizes, groups * channels))

    return multiply


def work(problem):
    """A product per tap, which is added to x."""
    channels, filters = problem.group
    taps = problem.positions("taps")
    added = taps * problem.inputs // problem.positions("stride")
    repeats = taps * problem.convolution.groups
    room = 2 * problem.inputs + problem.outputs
    return Work(problem.blocks, filters, channels, added, calls=taps, repeats=repeats, room=room)
