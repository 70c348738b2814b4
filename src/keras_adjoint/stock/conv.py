"""Adjoint convolutions in stock layers: as transposed convolutions, or as plain ones."""

import math
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np

from keras_adjoint.kernels.layouts import transpose_kernel
from keras_adjoint.layers.depthwise import AdjointDepthwiseConv, AdjointSeparableConv
from keras_adjoint.layers.tied import Tied
from keras_adjoint.ops.algorithms import subpixel
from keras_adjoint.ops.geometry import Axis, Convolution
from keras_adjoint.stock.pieces import (
    L,
    among_channels_last,
    convolved,
    kernel_of,
    multiplied,
    windowed,
    with_options,
)
from keras_adjoint.stock.steps import AdjointCall, Step, step, weighted

CONV_TRANSPOSE = {1: L.Conv1DTranspose, 2: L.Conv2DTranspose, 3: L.Conv3DTranspose}
DEPTHWISE_CONV = {1: L.DepthwiseConv1D, 2: L.DepthwiseConv2D}
LAYOUT = {1: "WIO", 2: "HWIO", 3: "DHWIO"}
LARGEST_KERNEL = 2**26  # elements of a grouped kernel that is stored with its zeros


def conv(call: AdjointCall) -> list[Step]:
    """The adjoint of a convolution, depthwise or separable ones included: as `to` says."""
    tied, sizes = call.tied, call.output_sizes
    if any(window.stride > 1 for window in tied.windows):
        call.known(sizes)
    # At stride 1 every size is cut and padded alike, so that the smallest size may be substituted for one that is unknown.
    pairs = zip(tied.windows, sizes, strict=True)
    axes = tuple(window.at(window.dilated_taps if size is None else size) for window, size in pairs)
    kernel, groups, before = forward_kernel(tied)

    def convert(bias: np.ndarray | None) -> list[Step]:
        return [*before, *KINDS[call.to](call, kernel, Convolution(axes, groups), bias)]

    return among_channels_last(tied, tied.rank, with_options(tied, tied.rank, convert))


def conv_transpose(call: AdjointCall) -> list[Step]:
    """The adjoint of a transposed convolution, which is a convolution with the same array, whatever `to` says."""
    tied = call.tied
    pairs = zip(tied.windows, call.input_sizes, strict=True)
    axes = [window.at(window.outputs(1) if size is None else size) for window, size in pairs]
    pads = [(axis.pad_before, axis.padded_size - axis.pad_before - axis.size) for axis in axes]
    strides, dilation = tied.source.strides, tied.source.dilation_rate

    def convert(bias: np.ndarray | None) -> list[Step]:
        return [*windowed(pads), convolved(kernel_of(tied), bias, strides=strides, dilation_rate=dilation)]

    return among_channels_last(tied, len(axes), with_options(tied, len(axes), convert))


def forward_kernel(tied: Tied) -> tuple[np.ndarray, int, list[Step]]:
    """(kernel of shape `(*taps, channels / groups, filters)`, groups, steps that come before it)."""
    if not isinstance(tied, AdjointDepthwiseConv):
        return kernel_of(tied), tied.groups, []
    before = []
    if isinstance(tied, AdjointSeparableConv):
        pointwise = kernel_of(tied, "pointwise_kernel")
        product = multiplied(pointwise.reshape(pointwise.shape[-2:]).T, tied.rank)
        before = [replace(product, reads="pointwise_kernel")]
    kernel = kernel_of(tied, "depthwise_kernel" if before else "kernel")
    *taps, channels, multiplier = kernel.shape
    return kernel.reshape(*taps, 1, channels * multiplier), channels, before


def as_transposed(
    call: AdjointCall, kernel: np.ndarray, convolution: Convolution, bias: np.ndarray | None
) -> list[Step]:
    """A transposed convolution with the very same kernel, cropped to the size.

    Stock transposed layers have no groups, and do not dilate on every CPU, so that a grouped or dilated kernel is stored
    with its zeros. Where a stride leaves input positions unread, a zero after the outputs makes the layer reach
    them, so that they get their bias, and so that the layer is the same for every size.
    """
    rank, groups = len(convolution.axes), convolution.groups
    if groups > 1 and kernel.size * groups > LARGEST_KERNEL:
        call.refuse(f'{groups} groups make too large a kernel for one transposed convolution; use `to="conv"`')
    kernel = transpose_kernel(kernel, "conv_transpose", layout=LAYOUT[rank], groups=groups)
    kernel, axes = without_dilation(kernel, convolution.axes)
    *taps, channels, _ = kernel.shape
    strides = tuple(axis.stride for axis in axes)
    missing = [int(axis.pad_before + axis.size > transposed_size(axis, axis.outputs)) for axis in axes]
    full = [transposed_size(axis, axis.outputs + more) for axis, more in zip(axes, missing, strict=True)]
    return [
        *windowed([(0, more) for more in missing]),
        weighted(CONV_TRANSPOSE[rank], kernel, bias, filters=channels, kernel_size=tuple(taps), strides=strides),
        *windowed(
            [(-axis.pad_before, axis.pad_before + axis.size - size) for axis, size in zip(axes, full, strict=True)]
        ),
    ]


