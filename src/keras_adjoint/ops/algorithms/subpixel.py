"""The adjoint at stride s as one stride-1 convolution to all s phases (see `polyphase`), which are then interleaved.

Without dilation, phase r has the taps r + u·s, and every phase reads the same window of y:

    x[q·s + r − before] = Σ_u K[r + u·s] y[q − u],

with the taps in reverse order. So one convolution with s times the filters computes them all. At stride 1 there is one phase,
it is the flipped convolution, and the taps may be any distance apart.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

from keras import ops

from keras_adjoint.ops import Size, Tensor
from keras_adjoint.ops.algorithms.cost_model import whole_blocks
from keras_adjoint.ops.algorithms.polyphase import blocks_of, interleaving, pads_of
from keras_adjoint.ops.algorithms.problem import Problem, Work
from keras_adjoint.ops.backend import current
from keras_adjoint.ops.backend.protocol import Adjoint
from keras_adjoint.ops.geometry import Convolution


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
    wanted, groups, known = plan(convolution), convolution.groups, convolution.is_known
    taps, outputs, sizes = (convolution.each(name) for name in ("taps", "outputs", "size"))
    positions = math.prod(taps), math.prod(outputs), math.prod(sizes)
    starts, lengths, dilation = wanted.starts, wanted.lengths, wanted.dilation
    axes, strides = tuple(range(1, len(taps) + 1)), (1,) * len(taps)
    pads = pads_of(starts, lengths, outputs)
    flipped_pads = tuple((after, before) for before, after in pads)
    arrange, interleave, convolve = arranging(convolution), interleaving(convolution, groups), current().convolve
    reverses = max(taps) > 1

    def apply(y: Tensor, kernel: Tensor) -> Tensor:
        shape = kernel.shape if type(kernel.shape[-1]) is int else current().fixed_shape(kernel)
        *_, channels, filters = shape
        batch = y.shape[0]
        if reverses and known and isinstance(batch, int):
            # Rather reverse x and y than the taps of the kernel, if they have fewer numbers.
            images = batch * (positions[1] * filters + positions[2] * channels * groups)
            if positions[0] * channels * filters > images:
                y = convolve(ops.flip(y, axes), arrange(kernel, shape, False), flipped_pads, strides, dilation)
                return interleave(ops.flip(y, axes))
        found = pads if known else pads_of(starts, lengths, ops.shape(y)[1:-1])
        return interleave(convolve(y, arrange(kernel, shape, True), found, strides, dilation))

    return apply


def arranging(convolution: Convolution) -> Callable[[Tensor, Sequence[int], bool], Tensor]:
    """The function from the kernel, and its shape, to that of the convolution to all phases, with its taps reversed or not.

    It has the shape `(*taps of a phase, filters / groups, groups·∏s·channels)`: Keras numbers the filters of a grouped
    convolution group by group, so that the group leads in both channel axes.
    """
    axes, groups = convolution.axes, convolution.groups
    rank = len(axes)
    missing = [(0, -axis.taps % axis.stride) for axis in axes]
    is_whole = all(zeros == 0 for _, zeros in missing)
    counts = [-(-axis.taps // axis.stride) for axis in axes]
    whole = [count * axis.stride for count, axis in zip(counts, axes, strict=True)]  # taps
    split = list(chain(*((count, axis.stride) for count, axis in zip(counts, axes, strict=True))))
    order = (*range(0, 2 * rank, 2), 2 * rank + 2, 2 * rank + 1, *range(1, 2 * rank, 2), 2 * rank)

    def arranged(kernel: Tensor, shape: Sequence[int], reverse: bool) -> Tensor:
        *_, channels, filters = shape
        if not is_whole:
            kernel = ops.pad(kernel, [*missing, (0, 0), (0, 0)])
        if reverse:
            kernel = with_taps_reversed(kernel, (*whole, channels, filters), counts)
        kernel = ops.transpose(ops.reshape(kernel, (*split, channels, groups, filters // groups)), order)
        return ops.reshape(kernel, (*counts, filters // groups, -1))

    return arranged


def with_taps_reversed(kernel: Tensor, shape: Sequence[int], counts: Sequence[int]) -> Tensor:
    """Reverse the `counts` taps of every phase, but not the phases. OpenVINO does not reverse several axes at once."""
    for axis, taps in enumerate(counts):
        if taps == 1:
            continue
        if shape[axis] == taps:
            kernel = ops.flip(kernel, axis=axis)
        else:
            outer, inner = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
            kernel = ops.reshape(ops.flip(ops.reshape(kernel, (outer, taps, -1, inner)), axis=1), shape)
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
