"""The product of a tensor with a matrix, along the tensor's last axis."""

from keras import ops

from keras_adjoint.ops import Tensor


def times_matrix(x: Tensor, matrix: Tensor) -> Tensor:
    """x M for `x` of shape `(..., n)` and a matrix of shape `(n, m)`.

    As a product of two matrices: TensorFlow's product with a matrix that is repeated over several axes writes beyond its
    memory where it is oneDNN's and one of these axes has size 1, which `tf.vectorized_map` makes of a sample.
    """
    if len(x.shape) == 2:
        return x @ matrix
    rows = ops.reshape(x, (-1, matrix.shape[0])) @ matrix
    return ops.reshape(rows, (*ops.shape(x)[:-1], matrix.shape[1]))
