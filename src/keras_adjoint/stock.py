"""Adjoint layers written out in stock Keras layers: a table from tied layer types to lists of layers with their weights.

Every entry works on channels-last tensors of known size and returns `Step`s. Nothing of them refers to this package.
"""

import math
from dataclasses import dataclass, field
from itertools import chain

import keras
import numpy as np
from keras import ops

from keras_adjoint.errors import NoRuleError
from keras_adjoint.kernels import transpose_kernel
from keras_adjoint.layers.conv import AdjointConv
from keras_adjoint.layers.conv_transpose import AdjointConvTranspose
from keras_adjoint.layers.dense import AdjointDense, AdjointEinsumDense, AdjointEmbedding
from keras_adjoint.layers.depthwise import AdjointDepthwiseConv, AdjointSeparableConv
from keras_adjoint.layers.norm import (
    AdjointBatchNormalization,
    AdjointLayerScale,
    AdjointNormalization,
    AdjointRescaling,
)
from keras_adjoint.layers.pooling import AdjointAveragePooling, AdjointGlobalAveragePooling
from keras_adjoint.layers.shape import AdjointRepeatVector, AdjointReshape, AdjointZeroPadding1D
from keras_adjoint.layers.upsampling import AdjointUpSampling
from keras_adjoint.lowerings import stuffed, subpixel
from keras_adjoint.lowerings.choose import Convolution

L = keras.layers
CONV = {1: L.Conv1D, 2: L.Conv2D, 3: L.Conv3D}
CONV_TRANSPOSE = {1: L.Conv1DTranspose, 2: L.Conv2DTranspose, 3: L.Conv3DTranspose}
ZERO_PADDING = {1: L.ZeroPadding1D, 2: L.ZeroPadding2D, 3: L.ZeroPadding3D}
CROPPING = {1: L.Cropping1D, 2: L.Cropping2D, 3: L.Cropping3D}
UP_SAMPLING = {1: L.UpSampling1D, 2: L.UpSampling2D, 3: L.UpSampling3D}
LARGEST_KERNEL = 2**26  # elements of a grouped kernel written out with its zeros

KINDS = ("conv_transpose", "conv")


@dataclass(frozen=True)
class Step:
    """A stock layer and the arrays to be set as its weights once it is built."""

    layer: keras.layers.Layer
    weights: list = field(default_factory=list)


def stock_steps(tied, input_shape, output_shape, to):
    """The layers that compute what `tied` computes.

    Args:
        tied: An adjoint layer, built.
        input_shape: Shape of its input, batch axis included.
        output_shape: Shape of its output.
        to: "conv_transpose" or "conv".

    Returns:
        A list of `Step`.

    Raises:
        NoRuleError: If stock layers cannot compute it, or not without knowing a size that is not known.
    """
    write = WRITERS.get(type(tied))
    if write is None:
        refuse(tied, "no arrangement of stock layers computes it")
    return write(tied, input_shape, output_shape, to)


def refuse(tied, reason):
    raise NoRuleError(f"`{tied.name}` cannot be written out in stock layers: {reason}. Received: {type(tied).__name__}")


def known(tied, shape):
    """The sizes of a shape, all of which must be known."""
    if any(size is None for size in shape):
        refuse(tied, f"that takes a known size, and it is {tuple(shape)}. Build the model with fixed sizes")
    return tuple(shape)


def array(value):
    return ops.convert_to_numpy(value)


# --- small pieces


def windowed(signed_pads):
    """Zeros added (positive) or positions cut (negative) in front of and behind every axis."""
    rank = len(signed_pads)
    cuts = [tuple(max(-pad, 0) for pad in pair) for pair in signed_pads]
    pads = [tuple(max(pad, 0) for pad in pair) for pair in signed_pads]
    steps = []
    for layer_class, amounts in ((CROPPING[rank], cuts), (ZERO_PADDING[rank], pads)):
        if any(chain(*amounts)):
            steps.append(Step(layer_class(amounts[0] if rank == 1 else tuple(amounts), **LAST[rank, layer_class])))
    return steps


LAST = {
    (rank, layer_class): {} if layer_class is L.Cropping1D else {"data_format": "channels_last"}
    for rank in CONV
    for layer_class in (CROPPING[rank], ZERO_PADDING[rank])
}


