"""The adjoints of average pooling: every average is shared out among the positions it was taken from."""

from dataclasses import replace

import keras
from keras import ops

from keras_adjoint.ops.backend import current
from keras_adjoint.ops.geometry import Window, positive_part
from keras_adjoint.layers.options import Sized
from keras_adjoint.layers.sizes import spatial
from keras_adjoint.layers.tied import Tied
from keras_adjoint.ops.frames import cut_frames, overlap_add
from keras_adjoint.layers.registry import rule

AVERAGES = (
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling2D,
    keras.layers.AveragePooling3D,
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalAveragePooling3D,
)


def computes_averages(pool):
    """Whether a pool takes averages, rather than maxima for which averages may stand in."""
    return isinstance(pool, AVERAGES)


class Pooling(Tied):
    """What the pools have in common: windows, and axes that depend on the data format."""

    needs_switches = False

    @property
    def windows(self):
        source = self.source
        pairs = zip(source.pool_size, source.strides, strict=True)
        return tuple(Window(taps, stride, 1, source.padding) for taps, stride in pairs)

    def full_shape(self, pooled_shape, sizes):
        """`sizes` with the batch and the channels of `pooled_shape`, which may have lost its spatial axes."""
        if self.data_format == "channels_last":
            return (pooled_shape[0], *sizes, pooled_shape[-1])
        return (*pooled_shape[:2], *sizes)

    @property
    def first_axis(self):
        return 1 if self.data_format == "channels_last" else 2


def share_out_inside(y, axis, along):
    """The transpose of means along one axis over the positions inside, sharing each out among those it was taken over."""
    inside = ops.sum(cut_frames(ops.ones((along.size,), y.dtype), 0, along), axis=-1)
    y = y / ops.reshape(inside, (-1,) + (1,) * (len(y.shape) - axis - 1))
    return overlap_add(in_equal_frames(y, along.taps), axis, along)


def share_out_replicated(y, axis, along):
    """The transpose of means along one axis over the input with its edges repeated: what falls outside joins the edge."""
    padded = replace(along, size=positive_part(along.padded_size - along.size) + along.size, before=0)
    x = overlap_add(in_equal_frames(y / along.taps, along.taps), axis, padded)
    stop = along.before + along.size

    def joined(start, end):
        return ops.sum(x[(slice(None),) * axis + (slice(start, end),)], axis=axis, keepdims=True)

    if along.size == 1:
        return joined(0, None)
    middle = x[(slice(None),) * axis + (slice(along.before + 1, stop - 1),)]
    return ops.concatenate([joined(0, along.before + 1), middle, joined(stop - 1, None)], axis=axis)


def in_equal_frames(y, taps):
    """Every element `taps` times along a new last axis."""
    return ops.broadcast_to(ops.expand_dims(y, -1), (*ops.shape(y), taps))


SHARE_OUT = {"inside": share_out_inside, "replicated": share_out_replicated}


class PoolingAlongAxes(Sized, Pooling):
    """The way back through windows, done along one spatial axis after the other.

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
    """

    options = ("output_size", *Pooling.options)

    def step(self, axes):
        """What is done along each of `axes`: a function of a tensor, the number of its axis, and its `Axis`."""
        raise NotImplementedError

    def call(self, y, output_size=None):
        axes = self._axes(self.resolve(spatial(ops.shape(y), self.data_format), output_size))
        step = self.step(axes)
        for number, along in enumerate(axes, self.first_axis):
            y = step(y, number, along)
        return y

    def matrices_along(self, sizes):
        """What is done along each spatial axis, as `(outputs, size)` matrices that y is multiplied by."""
        axes = self._axes(sizes)
        step = self.step(axes)
        return [ops.convert_to_numpy(step(ops.eye(a.outputs, dtype=self.compute_dtype), 1, a)) for a in axes]

    def compute_output_shape(self, input_shape, output_size=None):
        sizes = self.resolve(spatial(tuple(input_shape), self.data_format), output_size)
        return self.full_shape(input_shape, sizes)

    def _axes(self, sizes):
        return [window.at(size) for window, size in zip(self.windows, sizes, strict=True)]


@rule(keras.layers.AveragePooling1D, keras.layers.AveragePooling2D, keras.layers.AveragePooling3D)
@keras.saving.register_keras_serializable(package="keras_adjoint")
class AdjointAveragePooling(PoolingAlongAxes):
    """The adjoint of average pooling: every average is shared out among the positions it was taken from.

    With "same" padding a mean at the edge is taken over the positions inside, or, on PyTorch where the two edges differ,
    over copies of the edge as well. Either way it is a mean along one axis after the other.

    Args:
        source: An average pooling layer; or a max pooling layer, for which averages stand in.
        output_size: See `PoolingAlongAxes`.

    Example:

    >>> pool = keras.layers.AveragePooling2D(2)
    >>> AdjointAveragePooling(pool, output_size=(7, 6))(np.ones((1, 3, 3, 2))).shape
    (1, 7, 6, 2)
    """

    @property
    def exact(self):
        return computes_averages(self.source)

    def step(self, axes):
        if self.source.padding == "valid":
            return SHARE_OUT["inside"]
        after = [along.padded_size - along.before - along.size for along in axes]
        return SHARE_OUT[current().average_pooling_edges([along.before for along in axes], after)]
