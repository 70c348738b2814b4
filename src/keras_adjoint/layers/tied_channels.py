"""Tied layers whose output has channels: biases, and other numbers of channels than the source's."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_adjoint.errors import one_of
from keras_adjoint.kernels.channels import adapter_matrix
from keras_adjoint.layers import bias as biases
from keras_adjoint.layers.inputs import Expected, accept
from keras_adjoint.layers.options import positive_integer_or_none
from keras_adjoint.layers.tied import Tied
from keras_adjoint.ops import Shape, Tensor
from keras_adjoint.ops.axes import move_axis
from keras_adjoint.ops.products import times_matrix

CHANNEL_METHODS = ("repeat", "average", "truncate", "pad", "learned")


class TiedShift(Tied):
    """A tied layer whose source may add a bias of any shape, which can be subtracted but not replaced.

    Args:
        source: A built layer.
        bias: "none", or "subtract" for Aᵀ(y − b) with the source's bias b.
    """

    options = ("bias", *Tied.options)
    bias_modes = ("none", "subtract")

    def __init__(self, source: keras.layers.Layer, *, bias: str = "none", **kwargs: Any) -> None:
        if bias not in self.bias_modes:
            raise ValueError(
                f"The adjoint of `{type(source).__name__}` takes a bias of {' or '.join(self.bias_modes)}. "
                f"Received: bias={bias!r}"
            )
        super().__init__(source, **kwargs)
        self.bias_mode = bias

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "bias": self.bias_mode}


class TiedChannels(Tied):
    """A tied layer whose output has channels, so that biases and other numbers of channels make sense.

    Args:
        source: A built layer.
        bias: "none"; "own", a new trainable bias; "subtract", Aᵀ(y − b) with the source's bias b; "repeat" or
            "average", a new trainable bias that starts from the source's; "learned", a trainable map of it.
        channels: Number of output channels, if different from the source's number of input channels.
        channel_method: How the adjoint's channels x become `channels` ones, x ↦ x M: "repeat" copies them in rotation,
            "average" takes means of every n-th, "truncate" drops the last, "pad" appends zeros, and "learned" is a
            trainable M that starts as one of the first two. Copies and means keep the scale of the output.

    Attributes:
        bias: The layer's own bias, a variable, for "own", "repeat" and "average"; else `None`.
        bias_map: The trainable map of the source's bias for "learned"; else `None`.
        channel_map: The trainable M for "learned" channels; else `None`.

    Raises:
        ValueError: If y has another number of axes or channels than the source's output.
    """

    options = ("bias", "channels", "channel_method", *Tied.options)

    def __init__(
        self,
        source: keras.layers.Layer,
        *,
        bias: str = "none",
        channels: int | None = None,
        channel_method: str = "learned",
        **kwargs: Any,
    ) -> None:
        biases.check_mode(bias, source)
        one_of("channel_method", channel_method, CHANNEL_METHODS)
        channels = positive_integer_or_none("channels", channels)
        super().__init__(source, **kwargs)
        self.bias_mode = bias
        self.channels = channels
        self.channel_method = channel_method
        self._is_plain = bias == "none" and channels is None and self.data_format == "channels_last"
        # Checked here: an `input_spec` takes a tenth of an eager call of a small layer.
        self._filter_axis, self._filters = (1 if self.data_format == "channels_first" else -1), self.source_filters()
        self._axes = source.rank + 2 if hasattr(source, "rank") else None
        self._add_weights()

    def _add_weights(self) -> None:
        """Make the layer's own variables, which depend on nothing but the source."""
        self.channel_map: keras.Variable | None = None
        self._fixed_map: np.ndarray | None = None
        if self.channels is not None:
            start = self._channel_start(self.channels)
            if self.channel_method == "learned":
                self.channel_map = self.add_weight(
                    name="channel_map", shape=start.shape, initializer=biases.constant(start)
                )
            else:
                self._fixed_map = start
        self.bias: keras.Variable | None = None
        self.bias_map: keras.Variable | None = None
        if self.bias_mode not in biases.ADD_NOTHING:
            size = self.channels or self.source_channels()
            if self.bias_mode == "learned":
                self.bias_map = biases.add_bias_map(self, self.source, size)
            else:
                self.bias = biases.add_bias(self, self.bias_mode, self.source, size)

    def source_channels(self) -> int:
        """Channels of the source's input, which Aᵀ y has by default. Subclasses implement it."""
        raise NotImplementedError

    def source_filters(self) -> int:
        """Channels of the source's output, which y must have."""
        filters: int = self.source.filters
        return filters

    def _channel_start(self, channels: int) -> np.ndarray:
        """The matrix that the channel map starts as."""
        size = self.source_channels()
        learned = self.channel_method == "learned"
        method = biases.growing_or_shrinking(size, channels) if learned else self.channel_method
        return adapter_matrix(size, channels, method, argument="channel_method")

    @property
    def exact(self) -> bool:
        return self.channels is None

    def channel_matrix(self) -> Tensor | None:
        """M in x ↦ x M, or `None` if the channels are the source's."""
        if self._fixed_map is not None:
            return ops.convert_to_tensor(self._fixed_map, dtype=self.compute_dtype)
        return self.channel_map

    def bias_added(self) -> Tensor | None:
        """The bias that is added to Aᵀ y, or `None`."""
        if self.bias_map is None:
            return self.bias
        return ops.sum(ops.expand_dims(self.source.bias, -1) * self.bias_map, axis=0)

    def call(self, y: Tensor) -> Tensor:
        y = accept(self, y)
        if self._is_plain:
            return self.apply_adjoint(y)
        return self.finished(self.apply_adjoint(self.prepared(y)))

    @cached_property
    def expected(self) -> Expected:
        return Expected(self._axes, at_least=2, sizes={self._filter_axis: self._filters})

    def prepared(self, y: Tensor) -> Tensor:
        """What Aᵀ is applied to: y with its channels last, less the source's bias if that is to be subtracted."""
        y = self.to_channels_last(y)
        if self.bias_mode == "subtract" and self.source.bias is not None:
            y = y - ops.cast(self.source.bias, y.dtype)
        return y

    def finished(self, x: Tensor) -> Tensor:
        """The layer's output: Aᵀ y with its channels adapted, the bias added, and the channels where the source has them."""
        matrix, bias = self.channel_matrix(), self.bias_added()
        if matrix is not None:
            x = times_matrix(x, ops.cast(matrix, x.dtype))
        if bias is not None:
            x = x + ops.cast(bias, x.dtype)
        return self.from_channels_last(x)

    def to_channels_last(self, y: Tensor) -> Tensor:
        return move_axis(y, 1, -1) if self.data_format == "channels_first" else y

    def from_channels_last(self, x: Tensor) -> Tensor:
        return move_axis(x, -1, 1) if self.data_format == "channels_first" else x

    def with_channels(self, batch: Any, sizes: Sequence[Any]) -> Shape:
        """A full output shape."""
        channels = (self.channels or self.source_channels(),)
        return (batch, *sizes, *channels) if self.data_format == "channels_last" else (batch, *channels, *sizes)

    def get_config(self) -> dict[str, Any]:
        options = {"bias": self.bias_mode, "channels": self.channels, "channel_method": self.channel_method}
        return {**super().get_config(), **options}
