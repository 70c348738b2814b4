"""The adjoint as the backend's own transposed convolution, which reads the kernel as it is.

It is what other formats have an operator for. ONNX and OpenVINO lay out the kernel of a transposed convolution like that
of the convolution, so that one copy in the file serves both.
"""

from keras_adjoint.backends import current
from keras_adjoint.lowerings.table import Work


def fits(problem):
    """What the backend has a transposed convolution for."""
    return current().can_transpose(problem.convolution, problem.kind)


def apply(y, kernel, convolution):
    """Aᵀ y for `y` of shape `(batch, *outputs, filters)` and `kernel` of shape `(*taps, channels, filters)`."""
    return current().transposed_convolve(y, kernel, convolution)


def work(problem):
    """Seen from x: every position sums over the taps that meet it."""
    channels, filters = problem.group
    depth = max(1, problem.positions("taps") * filters // problem.positions("stride"))
    elements = problem.inputs + problem.outputs + problem.kernel
    return Work(
        problem.blocks * problem.positions("stride"), depth, channels, elements, repeats=problem.convolution.groups
    )
