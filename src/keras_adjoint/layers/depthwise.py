"""The adjoints of depthwise and separable convolutions."""

import keras
from keras import ops

from keras_adjoint.layers.conv import AdjointConv
from keras_adjoint.layers.registry import rule
from keras_adjoint.ops.algorithms.choose import adjoint_convolution, choose
from keras_adjoint.ops.algorithms.problem import Problem
from keras_adjoint.ops.geometry import Convolution, Window


@rule(keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
@keras.saving.register_keras_serializable(package="keras_adjoint")
class AdjointDepthwiseConv(AdjointConv):
    """The transpose of a depthwise convolution, sharing its kernel.

    A depthwise convolution copies every channel `multiplier` times and filters each copy on its own. Its transpose
    filters each of the `channels · multiplier` copies back on its own and adds up the copies of a channel.

    Args and errors: see `AdjointConv`. The source's kernel has shape `(*taps, channels, multiplier)`.

    Input shape: `(batch, *outputs, channels · multiplier)`.
    Output shape: `(batch, *sizes, channels)`.

    Example:

    >>> depthwise = keras.layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2)
    >>> features = depthwise(np.ones((1, 9, 8, 3)))
    >>> AdjointDepthwiseConv(depthwise)(features).shape
    (1, 9, 8, 3)
    """

    def source_groups(self):
        return self.source_channels() * self.source.depth_multiplier

    def source_filters(self):
        return self.source_groups()

    def convolved_channels(self):
        return self.groups, self.groups

    def apply_adjoint(self, y, sizes):
        return self.filter_back(y, self.read(), sizes)

    def filter_back(self, y, kernel, sizes):
        """The transpose of the depthwise convolution with `kernel`."""
        *taps, channels, multiplier = kernel.shape
        x = self.carry_back(y, ops.reshape(kernel, (*taps, 1, channels * multiplier)), sizes)
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

    def source_filters(self):
        return self.source.filters

    def apply_adjoint(self, y, sizes):
        y = adjoint_convolution(y, self.read("pointwise_kernel"), pointwise(ops.shape(y)[1:-1]))
        return self.filter_back(y, self.read("depthwise_kernel"), sizes)

    def algorithms(self, sizes, batch, device):
        outputs = [window.outputs(size) for window, size in zip(self.windows, sizes, strict=True)]
        first = Problem(pointwise(outputs), batch, self.groups, self.source_filters(), device, self.compute_dtype)
        return [choose(first).name, *super().algorithms(sizes, batch, device)]


def pointwise(sizes):
    """The geometry of a convolution with one tap."""
    return Convolution(tuple(Window(1).at(size) for size in sizes))