def convolved(kernel, rank, *, dilation=1, groups=1, strides=1, bias=None):
    """A "valid" convolution with a given kernel."""
    *taps, _, filters = kernel.shape
    layer = CONV[rank](
        filters,
        tuple(taps),
        strides=strides,
        dilation_rate=dilation,
        groups=groups,
        use_bias=bias is not None,
        data_format="channels_last",
    )
    return Step(layer, [kernel] if bias is None else [kernel, bias])


def mixed(tied, rank, channels):
    """The channel map and the bias that an adjoint adds at its end, as one 1 × … × 1 convolution."""
    if tied._channel_map is None and tied._bias is None:
        return []
    mixing = np.eye(channels) if tied._channel_map is None else array(tied._channel_map())
    bias = None if tied._bias is None else array(ops.convert_to_tensor(tied._bias()))
    if rank == 0:
        return [Step(L.Dense(mixing.shape[1], use_bias=bias is not None), [mixing] + ([] if bias is None else [bias]))]
    return [convolved(mixing.reshape((1,) * rank + mixing.shape), rank, bias=bias)]


def without_bias(tied):
    """y − b, as a normalisation of variance 1."""
    bias = getattr(tied.source, "bias", None)
    if tied.bias_mode != "subtract" or bias is None:
        return []
    return [Step(L.Rescaling(1.0, offset=(-array(bias)).tolist()))]


def among_channels_last(tied, rank, steps):
    """Steps between the permutations that a channels-first layer needs."""
    if tied.data_format == "channels_last":
        return steps
    to_last = L.Permute((*range(2, rank + 2), 1))
    to_first = L.Permute((rank + 1, *range(1, rank + 1)))
    return [Step(to_last), *steps, Step(to_first)]


def spatial_of(tied, shape):
    return tuple(shape[1:-1] if tied.data_format == "channels_last" else shape[2:])


# --- convolutions


def conv(tied, input_shape, output_shape, to):
    kernel, groups, before = forward_kernel(tied)
    rank = tied.rank
    sizes = known(tied, spatial_of(tied, output_shape))
    axes = tuple(window.at(size) for window, size in zip(tied.windows, sizes, strict=True))
    convolution = Convolution(axes, groups)
    write = as_transposed if to == "conv_transpose" else as_phases if subpixel.fits(convolution) else as_stuffed
    middle = write(tied, kernel, convolution)
    steps = [*without_bias(tied), *before, *middle, *mixed(tied, rank, tied.source_channels())]
    return among_channels_last(tied, rank, steps)


def forward_kernel(tied):
    """(kernel `(*taps, channels / groups, filters)`, groups, steps that come before it)."""
    if isinstance(tied, AdjointDepthwiseConv):
        separable = isinstance(tied, AdjointSeparableConv)
        depthwise = array(tied.read("depthwise_kernel" if separable else "kernel"))
        *taps, channels, multiplier = depthwise.shape
        before = []
        if separable:
            before = [convolved(np.swapaxes(array(tied.read("pointwise_kernel")), -1, -2), len(taps))]
        return depthwise.reshape(*taps, 1, channels * multiplier), channels, before
    return array(tied.read()), tied.groups, []


def as_transposed(tied, kernel, convolution):
    """A transposed convolution with the very same kernel, cropped or padded to the size."""
    rank = len(convolution.axes)
    if kernel.size * convolution.groups > LARGEST_KERNEL:
        refuse(tied, f'{convolution.groups} groups make too large a kernel for one layer; use `to="conv"`')
    kernel = transpose_kernel(kernel, "conv_transpose", layout="DHW"[-rank:] + "IO", groups=convolution.groups)
    strides = tuple(axis.stride for axis in convolution.axes)
    kernel = spread_taps(kernel, [axis.dilation for axis in convolution.axes])
    *taps, channels, _ = kernel.shape
    layer = CONV_TRANSPOSE[rank](channels, tuple(taps), strides=strides, use_bias=False, data_format="channels_last")
    full = [(axis.outputs - 1) * axis.stride + max(axis.reach, axis.stride) for axis in convolution.axes]
    pads = [(-a.before, a.before + a.size - length) for a, length in zip(convolution.axes, full, strict=True)]
    return [Step(layer, [kernel]), *windowed(pads)]


