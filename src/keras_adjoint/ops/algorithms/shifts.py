"""The adjoint as a sum over taps: each moves y by its own distance and multiplies it with its own matrix.

For every phase (see `polyphase`), x[q·s + r − before] = Σ_t K[t] y[q − shift(t)]. A tap of a dense kernel is a matrix,
that of a grouped one a matrix per group, that of a depthwise one a number per channel; for the last, a compiler that
fuses makes one pass over memory of the whole sum.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

from keras_adjoint.ops import Size, Tensor
from keras_adjoint.ops.algorithms.bilinear import by_group
from keras_adjoint.ops.algorithms.polyphase import Blocks, Phase, blocks_of, join, phases_of
from keras_adjoint.ops.algorithms.problem import Problem, Work
from keras_adjoint.ops.backend import current, sum_unrolled
from keras_adjoint.ops.backend.protocol import Adjoint
from keras_adjoint.ops.geometry import Convolution, is_known
from keras_adjoint.ops.precision import accumulate_in_float32
from keras_adjoint.ops.products import times_matrix
from keras_adjoint.ops.window import window

MAX_TAPS = 128

Multiply = Callable[[Tensor, Any], Tensor]  # y and the number of a tap to y times the tap
Sum = Callable[[Callable[..., Tensor], Tensor, Sequence[tuple[Any, ...]]], Tensor]


def fits(problem: Problem) -> bool:
    """Kernels that are not too long to unroll."""
    return problem.positions("taps") <= MAX_TAPS


def prepare(convolution: Convolution) -> Adjoint:
    """The function (y, kernel) ↦ Aᵀ y."""
    return lambda y, kernel: apply(y, kernel, convolution)


@accumulate_in_float32
def apply(y: Tensor, kernel: Tensor, convolution: Convolution) -> Tensor:
    """Aᵀ y for `y` of shape `(batch, *outputs, filters)` and `kernel` of shape `(*taps, channels / groups, filters)`."""
    groups = convolution.groups
    if groups == 1:
        return sum_over_taps(y, times_dense(kernel), current().sum_sequential, convolution)
    if current().fixed_shape(kernel)[-2:] == (1, groups):
        return sum_over_taps(y, times_numbers(kernel), sum_unrolled, convolution)  # which a compiler fuses
    y = groups_to_samples(y, groups)
    x = sum_over_taps(y, times_matrices(kernel, groups), current().sum_sequential, convolution)
    return samples_to_groups(x, groups)


def groups_to_samples(y: Tensor, groups: int) -> Tensor:
    """Every group as a sample, all samples of the first group first: `(groups·batch, *sizes, channels / groups)`."""
    _, *sizes, channels = ops.shape(y)
    return ops.reshape(by_group(y, groups), (-1, *sizes, channels // groups))


def samples_to_groups(x: Tensor, groups: int) -> Tensor:
    """The inverse of `groups_to_samples`."""
    _, *sizes, channels = ops.shape(x)
    x = ops.transpose(ops.reshape(x, (groups, -1, channels)), (1, 0, 2))
    return ops.reshape(x, (-1, *sizes, groups * channels))


def sum_over_taps(y: Tensor, multiply: Multiply, add_up: Sum, convolution: Convolution) -> Tensor:
    """Every phase, interleaved."""
    blocks = [blocks_of(axis) for axis in convolution.axes]
    phases = [
        one_phase(y, multiply, add_up, convolution, blocks, phase)
        for phase in itertools.product(*map(phases_of, convolution.axes))
    ]
    return join(phases, convolution)


def one_phase(
    y: Tensor,
    multiply: Multiply,
    add_up: Sum,
    convolution: Convolution,
    blocks: Sequence[Blocks],
    phase: Sequence[Phase | None],
) -> Tensor | None:
    """The sum over the taps of one phase, of shape `(batch, *blocks, channels)`, or `None` if it has none."""
    axes = [along for along in phase if along is not None]
    if len(axes) < len(phase):
        return None
    starts, lengths = zip(*(along.window(block) for along, block in zip(axes, blocks, strict=True)), strict=True)
    read = window(y, starts, lengths)
    counts = [block.count for block in blocks]
    return add_up(lambda y, tap, *starts: multiply(cut(y, starts, counts), tap), read, tap_starts(convolution, axes))


def cut(x: Tensor, starts: Sequence[Size], lengths: Sequence[Size]) -> Tensor:
    """A part of `x` along its spatial axes, whose start may be known only to the running program."""
    if all(map(is_known, starts)):
        return x[(slice(None), *(slice(start, start + length) for start, length in zip(starts, lengths, strict=True)))]
    batch, *_, channels = ops.shape(x)
    return ops.slice(x, (0, *starts, 0), (batch, *lengths, channels))


def tap_starts(convolution: Convolution, phase: Sequence[Phase]) -> list[tuple[int, ...]]:
    """For every tap of a phase: its number in the whole kernel, and where in the window it begins to read."""
    rows = []
    for numbers in itertools.product(*(range(along.taps) for along in phase)):
        tap, starts = 0, []
        for number, along, axis in zip(numbers, phase, convolution.axes, strict=True):
            tap = tap * axis.taps + along.tap + number * along.step
            starts.append((along.taps - 1 - number) * along.spacing)
        rows.append((tap, *starts))
    return rows


def times_dense(kernel: Tensor) -> Multiply:
    """`multiply(y, tap)`: y times the transpose of one tap of a dense kernel."""
    taps = ops.reshape(kernel, (-1, *kernel.shape[-2:]))
    return lambda y, tap: times_matrix(y, ops.transpose(taps[tap]))


def times_numbers(kernel: Tensor) -> Multiply:
    """The same for a depthwise kernel."""
    taps = ops.reshape(kernel, (-1, kernel.shape[-1]))
    return lambda y, tap: y * taps[tap]


def times_matrices(kernel: Tensor, groups: int) -> Multiply:
    """The same for a grouped kernel, where the groups of y are samples of their own."""
    *_, channels, filters = current().fixed_shape(kernel)
    taps = ops.reshape(kernel, (-1, channels, groups, filters // groups))

    def multiply(y: Tensor, tap: Any) -> Tensor:
        _, *sizes, depth = ops.shape(y)
        # Tap by tap: a long kernel is many times as large as y, and so would be its copy with the groups in front.
        matrices = ops.transpose(taps[tap], (1, 2, 0))
        return ops.reshape(ops.reshape(y, (groups, -1, depth)) @ matrices, (-1, *sizes, channels))

    return multiply


def work(problem: Problem) -> Work:
    """A product per tap, which is added to x; the groups of a kernel are moved to the front."""
    channels, filters = problem.group
    taps = problem.positions("taps")
    added = taps * problem.inputs // problem.positions("stride")
    moved = 2 * problem.kernel if problem.kind == "grouped" else 0  # a plain matrix is read as it lies
    repeats = taps * problem.convolution.groups
    # Depthwise terms are fused. A matrix product needs its window of y cut out, and a compiler may do so for all phases first.
    windows = 1 if problem.group == (1, 1) else 2 * math.prod([min(a.stride, a.taps) for a in problem.convolution.axes])
    workspace = 2 * problem.inputs + windows * problem.outputs
    return Work(problem.blocks, filters, channels, added + moved, calls=taps, repeats=repeats, workspace=workspace)
