"""Back from max pooling without memory: every maximum fills the place it may have come from."""

import keras
from keras import ops

from keras_adjoint.ops.geometry import is_known, positive_part
from keras_adjoint.layers.pooling import PoolingAlongAxes


@keras.saving.register_keras_serializable(package="keras_adjoint")
class SpreadPooling(PoolingAlongAxes):
    """Every value repeated over its stride, which undoes max pooling up to what pooling forgot.

    Position p of the output takes the value of window ⌊(p + before) / stride⌋, or of the last one. Where windows do not
    overlap, pooling the result gives back what was spread. It is no adjoint.

    Args:
        source: A max or average pooling layer.
        output_size: See `PoolingAlongAxes`.

    Example:

    >>> pool = keras.layers.MaxPooling1D(2)
    >>> y = np.array([[[1.0], [2.0]]])
    >>> np.array(SpreadPooling(pool, output_size=5)(y))[0, :, 0].tolist()
    [1.0, 1.0, 2.0, 2.0, 2.0]
    """

    @property
    def exact(self):
        return False

    def step(self, axes):
        return spread


def spread(y, axis, along):
    """Every element of one axis repeated over the stride, from the first position inside to the last."""
    y = ops.repeat(y, along.stride, axis=axis) if along.stride > 1 else y
    filled = along.outputs * along.stride - along.before
    y = y[(slice(None),) * axis + (slice(along.before, along.before + along.size),)]
    short = positive_part(along.size - filled)
    if is_known(short) and not short:
        return y
    last = y[(slice(None),) * axis + (slice(-1, None),)]
    shape = list(ops.shape(last))
    shape[axis] = short
    return ops.concatenate([y, ops.broadcast_to(last, shape)], axis=axis)
