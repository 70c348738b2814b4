"""Calls that move numbers: cropping and zero padding, up-sampling and its adjoint, permutations, and shares of merges."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from keras_adjoint.blocks.interval import Along, Box, Collected, Repeated, Shifted
from keras_adjoint.blocks.rule import Local, Rule, along_space, first_axis, in_space, sizes_in_space
from keras_adjoint.blocks.sized_call import SizedCall
from keras_adjoint.errors import NoRuleError
from keras_adjoint.layers.merge import AdjointConcatenate
from keras_adjoint.layers.upsampling import COLLECT, interpolation_of
from keras_adjoint.ops import Tensor
from keras_adjoint.ops.window import window


@dataclass(frozen=True)
class Cut(Local):
    """A window of what is read, with zeros beyond its edges."""

    starts: tuple[int, ...]
    lengths: tuple[int, ...]
    first: int

    def apply(self, call: SizedCall, operation: Any, tensors: list[Tensor]) -> Tensor:
        return window(ops.cast(tensors[0], operation.compute_dtype), self.starts, self.lengths, self.first)


def _shifting(call: SizedCall, layer: Any, before: list[int], data_format: str) -> Rule:
    """Output p is input p + before, or zero."""
    offset = first_axis(data_format) - 1
    sizes = sizes_in_space(call.in_shapes[0], data_format)
    alongs = [Shifted(axis, size, by) for axis, (size, by) in enumerate(zip(sizes, before, strict=True), offset)]

    def local(made: Box, read: list[Box]) -> Local:
        boxes = zip(alongs, in_space(made, data_format), in_space(read[0], data_format), strict=True)
        starts, lengths = zip(*((one.start + a.by - held.start, one.size) for a, one, held in boxes), strict=True)
        return Cut(starts, lengths, offset + 1)

    return Rule((along_space(len(sizes) + 1, data_format, alongs),), local, operation=layer)


def padded(call: SizedCall, layer: Any) -> Rule:
    """Zero padding."""
    return _shifting(call, layer, [-before for before, _ in _pairs(layer.padding)], layer.data_format)


def cropped(call: SizedCall, layer: Any) -> Rule:
    """Cropping, which of one axis knows no data format."""
    return _shifting(
        call, layer, [before for before, _ in _pairs(layer.cropping)], getattr(layer, "data_format", "channels_last")
    )


def adjoint_of_padding(call: SizedCall, layer: Any) -> Rule:
    """`AdjointZeroPadding1D`."""
    return _shifting(call, layer, [layer.source.padding[0]], "channels_first")


def _pairs(pads: Any) -> list[tuple[int, int]]:
    return [tuple(pads)] if isinstance(pads[0], int) else [tuple(pair) for pair in pads]


# --- up-sampling


@dataclass(frozen=True)
class Taken(Local):
    """Every position of the output is a mean of two positions of what is read.

    Attributes:
        positions: Along each spatial axis (the first, the second, the weight of the second) for every position.
        first: The first spatial axis of a batch.
    """

    positions: tuple[tuple[tuple[int, int, float], ...], ...]
    first: int

    def apply(self, call: SizedCall, operation: Any, tensors: list[Tensor]) -> Tensor:
        x = ops.cast(tensors[0], operation.compute_dtype)
        for axis, positions in enumerate(self.positions, self.first):
            one, other, weights = (np.array(each) for each in zip(*positions, strict=True))
            taken = ops.take(x, one, axis=axis)
            if weights.any():
                shape = (-1,) + (1,) * (len(x.shape) - axis - 1)
                weight = ops.reshape(ops.convert_to_tensor(weights, x.dtype), shape)
                taken = taken * (1 - weight) + ops.take(x, other, axis=axis) * weight
            x = taken
        return x


def upsampled(call: SizedCall, layer: Any) -> Rule:
    """Up-sampling: by copies, or by means of the two nearest, where pixel centres are at half-integers."""
    _check_interpolation(call, layer)
    is_linear, factors = interpolation_of(layer) == "bilinear", _factors(layer)

    def position(factor: int, at: int, size: int) -> tuple[int, int, float]:
        if not is_linear:
            return at // factor, at // factor, 0.0
        where = (at + 0.5) / factor - 0.5
        first = int(np.floor(where))
        return max(first, 0), min(first + 1, size - 1), where - first

    return _taking(call, layer, _format(layer), [(factor, 0, int(is_linear)) for factor in factors], position)


def spread(call: SizedCall, layer: Any) -> Rule:
    """`SpreadPooling`: position p has the value of window ⌊(p + pad_before) / stride⌋, or of the last one."""
    sizes = sizes_in_space(call.out_shape, layer.data_format)
    windows = [one.at(size) for one, size in zip(layer.windows, sizes, strict=True)]
    steps = [(one.stride, one.pad_before, 0) for one in windows]

    def position(factor: int, at: int, size: int) -> tuple[int, int, float]:
        return min(at // factor, size - 1), 0, 0.0

    return _taking(call, layer, layer.data_format, steps, position)


def _taking(call: SizedCall, layer: Any, data_format: str, steps: list[tuple[int, int, int]], position: Any) -> Rule:
    offset = first_axis(data_format) - 1
    sizes = sizes_in_space(call.in_shapes[0], data_format)
    alongs = [Repeated(axis, size, *step) for axis, (size, step) in enumerate(zip(sizes, steps, strict=True), offset)]

    def local(made: Box, read: list[Box]) -> Local:
        positions = []
        for along, wanted, held in zip(
            alongs, in_space(made, data_format), in_space(read[0], data_format), strict=True
        ):
            found = [position(along.factor, at + along.shift, along.size) for at in range(*wanted)]
            positions.append(
                tuple((one - held.start, other - held.start if weight else 0, weight) for one, other, weight in found)
            )
        return Taken(tuple(positions), offset + 1)

    return Rule((along_space(len(sizes) + 1, data_format, alongs),), local, operation=layer)


@dataclass(frozen=True)
class Summed(Local):
    """The adjoint of up-sampling of what is read, and of that a window."""

    cut: Cut

    def apply(self, call: SizedCall, operation: Any, tensors: list[Tensor]) -> Tensor:
        x = ops.cast(tensors[0], operation.compute_dtype)
        for axis, factor in enumerate(operation.factors, operation.first_axis):
            x = COLLECT[operation.interpolation](x, axis, factor)
        return self.cut.apply(call, operation, [x])


def adjoint_of_upsampling(call: SizedCall, layer: Any) -> Rule:
    """`AdjointUpSampling`."""
    data_format, offset = layer.data_format, layer.first_axis - 1
    neighbours = int(layer.interpolation == "bilinear")
    sizes = sizes_in_space(call.in_shapes[0], data_format)
    pairs = zip(sizes, layer.factors, strict=True)
    alongs = [Collected(axis, size, factor, neighbours) for axis, (size, factor) in enumerate(pairs, offset)]

    def local(made: Box, read: list[Box]) -> Local:
        boxes = list(zip(alongs, in_space(made, data_format), in_space(read[0], data_format), strict=True))
        starts = tuple(wanted.start - held.start // along.factor for along, wanted, held in boxes)
        return Summed(Cut(starts, tuple(wanted.size for _, wanted, _ in boxes), offset + 1))

    return Rule((along_space(len(sizes) + 1, data_format, alongs),), local, operation=layer)


def _factors(layer: Any) -> tuple[int, ...]:
    return (layer.size,) if isinstance(layer.size, int) else tuple(layer.size)


def _format(layer: Any) -> str:
    return getattr(layer, "data_format", "channels_last")


def _check_interpolation(call: SizedCall, layer: Any) -> None:
    if interpolation_of(layer) not in COLLECT:
        raise NoRuleError(
            f"`{call.place}` interpolates in a way that no rule is known for in blocks; for nearest and bilinear there are. "
            f"Received: interpolation={interpolation_of(layer)!r}, {call.describe()}"
        )


# --- axes


def permuted(call: SizedCall, layer: Any) -> Rule:
    """Axis `a` of the output is axis `dims[a]` of the input."""
    (shape,) = call.in_shapes
    where = {axis - 1: made for made, axis in enumerate(layer.dims)}
    return Rule((tuple(Along(where[axis], size) for axis, size in enumerate(shape)),))


# --- the adjoints of merges


@dataclass(frozen=True)
class Share(Local):
    """What one of the inputs of a merge gets.

    Attributes:
        joined: The axis along which tensors were concatenated, if they were, and their sizes along it.
    """

    joined: tuple[int, tuple[int, ...]] | None = None

    def apply(self, call: SizedCall, operation: Any, tensors: list[Tensor]) -> Tensor:
        (y,) = tensors
        shape = tuple(y.shape[1:])
        shapes = [shape] * call.parts
        if self.joined is not None:
            axis, sizes = self.joined
            shapes = [(*shape[:axis], size, *shape[axis + 1 :]) for size in sizes]
        return operation.distribute(ops.cast(y, operation.compute_dtype), shapes)[call.part]


def share_of_merge(call: SizedCall, layer: Any) -> Rule:
    """The adjoint of adding, averaging and concatenating."""
    (shape,) = call.in_shapes
    if isinstance(layer, AdjointConcatenate):
        own = layer.source.axis % (len(shape) + 1) - 1
        joined = own, tuple(each[own] for each in call.all_shapes)
        reads = tuple(None if axis == own else Along(axis, size) for axis, size in enumerate(shape))
        return Rule((reads,), lambda made, read: Share(joined), operation=layer)
    if any(each != shape for each in call.all_shapes):
        raise NoRuleError(
            f"`{call.place}` is the adjoint of a merge that broadcasts, and no rule is known for its blocks. "
            f"Received: {' and '.join(map(str, call.all_shapes))}, {call.describe()}"
        )
    return Rule((tuple(Along(*each) for each in enumerate(shape)),), lambda made, read: Share(), operation=layer)
