"""The adjoints of depthwise and separable convolutions."""

import math
from collections.abc import Sequence

import keras
from keras import ops

from keras_adjoint.layers.conv import AdjointConv
from keras_adjoint.layers.kernel import kernel_shape
from keras_adjoint.layers.registry import rule
from keras_adjoint.ops import Size, Tensor
from keras_adjoint.ops.algorithms.choose import adjoint_convolution, choose
from keras_adjoint.ops.algorithms.problem import Problem
from keras_adjoint.ops.backend import current
from keras_adjoint.ops.backend.protocol import Adjoint
from keras_adjoint.ops.geometry import Convolution, Window


@rule(keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
@keras.saving.register_keras_serializable(package="keras_adjoint")
class AdjointDepthwiseConv(AdjointConv):
    """The transpose of a depthwise convolution, sharing its kernel.

    A depthwise convolution copies every channel `multiplier` times and filters each copy on its own. Its transpose
    filters each of the `channels · multiplier` copies on its own, by the transpose, and adds up the copies of a channel.

    Args and errors: see `AdjointConv`. The source's kernel has shape `(*taps, channels, multiplier)`.

    Input shape: `(batch, *outputs, channels · multiplier)`.
    Output shape: `(batch, *sizes, channels)`.

    Example:

    >>> depthwise = keras.layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2)
    >>> features = depthwise(np.ones((1, 9, 8, 3)))
    >>> AdjointDepthwiseConv(depthwise)(features).shape
    (1, 9, 8, 3)
    """

    geometry: tuple[str, ...] = ("padding", "strides", "dilation_rate", "kernel_size", "data_format")

    def source_channels(self) -> int:
        return kernel_shape(self.source, self.kernel_name)[-2]

    def source_groups(self) -> int:
        return math.prod(kernel_shape(self.source, self.kernel_name)[-2:])

    def source_filters(self) -> int:
        return self.source_groups()

    def convolved_channels(self) -> tuple[int, int]:
        return self.groups, self.groups

    def apply_transpose(self, y: Tensor, transpose: Adjoint) -> Tensor:
        return depthwise_adjoint(y, self.read(), transpose)


def depthwise_adjoint(y: Tensor, kernel: Tensor, transpose: Adjoint) -> Tensor:
    """The transpose of the depthwise convolution with `kernel`, by that of the grouped convolution with the same taps."""
    *taps, channels, multiplier = current().fixed_shape(kernel)
    x = transpose(y, ops.reshape(kernel, (*taps, 1, channels * multiplier)))
    if multiplier == 1:
        return x
    return ops.sum(ops.reshape(x, (-1, *ops.shape(x)[1:-1], channels, multiplier)), axis=-1)


@rule(keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
@keras.saving.register_keras_serializable(package="keras_adjoint")
class AdjointSeparableConv(AdjointDepthwiseConv):
    """The transpose of a separable convolution, sharing both of its kernels.

    The forward is depthwise, then pointwise; the transpose is pointwise, then depthwise.

    Args and errors: see `AdjointConv`. The source's kernels have shapes `(*taps, channels, multiplier)` and
    `(1, …, channels · multiplier, filters)`.

    Input shape: `(batch, *outputs, filters)`.
    Output shape: `(batch, *sizes, channels)`.

    Example:

    >>> separable = keras.layers.SeparableConv1D(6, 3, padding="same")
    >>> features = separable(np.ones((1, 9, 4)))
    >>> AdjointSeparableConv(separable)(features).shape
    (1, 9, 4)
    """

    kernel_name = "depthwise_kernel"

    def source_filters(self) -> int:
        return int(self.source.filters)

    def apply_transpose(self, y: Tensor, transpose: Adjoint) -> Tensor:
        y = adjoint_convolution(y, self.read("pointwise_kernel"), pointwise(self.where_fixed(ops.shape(y)[1:-1])))
        return depthwise_adjoint(y, self.read(), transpose)

    def algorithms(self, sizes: Sequence[Size], batch: int | None, device: str) -> list[str]:
        outputs = [window.outputs(size) for window, size in zip(self.windows, sizes, strict=True)]
        first = Problem(pointwise(outputs), batch, self.groups, self.source_filters(), device, self.compute_dtype)
        return [choose(first).name, *super().algorithms(sizes, batch, device)]


def pointwise(sizes: Sequence[Size]) -> Convolution:
    """The geometry of a convolution with one tap."""
    return Convolution(tuple(Window(1).at(size) for size in sizes))
