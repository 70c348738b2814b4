"""The kernels that a layer holds, in one layout for all: spatial axes, then input channels per group, then filters."""

from dataclasses import dataclass, replace

import keras
import numpy as np
from keras import ops

from keras_adjoint.kernels.layouts import transpose_kernel
from keras_adjoint.layers.kernel import read_kernel
from keras_adjoint.layers.tied import Tied

L = keras.layers
SPATIAL = ("", "W", "HW", "DHW")
SWAPPING = ("conv", "swap_channels")  # the kinds whose filters are the input channels of the forward layer


@dataclass(frozen=True)
class Kernel:
    """One kernel, or a corner of it.

    Attributes:
        name: The name that Keras gave it, such as "kernel" or "pointwise_kernel".
        shape: Its shape in the layer.
        values: An array of shape `(*taps, inputs, filters)`: the corner that is shown.
        groups: The groups of that corner.
        inputs: How many input channels per group the whole kernel has.
        filters: How many filters.
        all_groups: How many groups.
        colours: Which of the last two axes is red, green and blue, if one is.
    """

    name: str
    shape: tuple
    values: np.ndarray
    groups: int
    inputs: int
    filters: int
    all_groups: int
    colours: int | None = None

    @property
    def taps(self):
        return self.values.shape[:-2]

    def transposed(self, kind):
        """The same corner under one of the kinds of `transpose_kernel`; as it is for `None`."""
        if kind is None:
            return self
        layout = SPATIAL[len(self.taps)] + "IO"
        values = transpose_kernel(self.values, kind, layout=layout, groups=self.groups)
        if kind in SWAPPING:
            inputs, filters = self.filters // self.all_groups, self.inputs * self.all_groups
            return replace(self, values=values, inputs=inputs, filters=filters, colours=self.colours and -1)
        if kind == "conv_transpose":  # a dense kernel, zero outside of the groups' blocks
            return replace(self, values=values, groups=1, inputs=self.inputs * self.all_groups, all_groups=1)
        return replace(self, values=values)


def kernels_of(layer, *, filters=None, channels=None):
    """The kernels of a layer, of which no more than the first filters and input channels are read.

    Args:
        layer: A built layer. Of an adjoint layer it is the kernels of its source.
        filters: How many filters; all if `None`. Of a grouped kernel as many whole groups as fit, but one at least.
        channels: How many input channels of each filter.

    Returns:
        A list of `Kernel`, empty for layers that have none.
    """
    source = layer.source if isinstance(layer, Tied) else layer
    held = next((HELD[kind] for kind in type(source).__mro__ if kind in HELD), {})
    return [corner(source, name, arrange, filters, channels) for name, arrange in held.items()]


def corner(layer, name, arrange, filters, channels):
    """The first filters and channels of one kernel of a layer."""
    kernel = read_kernel(layer, name)
    values, all_groups = arrange(layer, kernel)
    inputs, all_filters = values.shape[-2:]
    groups = all_groups
    if groups > 1 and filters is not None:
        each = all_filters // groups
        groups = max(1, min(groups, filters // each))
        values = values[..., : groups * each]
    if groups == 1:
        values = values[..., :filters]
    values = ops.convert_to_numpy(values[..., :channels, :]).astype("float32")
    in_colour = values.ndim == 4 and all_groups == 1 and inputs == values.shape[-2] == 3
    return Kernel(
        name, tuple(kernel.shape), values, groups, inputs, all_filters, all_groups, colours=-2 if in_colour else None
    )


# How each kernel is arranged: (the kernel as `(*taps, inputs per group, filters)`, the groups).


def convolution(layer, kernel):
    return kernel, layer.groups


def depthwise(layer, kernel):
    *taps, channels, multiplier = kernel.shape
    return ops.reshape(kernel, (*taps, 1, channels * multiplier)), channels


def pointwise(layer, kernel):
    return kernel, 1


def transposed_convolution(layer, kernel):
    return ops.swapaxes(kernel, -1, -2), 1


def matrix(layer, kernel):
    return (kernel if len(kernel.shape) == 2 else ops.reshape(kernel, (-1, kernel.shape[-1]))), 1


HELD = {
    **dict.fromkeys((L.Conv1D, L.Conv2D, L.Conv3D), {"kernel": convolution}),
    **dict.fromkeys((L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose), {"kernel": transposed_convolution}),
    **dict.fromkeys((L.DepthwiseConv1D, L.DepthwiseConv2D), {"kernel": depthwise}),
    **dict.fromkeys(
        (L.SeparableConv1D, L.SeparableConv2D), {"depthwise_kernel": depthwise, "pointwise_kernel": pointwise}
    ),
    **dict.fromkeys((L.Dense, L.EinsumDense), {"kernel": matrix}),
    L.Embedding: {"embeddings": matrix},
}
