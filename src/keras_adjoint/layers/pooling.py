"""The adjoints of average pooling: every average is distributed over the positions it was taken from."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops
from keras.layers import Layer

from keras_adjoint.layers.inputs import Expected, accept
from keras_adjoint.layers.registry import rule
from keras_adjoint.layers.sized import Sized, windows_of
from keras_adjoint.layers.sizes import spatial
from keras_adjoint.layers.tied import Tied
from keras_adjoint.ops import Shape, Tensor
from keras_adjoint.ops.backend import current
from keras_adjoint.ops.geometry import Axis, Window, is_known, positive_part
from keras_adjoint.ops.window import cut_frames, overlap_add

Step: TypeAlias = Callable[[Tensor, int, Axis], Tensor]

AVERAGES = (
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling2D,
    keras.layers.AveragePooling3D,
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalAveragePooling3D,
)


def computes_averages(pool: Layer) -> bool:
    """Whether a layer pools by averages, not by maxima for which averages may be substituted."""
    return isinstance(pool, AVERAGES)


class Pooling(Tied):
    """What pooling layers have in common: windows, and axes that depend on the data format."""

    @property
    def windows(self) -> tuple[Window, ...]:
        return windows_of(self.source, "pool_size")

    asked_channels: int | None = None
    """The channels of a whole shape that was given as `output_size`: those of y, too."""

    @property
    def expected(self) -> Expected:
        return Expected(
            self.source.input_spec.ndim, sizes={1 if self.data_format == "channels_first" else -1: self.asked_channels}
        )

    def full_shape(self, pooled_shape: Shape, sizes: Shape) -> Shape:
        """`sizes` with the batch and the channels of `pooled_shape`, which may have lost its spatial axes."""
        if self.data_format == "channels_last":
            return (pooled_shape[0], *sizes, pooled_shape[-1])
        return (*pooled_shape[:2], *sizes)

    @property
    def first_axis(self) -> int:
        return 1 if self.data_format == "channels_last" else 2


def distribute_inside(y: Tensor, axis: int, along: Axis) -> Tensor:
    """The transpose of means along one axis over the positions inside: each is distributed over those it was taken from."""
    inside = ops.sum(cut_frames(ops.ones((along.size,), y.dtype), 0, along), axis=-1)
    y = y / ops.reshape(inside, (-1,) + (1,) * (len(y.shape) - axis - 1))
    return overlap_add(in_equal_frames(y, along.taps), axis, along)


def distribute_replicated(y: Tensor, axis: int, along: Axis) -> Tensor:
    """The transpose of means along one axis over the input with its edges repeated: what falls outside joins the edge."""
    padded = replace(along, size=positive_part(along.padded_size - along.size) + along.size, pad_before=0)
    x = overlap_add(in_equal_frames(y / along.taps, along.taps), axis, padded)
    stop = along.pad_before + along.size

    def joined(start: int, end: int | None) -> Tensor:
        return ops.sum(x[(slice(None),) * axis + (slice(start, end),)], axis=axis, keepdims=True)

    if along.size == 1:
        return joined(0, None)
    middle = x[(slice(None),) * axis + (slice(along.pad_before + 1, stop - 1),)]
    return ops.concatenate([joined(0, along.pad_before + 1), middle, joined(stop - 1, None)], axis=axis)


def in_equal_frames(y: Tensor, taps: int) -> Tensor:
    """Every element `taps` times along a new last axis."""
    return ops.broadcast_to(ops.expand_dims(y, -1), (*ops.shape(y), taps))


DISTRIBUTE = {"inside": distribute_inside, "replicated": distribute_replicated}


class PoolingAlongAxes(Pooling, Sized):
    """The backward pass through windows, along one spatial axis after the other.

    Args:
        source: A max or average pooling layer.
        output_size: See `Sized`.

    Call arguments:
        y: Tensor of the shape of the source's output.
        output_size: The size wanted in this call: integers, a whole shape with batch and channels, or a tensor of that
            size.

    Input shape: `(batch, *outputs, channels)`, or with the channels first.
    Output shape: `(batch, *sizes, channels)`, or with the channels first.

    Raises:
        SizeError: If a stride merges several sizes and neither the source nor the caller says which is meant.
    """

    options = ("output_size", *Pooling.options)
    geometry = ("padding", "strides", "pool_size", "data_format")

    def step(self, axes: Sequence[Axis]) -> Step:
        """What is done along each of `axes`: a function of a tensor, the number of its axis, and its `Axis`."""
        raise NotImplementedError

    def call(self, y: Tensor, output_size: Any = None) -> Tensor:
        y = accept(self, y)
        axes = self._axes(self.resolve(spatial(ops.shape(y), self.data_format), output_size))
        step = self.step(axes)
        for number, along in enumerate(axes, self.first_axis):
            y = step(y, number, along)
        return y

    def matrices_along(self, sizes: Shape) -> list[np.ndarray]:
        """What is done along each spatial axis, as `(outputs, size)` matrices that y is multiplied by."""
        axes = self._axes(sizes)
        step = self.step(axes)
        with current().eagerly():
            return [ops.convert_to_numpy(step(ops.eye(a.outputs, dtype=self.compute_dtype), 1, a)) for a in axes]

    def compute_output_shape(self, input_shape: Shape, output_size: Any = None) -> Shape:
        sizes = self.resolve(spatial(tuple(input_shape), self.data_format), output_size)
        return self.full_shape(input_shape, sizes)

    def _axes(self, sizes: Shape) -> list[Axis]:
        return [window.at(size) for window, size in zip(self.windows, sizes, strict=True)]


@rule(keras.layers.AveragePooling1D, keras.layers.AveragePooling2D, keras.layers.AveragePooling3D)
@keras.saving.register_keras_serializable(package="keras_adjoint")
class AdjointAveragePooling(PoolingAlongAxes):
    """The adjoint of average pooling: every average is distributed over the positions it was taken from.

    With "same" padding a mean at the edge is taken over the positions inside, or, on PyTorch where the two edges differ,
    over copies of the edge as well. Either way it is a mean along one axis after the other.

    Args:
        source: An average pooling layer; or a max pooling layer, for which averages are substituted.
        output_size: See `PoolingAlongAxes`.

    Example:

    >>> pool = keras.layers.AveragePooling2D(2)
    >>> AdjointAveragePooling(pool, output_size=(7, 6))(np.ones((1, 3, 3, 2))).shape
    (1, 7, 6, 2)
    """

    @property
    def exact(self) -> bool:
        return computes_averages(self.source)

    def step(self, axes: Sequence[Axis]) -> Step:
        if self.source.padding == "valid":
            return DISTRIBUTE["inside"]
        after = [along.padded_size - along.pad_before - along.size for along in axes]
        return DISTRIBUTE[current().average_pooling_edges([along.pad_before for along in axes], after)]


@keras.saving.register_keras_serializable(package="keras_adjoint")
class SpreadPooling(PoolingAlongAxes):
    """Every value repeated over its stride, which undoes max pooling up to what pooling discards.

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
    def exact(self) -> bool:
        return False

    def step(self, axes: Sequence[Axis]) -> Step:
        return spread


def spread(y: Tensor, axis: int, along: Axis) -> Tensor:
    """Every element of one axis repeated over the stride, from the first position inside to the last."""
    y = ops.repeat(y, along.stride, axis=axis) if along.stride > 1 else y
    last = y[(slice(None),) * axis + (slice(-1, None),)]
    filled = positive_part(along.outputs * along.stride - along.pad_before)  # none, if all windows start in the padding
    y = y[(slice(None),) * axis + (slice(along.pad_before, along.pad_before + along.size),)]
    short = positive_part(along.size - filled)
    if is_known(short) and not short:
        return y
    shape = list(ops.shape(last))
    shape[axis] = short
    return ops.concatenate([y, ops.broadcast_to(last, shape)], axis=axis)
