"""Calls that read windows: convolutions and pooling, and the adjoints of transposed convolutions.

The layer itself computes, without padding, from the positions that its windows have; zeros are put in front of or behind
them where the whole tensor ends, and nowhere else.
"""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_adjoint.blocks.interval import Box, Interval, Windowed, part_of
from keras_adjoint.blocks.pointwise import mixed_by_activation
from keras_adjoint.blocks.rule import Local, Rule, along_space, first_axis, in_space, sizes_in_space
from keras_adjoint.blocks.sized_call import SizedCall
from keras_adjoint.layers.conv_transpose import transposed_windows_of
from keras_adjoint.layers.sized import windows_of
from keras_adjoint.layers.tied import stand_in
from keras_adjoint.ops import Tensor
from keras_adjoint.ops.algorithms.bilinear import forward
from keras_adjoint.ops.backend import current
from keras_adjoint.ops.geometry import Axis, Convolution


@dataclass(frozen=True)
class InWindows(Local):
    """A layer without padding, on what its windows read.

    Attributes:
        windows: The geometry along each spatial axis, from what is read to what is made.
        first: The first spatial axis of a batch.
        edges: What is beyond the edges: "zeros", "lowest" numbers, nothing ("inside"), or copies of the edge ("replicated").
    """

    windows: tuple[Axis, ...]
    first: int
    edges: str = "zeros"

    def apply(self, call: SizedCall, operation: Any, tensors: list[Tensor]) -> Tensor:
        (x,) = tensors
        if self.edges == "replicated":
            for axis, window in enumerate(self.windows, self.first):
                positions = np.arange(window.pad_before + window.size + window.pad_after) - window.pad_before
                x = ops.take(x, np.clip(positions, 0, window.size - 1), axis=axis)
        elif any(window.pad_before or window.pad_after for window in self.windows):
            pads = [(0, 0)] * len(x.shape)
            for axis, window in enumerate(self.windows, self.first):
                pads[axis] = window.pad_before, window.pad_after
            x = ops.pad(x, pads, constant_values=_lowest(x) if self.edges == "lowest" else 0)
        attributes: dict[str, Any] = {"padding": "valid"}
        if current().MISCOMPUTES_ONE_COLUMN and self.windows[-1].outputs == 1:
            attributes["strides"] = (*operation.strides[:-1], 1)  # of one output, any stride gives the same
        y = call.run(stand_in(operation, attributes), [x])
        return self._averaged(y) if self.edges == "inside" else y

    def _averaged(self, y: Tensor) -> Tensor:
        """Means over the positions inside alone, of means over all positions of the windows."""
        for axis, window in enumerate(self.windows, self.first):
            counts = counts_inside(window)
            if min(counts) < window.taps:
                factor = np.array([window.taps / count for count in counts], "float64")
                shape = (-1,) + (1,) * (len(y.shape) - axis - 1)
                y = y * ops.reshape(ops.convert_to_tensor(factor, y.dtype), shape)
        return y


def _lowest(x: Tensor) -> float | int:
    dtype = keras.backend.standardize_dtype(x.dtype)
    return float("-inf") if "float" in dtype else int(np.iinfo(dtype).min)


def counts_inside(window: Axis, outputs: Interval | None = None) -> tuple[int, ...]:
    """How many positions of each window, or of those of some outputs, are inside."""
    numbers = range(window.outputs) if outputs is None else range(*outputs)
    starts = [number * window.stride - window.pad_before for number in numbers]
    return tuple(min(start + window.taps, window.size) - max(start, 0) for start in starts)


def convolution(call: SizedCall, layer: Any) -> Rule:
    """Convolutions of every kind."""
    return _in_windows(call, layer, "kernel_size", "zeros")


def maximum(call: SizedCall, layer: Any) -> Rule:
    """Max pooling."""
    return _in_windows(call, layer, "pool_size", "lowest")


def average(call: SizedCall, layer: Any) -> Rule:
    """Average pooling, over what the backend takes the means at the edges."""
    return _in_windows(call, layer, "pool_size", edges_of(layer, windows_in(call, layer, "pool_size")))


def edges_of(pool: Any, windows: list[Axis]) -> str:
    """What average pooling takes its means over at the edges."""
    if pool.padding == "valid":
        return "inside"
    return current().average_pooling_edges([w.pad_before for w in windows], [w.pad_after for w in windows])


def windows_in(call: SizedCall, layer: Any, taps: str) -> list[Axis]:
    """The windows of a layer along each spatial axis of what it takes."""
    sizes = sizes_in_space(call.in_shapes[0], layer.data_format)
    return [window.at(size) for window, size in zip(windows_of(layer, taps), sizes, strict=True)]


def _in_windows(call: SizedCall, layer: Any, taps: str, edges: str) -> Rule:
    windows, data_format = windows_in(call, layer, taps), layer.data_format
    offset = first_axis(data_format) - 1
    alongs = [Windowed(axis, window.size, window) for axis, window in enumerate(windows, offset)]

    def local(made: Box, read: list[Box]) -> Local:
        return InWindows(parts_of(windows, read[0], made, data_format), offset + 1, edges)

    mixes = frozenset(mixed_by_activation(getattr(layer, "activation", None), len(call.out_shape), layer))
    return Rule((along_space(len(call.out_shape), data_format, alongs),), local, mixes, layer)


def parts_of(windows: list[Axis], read: Box, made: Box, data_format: str) -> tuple[Axis, ...]:
    """The geometry from what is read to what is made along each spatial axis."""
    boxes = zip(windows, in_space(read, data_format), in_space(made, data_format), strict=True)
    return tuple(part_of(window, inputs, outputs) for window, inputs, outputs in boxes)


# --- the adjoints of transposed convolutions, which are convolutions


@dataclass(frozen=True)
class AsForward(Local):
    """`AdjointConvTranspose` by its own convolution."""

    part: Convolution

    def apply(self, call: SizedCall, operation: Any, tensors: list[Tensor]) -> Tensor:
        y = operation.prepared(ops.cast(tensors[0], operation.compute_dtype))
        return operation.finished(forward(y, operation.read(), self.part))


def adjoint_of_transposed(call: SizedCall, layer: Any) -> Rule:
    """The adjoint of `Conv1DTranspose` and the others."""
    data_format = layer.data_format
    sizes = sizes_in_space(call.in_shapes[0], data_format)
    windows = [window.at(size) for window, size in zip(transposed_windows_of(layer.source), sizes, strict=True)]
    alongs = [Windowed(axis, w.size, w) for axis, w in enumerate(windows, first_axis(data_format) - 1)]

    def local(made: Box, read: list[Box]) -> Local:
        return AsForward(Convolution(parts_of(windows, read[0], made, data_format)))

    return Rule((along_space(len(call.out_shape), data_format, alongs),), local, operation=layer)
