"""The adjoint of a convolution: the same kernel, carried from the outputs back to the inputs."""

from functools import cached_property

import keras

from keras_adjoint.layers.options import Sized, TiedChannels
from keras_adjoint.layers.registry import rule
from keras_adjoint.layers.sizes import shape_of
from keras_adjoint.ops.algorithms.choose import adjoint_convolution, check_name, choose
from keras_adjoint.ops.algorithms.problem import Problem
from keras_adjoint.ops.geometry import Window, convolution_of


@rule(keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
@keras.saving.register_keras_serializable(package="keras_adjoint")
class AdjointConv(Sized, TiedChannels):
    """The transpose of a `Conv1D`, `Conv2D` or `Conv3D` layer, sharing its kernel, at the exact size of its input.

    The convolution is y[j, o] = Σ_t Σ_i K[t, i, o] x[j·s + t·d − before, i], and this layer computes
    x[p, i] = Σ_j Σ_t Σ_o [j·s + t·d − before = p] K[t, i, o] y[j, o] (Dumoulin and Visin 2016, section 4).

    Args:
        source: A built convolution with kernel of shape `(*taps, channels / groups, filters)`.
        output_size: See `Sized`.
        bias: See `TiedChannels`.
        channels: See `TiedChannels`.
        channel_method: See `TiedChannels`.
        algorithm: The way to compute it, one of the names in `algorithms/choose.py`; by default the one that is expected to
            be fastest.
        tied: See `Tied`.

    Call arguments:
        y: Tensor of the shape of the source's output.
        output_size: The size wanted in this call: integers, a whole shape, or a tensor whose size is meant.

    Input shape: `(batch, *outputs, filters)`, or `(batch, filters, *outputs)` for channels-first sources.
    Output shape: `(batch, *sizes, channels)`, or `(batch, channels, *sizes)`.

    Raises:
        SizeError: If a stride merges several sizes and neither the source nor the caller says which is meant.
        TieError: If `source` is not built, or its kernel cannot be read.

    Example:

    >>> conv = keras.layers.Conv2D(8, 3, strides=2, padding="same")
    >>> features = conv(np.ones((1, 27, 28, 3)))
    >>> AdjointConv(conv)(features).shape
    (1, 27, 28, 3)
    """

    options = ("output_size", "algorithm", *TiedChannels.options)

    def __init__(self, source, *, algorithm=None, **kwargs):
        if algorithm is not None:
            check_name(algorithm)
        super().__init__(source, **kwargs)
        self.algorithm = algorithm
        self.groups = self.source_groups()

    @cached_property
    def windows(self):
        source = self.source
        per_axis = zip(source.kernel_size, source.strides, source.dilation_rate, strict=True)
        return tuple(Window(taps, stride, dilation, source.padding) for taps, stride, dilation in per_axis)

    def source_groups(self):
        """Groups of the convolution that is carried back."""
        return self.source.groups

    def source_channels(self):
        return self.source.input_spec.axes[1 if self.data_format == "channels_first" else -1]

    def call(self, y, output_size=None):
        return self._with_options(y, lambda y: self.apply_adjoint(y, self.resolve(shape_of(y)[1:-1], output_size)))

    def apply_adjoint(self, y, sizes):
        return self.carry_back(y, self.read(), sizes)

    def carry_back(self, y, kernel, sizes):
        """Aᵀ y for a forward kernel of shape `(*taps, channels / groups, filters)`."""
        return adjoint_convolution(y, kernel, self.convolution(sizes), self.algorithm)

    def convolution(self, sizes):
        """The geometry of the forward for inputs of spatial sizes `sizes`."""
        return convolution_of(tuple(sizes), self.windows, self.groups)

    def convolved_channels(self):
        """(channels, filters) of the convolution that is carried back."""
        return self.source_channels(), self.source_filters()

    def problem(self, sizes, batch, device):
        """The `Problem` of the convolution that is carried back, for a result of spatial sizes `sizes`."""
        return Problem(self.convolution(sizes), batch, *self.convolved_channels(), device, self.compute_dtype)

    def algorithms(self, sizes, batch, device):
        """Names of the algorithms that run one after the other for a result of spatial sizes `sizes`."""
        return [self.algorithm or choose(self.problem(sizes, batch, device)).name]

    def compute_output_shape(self, input_shape, output_size=None):
        outputs = input_shape[1:-1] if self.data_format == "channels_last" else input_shape[2:]
        return self.with_channels(input_shape[0], self.resolve(tuple(outputs), output_size))

    def get_config(self):
        return {**super().get_config(), "algorithm": self.algorithm}
