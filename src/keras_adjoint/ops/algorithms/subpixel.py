"""The adjoint at stride s as one stride-1 convolution to all s phases (see `polyphase`), which are then interleaved.

Without dilation, phase r has the taps r + u·s, and every phase reads the same window of y:

    x[q·s + r − before] = Σ_u K[r + u·s] y[q − u],

with the taps in reverse order. So one convolution with s times the filters computes them all. At stride 1 there is one phase,
it is the flipped convolution, and the taps may be any distance apart.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from keras import ops

from keras_adjoint.ops import Size, Tensor
from keras_adjoint.ops.algorithms.cost_model import whole_blocks
from keras_adjoint.ops.algorithms.polyphase import blocks_of, correlate, interleave
from keras_adjoint.ops.algorithms.problem import Problem, Work
from keras_adjoint.ops.backend import current
from keras_adjoint.ops.backend.protocol import Adjoint
from keras_adjoint.ops.geometry import Convolution, is_known


def in_step(convolution: Convolution) -> bool:
    """Whether all phases read the same window, which strided and dilated taps do not."""
    return all(axis.stride == 1 or axis.dilation == 1 for axis in convolution.axes)


def fits(problem: Problem) -> bool:
    """Every convolution whose phases are in step."""
    return in_step(problem.convolution)


@dataclass(frozen=True)
class Plan:
    """Per axis: the window of y to read, the blocks q that come out, and the first position wanted of those."""

    starts: tuple[Size, ...]
    lengths: tuple[Size, ...]
    steps: tuple[Size, ...]
    firsts: tuple[Size, ...]
    dilation: tuple[int, ...]


def plan(convolution: Convolution) -> Plan:
    """The windows of the stride-1 convolution."""
    rows = []
    for axis in convolution.axes:
        spacing = axis.dilation if axis.stride == 1 else 1
        span = (-(-axis.taps // axis.stride) - 1) * spacing
        blocks = blocks_of(axis)
        rows.append((blocks.first - span, blocks.count + span, blocks.count, blocks.position, spacing))
    return Plan(*zip(*rows, strict=True))


def prepare(convolution: Convolution) -> Adjoint:
    """The function (y, kernel) ↦ Aᵀ y."""
    wanted = plan(convolution)
    axes = tuple(range(1, len(wanted.starts) + 1))

    def apply(y: Tensor, kernel: Tensor) -> Tensor:
        starts: Sequence[Size] = wanted.starts
        flips_images = is_heavy(kernel, y, convolution)
        if flips_images:
            windows = zip(ops.shape(y)[1:-1], starts, wanted.lengths, strict=True)
            starts = [size - start - length for size, start, length in windows]
            y = ops.flip(y, axes)
        kernel = phase_kernel(kernel, convolution, flip=not flips_images)
        phases = correlate(y, kernel, starts, wanted.lengths, wanted.dilation)
        phases = ops.flip(phases, axes) if flips_images else phases
        return interleave(phases, convolution, convolution.groups)

    return apply


def is_heavy(kernel: Tensor, y: Tensor, convolution: Convolution) -> bool:
    """Whether it moves fewer numbers to reverse x and y than to reverse the taps of the kernel."""
    sizes = (*y.shape[1:-1], *convolution.each("size"))
    if not all(map(is_known, (y.shape[0], *sizes))):
        return False
    *taps, channels, filters = map(int, kernel.shape)
    x = y.shape[0] * math.prod(convolution.each("size")) * channels * convolution.groups
    return max(taps) > 1 and math.prod(taps) * channels * filters > math.prod(y.shape) + x


def phase_kernel(kernel: Tensor, convolution: Convolution, *, flip: bool = True) -> Tensor:
    """The kernel of the convolution to all phases, of shape `(*taps of a phase, filters / groups, groups·∏s·channels)`.

    Keras numbers the filters of a grouped convolution group by group, so that the group leads in both channel axes.
    """
    axes, groups = convolution.axes, convolution.groups
    rank = len(axes)
    *taps, channels, filters = map(int, kernel.shape)
    missing = [-size % axis.stride for axis, size in zip(axes, taps, strict=True)]
    if any(missing):
        kernel = ops.pad(kernel, [(0, zeros) for zeros in missing] + [(0, 0), (0, 0)])
    split = [
        ((size + zeros) // axis.stride, axis.stride) for axis, size, zeros in zip(axes, taps, missing, strict=True)
    ]
    kernel = with_taps_reversed(kernel, split) if flip else kernel
    kernel = ops.reshape(kernel, (*chain(*split), channels, groups, filters // groups))
    order = (*range(0, 2 * rank, 2), 2 * rank + 2, 2 * rank + 1, *range(1, 2 * rank, 2), 2 * rank)
    kernel = ops.transpose(kernel, order)
    return ops.reshape(kernel, (*(count for count, _ in split), filters // groups, -1))


def with_taps_reversed(kernel: Tensor, split: Sequence[tuple[int, int]]) -> Tensor:
    """Reverse the taps of every phase, but not the phases. One axis at a time: OpenVINO does not reverse several."""
    shape = tuple(map(int, kernel.shape))
    for axis, (taps, phases) in enumerate(split):
        if taps > 1:
            kernel = ops.reshape(kernel, (math.prod(shape[:axis]), taps, phases, math.prod(shape[axis + 1 :])))
            kernel = ops.reshape(ops.flip(kernel, axis=1), shape)
    return kernel


def work(problem: Problem) -> Work:
    """Every phase is computed with as many taps as the longest one, and then moved."""
    channels, filters = problem.group
    phases = problem.positions("stride")
    width = whole_blocks(problem, phases * channels)
    computed = problem.inputs * width // (phases * channels)
    moved = problem.outputs + computed + (problem.inputs if phases > 1 else 0) + 2 * problem.kernel
    depth = problem.taps_per_phase * filters
    workspace = problem.outputs + problem.inputs  # the window of y and the phases
    if current().UNFOLDS_GROUPS and problem.kind == "grouped":
        workspace += problem.blocks * problem.taps_per_phase * problem.filters
    return Work(problem.blocks, depth, width, moved, repeats=problem.convolution.groups, workspace=workspace)