def transposed_size(axis: Axis, inputs: int) -> int:
    """The output size of a stock "valid" transposed convolution."""
    return (inputs - 1) * axis.stride + max(axis.taps, axis.stride)


def without_dilation(kernel: np.ndarray, axes: tuple[Axis, ...]) -> tuple[np.ndarray, tuple[Axis, ...]]:
    """The same convolution with the zeros between its taps as part of the kernel."""
    if all(axis.dilation == 1 for axis in axes):
        return kernel, axes
    spread = np.zeros((*(axis.dilated_taps for axis in axes), *kernel.shape[-2:]), kernel.dtype)
    spread[tuple(slice(None, None, axis.dilation) for axis in axes)] = kernel
    return spread, tuple(replace(axis, taps=axis.dilated_taps, dilation=1) for axis in axes)


def as_plain(call: AdjointCall, kernel: np.ndarray, convolution: Convolution, bias: np.ndarray | None) -> list[Step]:
    """A plain convolution, at stride s to s phases per axis that are interleaved by reshapes; see `algorithms.subpixel`.

    At stride 1 its kernel is the forward's with the taps in reverse order and the channels exchanged.
    """
    if not subpixel.in_step(convolution):
        kernel, axes = without_dilation(kernel, convolution.axes)
        convolution = replace(convolution, axes=axes)
    axes, groups = convolution.axes, convolution.groups
    plan = subpixel.plan(convolution)
    phases = math.prod(axis.stride for axis in axes)
    if bias is not None:
        bias = np.tile(bias.reshape(groups, 1, -1), (1, phases, 1)).reshape(-1)
    windows = zip(plan.starts, plan.lengths, axes, strict=True)
    pads = [(-start, start + length - axis.outputs) for start, length, axis in windows]
    plain = plain_kernel(kernel, axes, groups)
    depthwise = isinstance(call.tied, AdjointDepthwiseConv) and plain.shape[-2] == 1
    convolve = convolved_by_channel if depthwise else convolved
    steps = [*windowed(pads), convolve(plain, bias, dilation_rate=plan.dilation, groups=groups)]
    return steps if phases == 1 else [*steps, *interleaved(axes, plan, kernel.shape[-2], groups)]


def plain_kernel(kernel: np.ndarray, axes: tuple[Axis, ...], groups: int) -> np.ndarray:
    """The kernels of all phases side by side: phase r has every s-th tap of the forward's kernel, from tap r on."""
    strides = [axis.stride for axis in axes]
    pad_after = [(0, -axis.taps % axis.stride) for axis in axes]
    kernel = np.pad(kernel, [*pad_after, (0, 0), (0, 0)])
    phases = []
    for phase in np.ndindex(*strides):
        taps = kernel[tuple(slice(first, None, stride) for first, stride in zip(phase, strides, strict=True))]
        taps = transpose_kernel(taps, "conv", layout=LAYOUT[len(axes)], groups=groups)
        phases.append(taps.reshape(*taps.shape[:-1], groups, 1, -1))
    filters = np.concatenate(phases, axis=-2)  # a grouped convolution numbers its filters group by group
    return filters.reshape(*filters.shape[:-3], -1)


def convolved_by_channel(kernel: np.ndarray, bias: np.ndarray | None, *, groups: int, **options: Any) -> Step:
    """A "valid" depthwise convolution with a kernel of shape `(*taps, 1, filters)`."""
    *taps, _, filters = kernel.shape
    kernel = kernel.reshape(*taps, groups, filters // groups)
    layer_class = DEPTHWISE_CONV[len(taps)]
    return weighted(layer_class, kernel, bias, kernel_size=tuple(taps), depth_multiplier=filters // groups, **options)


def interleaved(axes: tuple[Axis, ...], plan: subpixel.Plan, channels: int, groups: int) -> list[Step]:
    """Phases side by side in the channels, put where they belong; see `algorithms.subpixel.interleave`."""
    rank = len(axes)
    strides = [axis.stride for axis in axes]
    sizes = [steps * stride for steps, stride in zip(plan.steps, strides, strict=True)]
    pairs = chain(*((1 + number, 2 + rank + number) for number in range(rank)))
    windows = zip(plan.firsts, axes, sizes, strict=True)
    return [
        step(L.Reshape, target_shape=(*plan.steps, groups, *strides, channels)),
        step(L.Permute, dims=(*pairs, 1 + rank, 2 + 2 * rank)),
        step(L.Reshape, target_shape=(*sizes, groups * channels)),
        *windowed([(-first, first + axis.size - size) for first, axis, size in windows]),
    ]


KINDS = {"conv_transpose": as_transposed, "conv": as_plain}
