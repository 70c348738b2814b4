"""The order of a tensor's axes."""

from keras import ops

from keras_adjoint.ops import Tensor


def move_axis(x: Tensor, source: int, destination: int) -> Tensor:
    """`x` with one axis in another place, as by `ops.moveaxis`, which PyTorch does not map over samples."""
    rank = len(x.shape)
    order = [axis for axis in range(rank) if axis != source % rank]
    order.insert(destination % rank, source % rank)
    return ops.transpose(x, order)
