"""The adjoint as the backend's own transposed convolution, which reads the kernel as it is.

It is what other formats have an operator for. ONNX and OpenVINO lay out the kernel of a transposed convolution like that
of the convolution, so that one copy in the file serves both.
"""

from keras_adjoint.ops.algorithms.problem import Work, whole_blocks
from keras_adjoint.ops.backend import current


def fits(problem):
    """What the backend has a transposed convolution for."""
    return current().can_transpose(problem.convolution, problem.kind) and is_safe(problem)


def is_safe(problem):
    """Whether the operation keeps to its memory.

    On processors with units for matrices in half precision, oneDNN's strided transposed convolution does not, once it sums
    over so many numbers.
    """
    return problem.positions("stride") == 1 or sums_are_short(problem, depth_of(problem, problem.group[1]))


def sums_are_short(problem, numbers):
    """Whether the backend can be relied on to sum over so many numbers, which has a limit in half precision alone."""
    in_half = problem.precision == "half" and problem.device == "cpu"
    return not in_half or numbers <= current().LONGEST_SUM_IN_HALF


def depth_of(problem, filters):
    """How many numbers one position of x is summed over, in the mean, if so many filters are computed."""
    return max(1, problem.positions("taps") * filters // problem.positions("stride"))


def apply(y, kernel, convolution):
    """Aᵀ y for `y` of shape `(batch, *outputs, filters)` and `kernel` of shape `(*taps, channels, filters)`."""
    return current().transposed_convolve(y, kernel, convolution)


def work(problem):
    """What the backend is known to do: spread every output, or collect every input."""
    spreads = problem.precision in current().WRITES_COLUMNS and problem.convolution.groups == 1
    return spread(problem) if spreads else collected(problem)


def spread(problem):
    """Sample by sample a product, the columns of which are written and added up (see `columns`)."""
    rows, width = problem.positions("outputs"), problem.positions("taps") * problem.channels
    elements = 2 * problem.samples * rows * width + problem.inputs
    return Work(rows, problem.filters, width, elements, repeats=problem.samples)


def collected(problem):
    """Seen from x: every position sums over the taps that meet it, which are others in every phase."""
    channels, filters = problem.group
    wide, deep = whole_blocks(problem, channels), whole_blocks(problem, filters)
    elements = (
        problem.inputs // channels * wide
        + problem.outputs // filters * deep
        + problem.kernel // (channels * filters) * wide * deep
    )
    repeats = problem.convolution.groups * problem.positions("stride")
    return Work(problem.blocks, depth_of(problem, deep), wide, elements, repeats=repeats)
