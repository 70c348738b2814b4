"""The adjoints of average pooling: every average is shared out among the positions it was taken from."""

import math
from dataclasses import replace

import keras
from keras import ops

from keras_adjoint.backends import current
from keras_adjoint.errors import SizeError
from keras_adjoint.geometry import Window, positive_part
from keras_adjoint.layers.options import Sized
from keras_adjoint.layers.sizes import spatial, standardize_output_size
from keras_adjoint.layers.tied import Tied
from keras_adjoint.lowerings.frames import cut_frames, overlap_add
from keras_adjoint.rules import rule


class Pooling(Tied):
    """What the pools have in common: windows, and axes that depend on the data format."""

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


@rule(keras.layers.AveragePooling1D, keras.layers.AveragePooling2D, keras.layers.AveragePooling3D)
@keras.saving.register_keras_serializable(package="keras_adjoint")
class AdjointAveragePooling(Sized, Pooling):
    """The adjoint of average pooling: every average is shared out among the positions it was taken from.

    With "same" padding a mean at the edge is taken over the positions inside, or, on PyTorch where the two edges differ,
    over copies of the edge as well. Either way it is a mean along one axis after the other.

    Args:
        source: An average pooling layer.
        output_size: See `Sized`.

    Call arguments:
        y: Tensor of the shape of the source's output.
        output_size: The size wanted in this call: integers, a whole shape, or a tensor whose size is meant.

    Input shape: `(batch, *outputs, channels)`, or with the channels first.
    Output shape: `(batch, *sizes, channels)`, or with the channels first.

    Raises:
        SizeError: If a stride merges several sizes and neither the source nor the caller says which is meant.

    Example:

    >>> pool = keras.layers.AveragePooling2D(2)
    >>> AdjointAveragePooling(pool, output_size=(7, 6))(np.ones((1, 3, 3, 2))).shape
    (1, 7, 6, 2)
    """

    options = ("output_size", *Pooling.options)

    def call(self, y, output_size=None):
        sizes = self.resolve(spatial(ops.shape(y), self.data_format), output_size)
        axes = [window.at(size) for window, size in zip(self.windows, sizes, strict=True)]
        share_out = SHARE_OUT[self._edges(axes)]
        for axis, along in enumerate(axes, self.first_axis):
            y = share_out(y, axis, along)
        return y

    def _edges(self, axes):
        if self.source.padding == "valid":
            return "inside"
        after = [along.padded_size - along.before - along.size for along in axes]
        return current().average_pooling_edges([along.before for along in axes], after)

    def matrices_along(self, sizes):
        """What is done along each spatial axis, as `(outputs, size)` matrices that y is multiplied by."""
        axes = [window.at(size) for window, size in zip(self.windows, sizes, strict=True)]
        share_out = SHARE_OUT[self._edges(axes)]
        return [ops.convert_to_numpy(share_out(ops.eye(a.outputs, dtype=self.compute_dtype), 1, a)) for a in axes]

    def compute_output_shape(self, input_shape, output_size=None):
        sizes = self.resolve(spatial(tuple(input_shape), self.data_format), output_size)
        return self.full_shape(input_shape, sizes)


@rule(keras.layers.GlobalAveragePooling1D, keras.layers.GlobalAveragePooling2D, keras.layers.GlobalAveragePooling3D)
@keras.saving.register_keras_serializable(package="keras_adjoint")
class AdjointGlobalAveragePooling(Pooling):
    """The adjoint of global average pooling: the average, divided by the number of positions, at every position.

    Args:
        source: A global average pooling layer.
        output_size: The sizes of the output's spatial axes; by default what the source recorded.

    Call arguments:
        y: Tensor of the shape of the source's output.
        output_size: The size wanted in this call: integers, a whole shape, or a tensor whose size is meant.

    Input shape: `(batch, channels)`, or with axes of size 1 if the source keeps them.
    Output shape: `(batch, *sizes, channels)`, or with the channels first.

    Raises:
        SizeError: If neither the source nor the caller says which size is meant.

    Example:

    >>> pool = keras.layers.GlobalAveragePooling2D()
    >>> AdjointGlobalAveragePooling(pool, output_size=(2, 2))(np.ones((1, 3))).shape
    (1, 2, 2, 3)
    """

    options = ("output_size", *Pooling.options)

    def __init__(self, source, *, output_size=None, **kwargs):
        super().__init__(source, **kwargs)
        self.rank = source.input_spec.ndim - 2
        self.output_size = standardize_output_size(output_size, self.rank, self.data_format)

    def resolve(self, output_size=None):
        """The spatial size of the output: any will do, so it must be asked for or recorded."""
        asked = standardize_output_size(output_size, self.rank, self.data_format) or self.output_size
        recorded = [spatial(shape, self.data_format) for shape in self.recorded_shapes()]
        choices = [asked] if asked is not None else list(dict.fromkeys(recorded))
        if len(choices) == 1:
            return choices[0]
        raise SizeError(
            f"`{self.source.name}` takes the average of inputs of any size, so its adjoint cannot know which is meant"
            f"{': ' + ' or '.join(map(str, choices)) if choices else ''}. Pass it as `output_size=...`, to `adjoint` or "
            f"when you call the layer. Received: source={self.source.name!r}"
        )

    def call(self, y, output_size=None):
        sizes = self.resolve(output_size)
        if any(size is None for size in sizes):
            raise SizeError(
                f"`{self.source.name}` was built for inputs of unknown size. Pass `output_size=...` when you call its "
                f"adjoint. Received: recorded size {sizes}"
            )
        share = ops.reshape(y, self.full_shape(ops.shape(y), (1,) * self.rank))
        share = share / ops.cast(math.prod(sizes), share.dtype)
        return ops.broadcast_to(share, self.full_shape(ops.shape(y), sizes))

    def compute_output_shape(self, input_shape, output_size=None):
        return self.full_shape(input_shape, self.resolve(output_size))
