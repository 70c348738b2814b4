"""The adjoint as one stride-1 convolution per phase (see `polyphase`), which are then interleaved.

Each phase has its own taps, so that nothing is multiplied with zeros, also where the stride does not divide the taps,
and where a stride meets dilation.
"""

import itertools

from keras import ops

from keras_adjoint.ops.algorithms.correlate import correlate
from keras_adjoint.ops.algorithms.interleave import join
from keras_adjoint.ops.algorithms.polyphase import blocks_of, phases_of
from keras_adjoint.ops.algorithms.problem import Work


def fits(problem):
    """Every convolution."""
    return True


def apply(y, kernel, convolution):
    """Aᵀ y for `y` of shape `(batch, *outputs, filters)` and `kernel` of shape `(*taps, channels / groups, filters)`."""
    blocks = [blocks_of(axis) for axis in convolution.axes]
    phases = [
        one_phase(y, kernel, blocks, phase, convolution.groups)
        for phase in itertools.product(*map(phases_of, convolution.axes))
    ]
    return join(phases, convolution)


def one_phase(y, kernel, blocks, phase, groups):
    """The blocks of one phase, of shape `(batch, *blocks, channels)`, or `None` if no tap meets it."""
    if any(along is None for along in phase):
        return None
    starts, lengths = zip(*(along.window(block) for along, block in zip(phase, blocks, strict=True)), strict=True)
    taps = kernel[tuple(along.cut for along in phase)]
    return correlate(y, flipped_kernel(taps, groups), starts, lengths, tuple(along.spacing for along in phase))


def flipped_kernel(kernel, groups):
    """Taps in reverse order and channels exchanged within each group: `(*taps, filters / groups, channels)`."""
    *taps, channels, filters = map(int, kernel.shape)
    rank = len(taps)
    for axis in range(rank):  # one at a time, see `subpixel`
        kernel = ops.flip(kernel, axis=axis) if taps[axis] > 1 else kernel
    kernel = ops.reshape(kernel, (*taps, channels, groups, filters // groups))
    kernel = ops.transpose(kernel, (*range(rank), rank + 2, rank + 1, rank))
    return ops.reshape(kernel, (*taps, filters // groups, groups * channels))


def work(problem):
    """One product per phase, each of which reads y anew; together they meet every tap once."""
    channels, filters = problem.group
    phases = problem.positions("stride")
    depth = max(1, problem.positions("taps") * filters // phases)
    moved = 3 * problem.inputs + phases * problem.outputs + 2 * problem.kernel
    repeats, workspace = phases * problem.convolution.groups, 2 * problem.inputs + problem.outputs
    return Work(problem.blocks, depth, channels, moved, calls=phases, repeats=repeats, workspace=workspace)
