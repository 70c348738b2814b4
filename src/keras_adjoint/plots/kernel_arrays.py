"""The kernels that a layer holds, in one layout for all: spatial axes, then input channels per group, then filters."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import keras
import numpy as np
from keras import ops

from keras_adjoint.kernels.layouts import transpose_kernel
from keras_adjoint.layers.kernel import read_kernel
from keras_adjoint.layers.tied import Tied
from keras_adjoint.ops import Shape, Tensor

L = keras.layers
SPATIAL = ("", "W", "HW", "DHW")
SWAPPING = ("conv", "swap_channels")  # the kinds whose filters are the input channels of the forward layer


@dataclass(frozen=True)
class KernelArray:
    """A kernel as an array, or its first filters and input channels.

    Attributes:
        name: The name that Keras gave it, such as "kernel" or "pointwise_kernel".
        shape: Its shape in the layer.
        values: An array of shape `(*taps, inputs, filters)`: as much of it as was read.
        groups: The groups of `values`.
        inputs: How many input channels per group the whole kernel has.
        filters: How many filters the whole kernel has.
        all_groups: How many groups the whole kernel has.
        colours: Which of the last two axes is red, green and blue, if one is.
    """

    name: str
    shape: Shape
    values: np.ndarray
    groups: int
    inputs: int
    filters: int
    all_groups: int
    colours: int | None = None

    @property
    def taps(self) -> tuple[int, ...]:
        return self.values.shape[:-2]

    def transposed(self, kind: str | None) -> "KernelArray":
        """The same filters under one of the kinds of `transpose_kernel`; unchanged for `None`."""
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


def kernels_of(
    layer: keras.layers.Layer, *, filters: int | None = None, channels: int | None = None
) -> list[KernelArray]:
    """The kernels of a layer, empty if it has none.

    Args:
        layer: A built layer; an adjoint layer has the kernels of its source.
        filters: The number of filters to read; `None` reads all. Of a grouped kernel whole groups are read, at least one.
        channels: The number of input channels to read of each filter.
    """
    source = layer.source if isinstance(layer, Tied) else layer
    known = next((KERNELS_OF[kind] for kind in type(source).__mro__ if kind in KERNELS_OF), {})
    return [read(source, name, arrange, filters, channels) for name, arrange in known.items()]


def read(
    layer: keras.layers.Layer, name: str, arrange: "Arrange", filters: int | None, channels: int | None
) -> KernelArray:
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
    colours = -2 if in_colour else None
    return KernelArray(name, tuple(kernel.shape), values, groups, inputs, all_filters, all_groups, colours)


# How each kernel is arranged: (the kernel as `(*taps, inputs per group, filters)`, the groups).
Arrange: TypeAlias = Callable[[keras.layers.Layer, Tensor], tuple[Tensor, int]]


def convolution(layer: keras.layers.Layer, kernel: Tensor) -> tuple[Tensor, int]:
    return kernel, layer.groups


def depthwise(layer: keras.layers.Layer, kernel: Tensor) -> tuple[Tensor, int]:
    *taps, channels, multiplier = kernel.shape
    return ops.reshape(kernel, (*taps, 1, channels * multiplier)), channels


def pointwise(layer: keras.layers.Layer, kernel: Tensor) -> tuple[Tensor, int]:
    return kernel, 1


def transposed_convolution(layer: keras.layers.Layer, kernel: Tensor) -> tuple[Tensor, int]:
    return ops.swapaxes(kernel, -1, -2), 1


def matrix(layer: keras.layers.Layer, kernel: Tensor) -> tuple[Tensor, int]:
    return (kernel if len(kernel.shape) == 2 else ops.reshape(kernel, (-1, kernel.shape[-1]))), 1


KERNELS_OF: dict[type, dict[str, Arrange]] = {
    **dict.fromkeys((L.Conv1D, L.Conv2D, L.Conv3D), {"kernel": convolution}),
    **dict.fromkeys((L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose), {"kernel": transposed_convolution}),
    **dict.fromkeys((L.DepthwiseConv1D, L.DepthwiseConv2D), {"kernel": depthwise}),
    **dict.fromkeys(
        (L.SeparableConv1D, L.SeparableConv2D), {"depthwise_kernel": depthwise, "pointwise_kernel": pointwise}
    ),
    **dict.fromkeys((L.Dense, L.EinsumDense), {"kernel": matrix}),
    L.Embedding: {"embeddings": matrix},
}
