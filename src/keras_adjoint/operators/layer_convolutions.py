"""Layers whose forward is a convolution or the adjoint of one: its kernel and geometry, by the class of the adjoint layer."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import keras
from keras import ops

from keras_adjoint.layers.conv import AdjointConv
from keras_adjoint.layers.conv_transpose import AdjointConvTranspose
from keras_adjoint.layers.depthwise import AdjointDepthwiseConv, AdjointSeparableConv
from keras_adjoint.layers.sizes import spatial
from keras_adjoint.layers.tied import Tied
from keras_adjoint.operators.plane_wave import plane_wave
from keras_adjoint.operators.space import Space
from keras_adjoint.operators.symbol import grids_of
from keras_adjoint.ops import Shape, Tensor
from keras_adjoint.ops.axes import move_axis
from keras_adjoint.ops.geometry import Convolution, convolution_of


@dataclass(frozen=True)
class LayerConvolution:
    """The forward of a layer as a convolution.

    Attributes:
        kernel: Tensor of shape `(*taps, channels / groups, filters)`.
        convolution: The geometry.
        is_transposed: Whether the forward is the adjoint of that convolution.
    """

    kernel: Tensor
    convolution: Convolution
    is_transposed: bool = False

    @property
    def is_large(self) -> bool:
        """Whether along some axis the zeros at the edge are far from most positions."""
        return grids_of(self.convolution, *map(int, self.kernel.shape[-2:]))[0].is_coarse


def kernel_of(layer: Tied, name: str | None = None) -> Tensor:
    """The kernel as the layer computes with it, in half precision rounded to that; in float32 at least."""
    kernel = layer.read(name)
    return kernel if keras.backend.standardize_dtype(kernel.dtype) == "float64" else ops.cast(kernel, "float32")


def sizes_of(layer: Any, space: Space) -> Shape:
    """The spatial sizes of what a layer takes or gives."""
    return spatial((None, *space.shapes[0]), layer.data_format)


def _of_conv(layer: AdjointConv, taken: Space, given: Space) -> LayerConvolution:
    return LayerConvolution(kernel_of(layer), layer.convolution(sizes_of(layer, taken)))


def _of_conv_transpose(layer: AdjointConvTranspose, taken: Space, given: Space) -> LayerConvolution:
    convolution = convolution_of(tuple(sizes_of(layer, given)), layer.windows)
    return LayerConvolution(kernel_of(layer), convolution, is_transposed=True)


def depthwise_part(layer: AdjointDepthwiseConv | AdjointSeparableConv, taken: Space, given: Space) -> LayerConvolution:
    """A depthwise convolution has a group for each channel."""
    kernel = kernel_of(layer)
    *taps, channels, multiplier = kernel.shape
    convolution = replace(layer.convolution(sizes_of(layer, taken)), groups=int(channels))
    return LayerConvolution(ops.reshape(kernel, (*taps, 1, channels * multiplier)), convolution)


def _of_separable_conv(layer: AdjointSeparableConv, taken: Space, given: Space) -> LayerConvolution:
    """The two are one convolution with the product of their kernels."""
    depthwise = kernel_of(layer)
    *_, channels, multiplier = depthwise.shape
    pointwise = ops.reshape(kernel_of(layer, "pointwise_kernel"), (channels, multiplier, -1))
    kernel = ops.sum(ops.expand_dims(depthwise, -1) * pointwise, axis=-2)
    return LayerConvolution(kernel, replace(layer.convolution(sizes_of(layer, taken)), groups=1))


CONVOLUTIONS: dict[type, Callable[[Any, Space, Space], LayerConvolution]] = {
    AdjointConv: _of_conv,
    AdjointConvTranspose: _of_conv_transpose,
    AdjointDepthwiseConv: depthwise_part,
    AdjointSeparableConv: _of_separable_conv,
}


def layer_convolution(layer: keras.layers.Layer, taken: Space, given: Space) -> LayerConvolution | None:
    """The forward of an adjoint layer, which takes and gives tensors of these spaces, as a convolution if it is one."""
    read = next((CONVOLUTIONS[each] for each in type(layer).__mro__ if each in CONVOLUTIONS), None)
    return None if read is None else read(layer, taken, given)


def near_maximum(layer: Any, found: LayerConvolution) -> tuple[Tensor, Tensor]:
    """(a row that the adjoint of the convolution lengthens nearly most, a close bound of its norm); see `plane_wave`."""
    wave, bound = plane_wave(found.kernel, found.convolution)
    if layer.data_format == "channels_first":
        wave = move_axis(wave, -1, 1)
    return ops.reshape(wave, (1, -1)), bound
