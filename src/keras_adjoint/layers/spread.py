"""Back from max pooling without memory: every maximum fills the place it may have come from."""

import keras
from keras import ops

from keras_adjoint.geometry import is_known, positive_part
from keras_adjoint.layers.options import Sized
from keras_adjoint.layers.pooling import Pooling
from keras_adjoint.layers.sizes import spatial


@keras.saving.register_keras_serializable(package="keras_adjoint")
class SpreadPooling(Sized, Pooling):
    """Every value repeated over its stride, which undoes max pooling up to what pooling forgot.

    Position p of the output takes the value of window ⌊(p + before) / stride⌋, or of the last one. Where windows do not
    overlap, pooling the result gives back what was spread. It is no adjoint.

    Args:
        source: A max or average pooling layer.
        output_size: See `Sized`.

    Call arguments:
        y: Tensor of the shape of the source's output.
        output_size: The size wanted in this call: integers, a whole shape, or a tensor whose size is meant.

    Input shape: `(batch, *outputs, channels)`, or with the channels first.
    Output shape: `(batch, *sizes, channels)`, or with the channels first.

    Raises:
        SizeError: If a stride merges several sizes and neither the source nor the caller says which is meant.

    Example:

    >>> pool = keras.layers.MaxPooling1D(2)
    >>> y = np.array([[[1.0], [2.0]]])
    >>> np.array(SpreadPooling(pool, output_size=5)(y))[0, :, 0].tolist()
    [1.0, 1.0, 2.0, 2.0, 2.0]
    """

    options = ("output_size", *Pooling.options)

    @property
    def exact(self):
        return False

    def call(self, y, output_size=None):
        sizes = self.resolve(spatial(ops.shape(y), self.data_format), output_size)
        axes = [window.at(size) for window, size in zip(self.windows, sizes, strict=True)]
        for axis, along in enumerate(axes, self.first_axis):
            y = spread(y, axis, along)
        return y

    def matrices_along(self, sizes):
        """What is done along each spatial axis, as `(outputs, size)` matrices that y is multiplied by."""
        axes = [window.at(size) for window, size in zip(self.windows, sizes, strict=True)]
        return [ops.convert_to_numpy(spread(ops.eye(a.outputs, dtype=self.compute_dtype), 1, a)) for a in axes]

    def compute_output_shape(self, input_shape, output_size=None):
        sizes = self.resolve(spatial(tuple(input_shape), self.data_format), output_size)
        return self.full_shape(input_shape, sizes)


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
