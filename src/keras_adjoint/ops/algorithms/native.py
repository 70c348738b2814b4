"""The adjoint as the backend's own transposed convolution, which reads the kernel as it is.

Other formats have an operator for it. ONNX and OpenVINO lay out the kernel of a transposed convolution like that of the
convolution, so that one copy in the file serves both.
"""

from keras_adjoint.ops.algorithms.cost_model import whole_blocks
from keras_adjoint.ops.algorithms.problem import Problem, Work
from keras_adjoint.ops.backend import current
from keras_adjoint.ops.backend.protocol import Adjoint
from keras_adjoint.ops.geometry import Convolution


def fits(problem: Problem) -> bool:
    """Whether the backend has a transposed convolution for the problem."""
    return current().can_transpose(problem.convolution, problem.kind) and is_safe(problem)


def is_safe(problem: Problem) -> bool:
    """Whether the operation writes to its own memory alone.

    On processors with matrix units for half precision, oneDNN's strided transposed convolution does not once it sums over
    that many numbers.
    """
    return problem.positions("stride") == 1 or sums_are_short(problem, depth_of(problem, problem.group[1]))


def sums_are_short(problem: Problem, numbers: int) -> bool:
    """Whether the backend sums over so many numbers correctly and fast; only half precision has a limit."""
    in_half = problem.precision == "half" and problem.device == "cpu"
    return not in_half or numbers <= current().LONGEST_SUM_IN_HALF


def depth_of(problem: Problem, filters: int) -> int:
    """How many numbers one position of x is summed over, on average, if so many filters are computed."""
    return max(1, problem.positions("taps") * filters // problem.positions("stride"))


def prepare(convolution: Convolution) -> Adjoint:
    """The function (y, kernel) ↦ Aᵀ y."""
    return current().transposed_convolution(convolution)


def work(problem: Problem) -> Work:
    """What the backend is known to do: spread every output, or collect every input."""
    spreads = problem.precision in current().WRITES_COLUMNS and problem.convolution.groups == 1
    return spread(problem) if spreads else collected(problem)


def spread(problem: Problem) -> Work:
    """Sample by sample a product, whose columns are written and added up (see `columns`)."""
    rows, width = problem.positions("outputs"), problem.positions("taps") * problem.channels
    elements = 2 * problem.samples * rows * width + problem.inputs
    return Work(rows, problem.filters, width, elements, repeats=problem.samples)


def collected(problem: Problem) -> Work:
    """Every position of x sums over the taps of its phase."""
    channels, filters = problem.group
    wide, deep = whole_blocks(problem, channels), whole_blocks(problem, filters)
    elements = (
        problem.inputs // channels * wide
        + problem.outputs // filters * deep
        + problem.kernel // (channels * filters) * wide * deep
    )
    repeats = problem.convolution.groups * problem.positions("stride")
    return Work(problem.blocks, depth_of(problem, deep), wide, elements, repeats=repeats)
