"""The adjoint of a transposed convolution: a convolution."""

from typing import Any

import keras
from keras import ops

from keras_adjoint.errors import NoRuleError, SizeError, TieError
from keras_adjoint.layers.registry import describe, rule
from keras_adjoint.layers.sized import PADDINGS
from keras_adjoint.layers.tied_channels import TiedChannels
from keras_adjoint.ops import Shape, Tensor
from keras_adjoint.ops.algorithms.bilinear import forward
from keras_adjoint.ops.backend import current
from keras_adjoint.ops.geometry import TransposedWindow, convolution_of, is_known


def transposed_windows_of(source: keras.layers.Layer) -> tuple[TransposedWindow, ...]:
    """The windows of a transposed convolution.

    Raises:
        TieError: If its padding has been set to what Keras' constructor would not have made of it.
    """
    output_padding = source.output_padding or (None,) * source.rank
    if source.padding not in PADDINGS[:2]:
        raise TieError(f"The padding must be one of {', '.join(PADDINGS[:2])}. Received: padding={source.padding!r}")
    per_axis = zip(source.kernel_size, source.strides, source.dilation_rate, output_padding, strict=True)
    return tuple(TransposedWindow(taps, s, d, source.padding, extra) for taps, s, d, extra in per_axis)


@rule(keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)
@keras.saving.register_keras_serializable(package="keras_adjoint")
class AdjointConvTranspose(TiedChannels):
    """The transpose of a `Conv1DTranspose`, `Conv2DTranspose` or `Conv3DTranspose` layer, sharing its kernel.

    Its size is never ambiguous: a transposed convolution gives every input size an output size of its own.

    Args:
        source: A built transposed convolution with kernel of shape `(*taps, filters, channels)`.
        bias: See `TiedChannels`.
        channels: See `TiedChannels`.
        channel_method: See `TiedChannels`.
        tied: See `Tied`.

    Input shape: `(batch, *outputs, filters)`, or `(batch, filters, *outputs)` for channels-first sources.
    Output shape: `(batch, *sizes, channels)`, or `(batch, channels, *sizes)`.

    Raises:
        NoRuleError: Before Keras 3.15 on PyTorch, of sources with "same" padding that Keras itself computes wrong.
        SizeError: If no input of the source gives outputs of the size received.
        TieError: If `source` is not built, or its kernel cannot be read.

    Example:

    >>> transposed = keras.layers.Conv2DTranspose(3, 4, strides=2, padding="same")
    >>> image = transposed(np.ones((1, 7, 7, 8)))
    >>> AdjointConvTranspose(transposed)(image).shape
    (1, 7, 7, 8)
    """

    def __init__(self, source: keras.layers.Layer, **kwargs: Any) -> None:
        super().__init__(source, **kwargs)
        if current().SHIFTS_CONV_TRANSPOSE and any(window.cropped % 2 for window in self.windows):
            raise NoRuleError(
                f"Keras {keras.__version__} computes this layer one position off on PyTorch (keras-team/keras#22876), so "
                f"the result would not be the adjoint of what it does. Upgrade to Keras 3.15, or use "
                f'padding="valid" with a `Cropping` layer after it. Received: kernel_size={source.kernel_size}, '
                f"strides={source.strides}, padding={source.padding!r}, output_padding={source.output_padding}, "
                f"{describe(source)}"
            )

    @property
    def windows(self) -> tuple[TransposedWindow, ...]:
        return transposed_windows_of(self.source)

    def source_channels(self) -> int:
        return int(self.source.kernel.shape[-1])

    def apply_adjoint(self, y: Tensor) -> Tensor:
        sizes = ops.shape(y)[1:-1]
        self._check(sizes)
        return forward(y, self.read(), convolution_of(tuple(sizes), self.windows))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        sizes = input_shape[1:-1] if self.data_format == "channels_last" else input_shape[2:]
        self._check(sizes)
        pairs = zip(self.windows, sizes, strict=True)
        return self.with_channels(input_shape[0], [None if size is None else w.inputs(size) for w, size in pairs])

    def _check(self, sizes: Shape) -> None:
        for axis, (w, size) in enumerate(zip(self.windows, sizes, strict=True)):
            if is_known(size) and (w.outputs(w.inputs(size)) != size or w.inputs(size) < 1):
                raise SizeError(
                    f"`{self.source.name}` gives no output of size {size} along spatial axis {axis}; the nearest are "
                    f"{w.outputs(w.inputs(size))} and {w.outputs(w.inputs(size) + 1)}. Received: sizes={tuple(sizes)}"
                )