def spread_taps(kernel, dilations):
    """A dilated kernel with its zeros written out, since no stock transposed layer dilates on every backend."""
    for axis, dilation in enumerate(dilations):
        if dilation > 1:
            shape = list(kernel.shape)
            shape[axis] = (shape[axis] - 1) * dilation + 1
            spread = np.zeros(shape, kernel.dtype)
            spread[(slice(None),) * axis + (slice(None, None, dilation),)] = kernel
            kernel = spread
    return kernel


def as_phases(tied, kernel, convolution):
    """A plain convolution to ∏s phases, then an interleave by reshapes; see `lowerings.subpixel`."""
    axes, groups = convolution.axes, convolution.groups
    rank = len(axes)
    plan = subpixel.plan(convolution)
    phases = array(subpixel.phase_kernel(ops.convert_to_tensor(kernel), convolution))
    pads = [
        (-start, start + length - axis.outputs)
        for start, length, axis in zip(plan.starts, plan.lengths, axes, strict=True)
    ]
    steps = [*windowed(pads), convolved(phases, rank, dilation=plan.dilation, groups=groups)]
    strides = [axis.stride for axis in axes]
    if any(stride > 1 for stride in strides):
        channels = kernel.shape[-2]
        pairs = [(1 + i, 2 + rank + i) for i in range(rank)]
        steps.append(Step(L.Reshape((*plan.steps, groups, *strides, channels))))
        steps.append(Step(L.Permute((*chain(*pairs), 1 + rank, 2 + 2 * rank))))
        sizes = tuple(step * stride for step, stride in zip(plan.steps, strides, strict=True))
        steps.append(Step(L.Reshape((*sizes, groups * channels))))
        steps += windowed(
            [(-first, first + axis.size - size) for first, axis, size in zip(plan.firsts, axes, sizes, strict=True)]
        )
    return steps


def as_stuffed(tied, kernel, convolution):
    """Zeros between the elements by padding one axis at a time, then a plain convolution; see `lowerings.stuffed`."""
    axes, groups = convolution.axes, convolution.groups
    sizes = [axis.outputs for axis in axes]
    filters = kernel.shape[-1]
    steps = []
    for number, axis in enumerate(axes):
        rest = math.prod(sizes[number + 1 :]) * filters
        steps.append(Step(L.Reshape((math.prod(sizes[: number + 1]), 1, rest))))
        steps.append(Step(L.ZeroPadding2D(((0, 0), (0, axis.stride - 1)), data_format="channels_last")))
        sizes[number] *= axis.stride
    steps.append(Step(L.Reshape((*sizes, filters))))
    pads = []
    for axis, size in zip(axes, sizes, strict=True):
        start = axis.before - axis.reach + 1
        pads.append((-start, start + axis.size + axis.reach - 1 - size))
    flipped = array(stuffed.flipped_kernel(ops.convert_to_tensor(kernel), groups))
    dilation = tuple(axis.dilation for axis in axes)
    return [*steps, *windowed(pads), convolved(flipped, len(axes), dilation=dilation, groups=groups)]


def conv_transpose(tied, input_shape, output_shape, to):
    sizes = known(tied, spatial_of(tied, input_shape))
    axes = [window.at(size) for window, size in zip(tied.windows, sizes, strict=True)]
    rank = len(axes)
    kernel = spread_taps(array(tied.read()), [axis.dilation for axis in axes])
    pads = [(axis.before, axis.padded_size - axis.before - axis.size) for axis in axes]
    strides = tuple(axis.stride for axis in axes)
    middle = [*windowed(pads), convolved(kernel, rank, strides=strides)]
    steps = [*without_bias(tied), *middle, *mixed(tied, rank, tied.source_channels())]
    return among_channels_last(tied, rank, steps)


# --- matrix products


def dense(tied, input_shape, output_shape, to):
    kernel = array(tied.read()).T
    return [*without_bias(tied), multiplied(kernel), *mixed(tied, 0, kernel.shape[1])]


def multiplied(matrix):
    return Step(L.Dense(matrix.shape[1], use_bias=False), [matrix])


def embedding(tied, input_shape, output_shape, to):
    return [multiplied(array(tied.read()).T)]


def einsum(tied, input_shape, output_shape, to):
    steps = without_bias(tied)
    if steps and tied.source.bias.shape[0:1] != tied.source.bias.shape:
        refuse(tied, "its bias has several axes")
    inner = tuple(size for size in output_shape[1:])
    if "..." in tied.equation:
        letters = tied.equation.split("->")[1]
        inner = output_shape[1 : len(letters.partition("...")[0])] if letters.endswith("...") else output_shape[-len(letters) + 3 :]
    return [*steps, Step(L.EinsumDense(tied.equation, output_shape=tuple(inner)), [array(tied.read())])]


