"""The adjoint as one matrix product and the backend's own `fold`, which adds overlapping columns (see `columns`).

Here the columns lie the other way round, every tap and channel a plane of its own, as PyTorch's `fold` reads them.
"""

from keras import ops

from keras_adjoint.ops.algorithms import columns
from keras_adjoint.ops.algorithms.accumulate import accumulate_in_float32
from keras_adjoint.ops.backend import current


def fits(problem):
    """Convolutions without groups, along as many axes as the backend folds."""
    return problem.convolution.groups == 1 and len(problem.convolution.axes) in current().FOLDED_RANKS


@accumulate_in_float32
def apply(y, kernel, convolution):
    """Aᵀ y for `y` of shape `(batch, *outputs, filters)` and `kernel` of shape `(*taps, channels, filters)`."""
    *taps, channels, filters = map(int, kernel.shape)
    rank = len(taps)
    spread = ops.reshape(ops.transpose(kernel, (rank, *range(rank), rank + 1)), (-1, filters))
    planes = ops.transpose(ops.reshape(y, (ops.shape(y)[0], -1, filters)), (0, 2, 1))
    return current().fold(spread @ planes, convolution)


work = columns.work
