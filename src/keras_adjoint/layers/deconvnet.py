"""The layer that selects features, for pictures of them."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_adjoint.ops import Shape, Tensor
from keras_adjoint.ops.axes import move_axis


@keras.saving.register_keras_serializable(package="keras_adjoint")
class SelectedFeatures(keras.layers.Layer):
    """One channel, one unit, or the strongest unit of the channel that comes at a given rank; zeros elsewhere.

    Args:
        channel: The channel to keep. With `rank`, units are ranked within this channel.
        unit: Position and channel of the unit to keep, one index per axis but the batch axis.
        rank: 0 for the strongest channel of each sample, 1 for the next, and so on, a channel being as strong as its
            strongest unit, which is the one that is kept.
        axis: The axis along which the features have their channels.

    Input shape: `(batch, *sizes, channels)`, or with the channels along another axis.
    Output shape: The same.

    Example:

    >>> features = np.array([[[1.0, 5.0], [4.0, 2.0]]])
    >>> np.array(SelectedFeatures(rank=1)(features)).tolist()
    [[[0.0, 0.0], [4.0, 0.0]]]
    """

    def __init__(
        self,
        *,
        channel: int | None = None,
        unit: Sequence[int] | None = None,
        rank: int | None = None,
        axis: int = -1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.channel = channel
        self.unit = None if unit is None else tuple(unit)
        self.rank = rank
        self.axis = axis

    def call(self, features: Tensor) -> Tensor:
        last = move_axis(features, self.axis, -1)
        shape = ops.shape(last)
        flat = ops.reshape(last, (shape[0], math.prod(shape[1:-1]), shape[-1]))
        selected = ops.reshape(flat * ops.cast(self._mask(flat), flat.dtype), shape)
        return move_axis(selected, -1, self.axis)

    def _mask(self, flat: Tensor) -> Tensor:
        """Which of `(batch, positions, channels)` to keep, able to broadcast to it."""
        _, positions, channels = ops.shape(flat)
        if self.rank is None:
            return self._fixed_mask(positions, channels)
        if self.channel is not None:
            order = ops.top_k(flat[:, :, self.channel], self.rank + 1)[1]
            position = ops.one_hot(order[:, self.rank], positions)
            return ops.expand_dims(position, -1) * ops.one_hot(self.channel, channels)
        order = ops.top_k(ops.max(flat, axis=1), self.rank + 1)[1]
        channel = ops.expand_dims(ops.one_hot(order[:, self.rank], channels, dtype=flat.dtype), 1)
        strongest = ops.argmax(ops.sum(flat * channel, axis=-1), axis=-1)
        return ops.expand_dims(ops.one_hot(strongest, positions, dtype=flat.dtype), -1) * channel

    def _fixed_mask(self, positions: int, channels: int) -> Tensor:
        if self.unit is None:
            return ops.one_hot(self.channel, channels)
        place = [0, *self.unit]
        channel = place.pop(self.axis)
        position = 0
        for index, size in zip(place[1:], self.sizes[1:], strict=True):
            position = position * size + index
        return ops.expand_dims(ops.one_hot(position, positions), -1) * ops.one_hot(channel, channels)

    def build(self, input_shape: Shape) -> None:
        self.sizes = list(input_shape)
        del self.sizes[self.axis]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        own = {"channel": self.channel, "unit": self.unit, "rank": self.rank, "axis": self.axis}
        return {**super().get_config(), **own}