# --- scales, shapes, pools


def scaling(tied, input_shape, output_shape, to):
    rank = len(input_shape)
    scale, shift = (np.broadcast_to(array(value), (1,) * rank) if not value.shape else array(value) for value in map(
        ops.convert_to_tensor, tied.scale_and_shift(rank)
    ))
    scale, shift = np.atleast_1d(np.squeeze(scale, 0) if scale.ndim == rank else scale), np.squeeze(shift, 0) if (
        shift.ndim == rank
    ) else shift
    offset = -scale * shift if tied.bias_mode == "subtract" else np.zeros(1)
    varying = [axis for axis, size in enumerate(np.broadcast_shapes(scale.shape, (1,) * (rank - 1))) if size > 1]
    if len(varying) > 1:
        refuse(tied, "it scales along several axes")
    axis = varying[0] if varying else rank - 2
    order = [i for i in range(rank - 1) if i != axis] + [axis]
    step = Step(L.Rescaling(np.ravel(scale).tolist(), offset=np.ravel(offset).tolist()))
    if order == sorted(order):
        return [step]
    inverse = np.argsort(order)
    return [Step(L.Permute(tuple(i + 1 for i in order))), step, Step(L.Permute(tuple(int(i) + 1 for i in inverse)))]


def reshape(tied, input_shape, output_shape, to):
    shape = known(tied, output_shape[1:])
    if isinstance(tied.source, L.Flatten) and tied.data_format == "channels_first" and len(shape) > 1:
        channels, *sizes = shape
        rank = len(sizes)
        return [Step(L.Reshape((*sizes, channels))), Step(L.Permute((rank + 1, *range(1, rank + 1))))]
    return [Step(L.Reshape(shape))]


def repeat_vector(tied, input_shape, output_shape, to):
    copies = tied.source.n
    return [Step(L.GlobalAveragePooling1D(data_format="channels_last")), Step(L.Rescaling(float(copies)))]


def zero_padding_1d(tied, input_shape, output_shape, to):
    return [Step(L.Permute((2, 1))), Step(L.Cropping1D(tied.source.padding)), Step(L.Permute((2, 1)))]


def global_average_pooling(tied, input_shape, output_shape, to):
    sizes = known(tied, spatial_of(tied, output_shape))
    channels = input_shape[-1] if tied.data_format == "channels_last" else input_shape[1]
    rank = len(sizes)
    steps = [
        Step(L.Reshape((*(1,) * rank, channels))),
        Step(UP_SAMPLING[rank](sizes[0] if rank == 1 else sizes, **({} if rank == 1 else {"data_format": "channels_last"}))),
        Step(L.Rescaling(1.0 / math.prod(sizes))),
    ]
    return steps if tied.data_format == "channels_last" else among_channels_last(tied, rank, steps)[1:]


def along_each_axis(tied, input_shape, output_shape, to):
    """A layer that acts along one spatial axis after the other: one matrix product each."""
    sizes = known(tied, spatial_of(tied, output_shape))
    rank = len(sizes)
    steps = []
    for axis, matrix in enumerate(tied.matrices_along(sizes)):
        order = [i for i in range(1, rank + 2) if i != axis + 1] + [axis + 1]
        inverse = tuple(int(i) + 1 for i in np.argsort(order))
        steps += [Step(L.Permute(tuple(order))), multiplied(matrix), Step(L.Permute(inverse))]
    return among_channels_last(tied, rank, steps)


WRITERS = {
    AdjointConv: conv,
    AdjointDepthwiseConv: conv,
    AdjointSeparableConv: conv,
    AdjointConvTranspose: conv_transpose,
    AdjointDense: dense,
    AdjointEmbedding: embedding,
    AdjointEinsumDense: einsum,
    AdjointBatchNormalization: scaling,
    AdjointNormalization: scaling,
    AdjointRescaling: scaling,
    AdjointLayerScale: scaling,
    AdjointReshape: reshape,
    AdjointRepeatVector: repeat_vector,
    AdjointZeroPadding1D: zero_padding_1d,
    AdjointAveragePooling: along_each_axis,
    AdjointGlobalAveragePooling: global_average_pooling,
    AdjointUpSampling: along_each_axis,
}
