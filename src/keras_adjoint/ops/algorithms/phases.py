"""The adjoint as one stride-1 convolution per phase (see `polyphase`), which are then interleaved.

Each phase has its own taps, so that nothing is multiplied with zeros, also where the stride does not divide the taps,
and where a stride meets dilation.
"""

import itertools
import math
from collections.abc import Sequence

from keras import ops

from keras_adjoint.ops import Tensor
from keras_adjoint.ops.algorithms.polyphase import Blocks, Phase, blocks_of, correlate, join, phase_count, phases_of
from keras_adjoint.ops.algorithms.problem import Problem, Work
from keras_adjoint.ops.backend import current
from keras_adjoint.ops.backend.protocol import Adjoint
from keras_adjoint.ops.geometry import Convolution


def fits(problem: Problem) -> bool:
    """Every convolution."""
    return True


def prepare(convolution: Convolution) -> Adjoint:
    """The function (y, kernel) ↦ Aᵀ y."""
    blocks = [blocks_of(axis) for axis in convolution.axes]
    phases = list(itertools.product(*map(phases_of, convolution.axes)))

    def apply(y: Tensor, kernel: Tensor) -> Tensor:
        return join([one_phase(y, kernel, blocks, phase, convolution.groups) for phase in phases], convolution)

    return apply


def one_phase(
    y: Tensor, kernel: Tensor, blocks: Sequence[Blocks], phase: Sequence[Phase | None], groups: int
) -> Tensor | None:
    """The blocks of one phase, of shape `(batch, *blocks, channels)`, or `None` if no tap meets it."""
    axes = [along for along in phase if along is not None]
    if len(axes) < len(phase):
        return None
    starts, lengths = zip(*(along.window(block) for along, block in zip(axes, blocks, strict=True)), strict=True)
    taps = kernel[tuple(along.cut for along in axes)]
    return correlate(y, flipped_kernel(taps, groups), starts, lengths, tuple(along.spacing for along in axes))


def flipped_kernel(kernel: Tensor, groups: int) -> Tensor:
    """Taps in reverse order and channels exchanged within each group: `(*taps, filters / groups, channels)`."""
    *taps, channels, filters = current().fixed_shape(kernel)
    rank = len(taps)
    for axis in range(rank):  # one at a time, see `subpixel`
        kernel = ops.flip(kernel, axis=axis) if taps[axis] > 1 else kernel
    kernel = ops.reshape(kernel, (*taps, channels, groups, filters // groups))
    kernel = ops.transpose(kernel, (*range(rank), rank + 2, rank + 1, rank))
    return ops.reshape(kernel, (*taps, filters // groups, groups * channels))


def work(problem: Problem) -> Work:
    """One product per phase, each of which reads all of y; together they meet every tap once."""
    channels, filters = problem.group
    phases = math.prod([phase_count(axis) for axis in problem.convolution.axes])  # PyTorch traces no product of a map
    depth = max(1, problem.positions("taps") * filters // phases)
    moved = 3 * problem.inputs + phases * problem.outputs + 2 * problem.kernel
    repeats, workspace = phases * problem.convolution.groups, 2 * problem.inputs + problem.outputs
    return Work(problem.blocks, depth, channels, moved, calls=phases, repeats=repeats, workspace=workspace)
