"""Calls that distribute: adjoints of convolutions and of pooling, and transposed convolutions.

Each is the adjoint of a convolution's geometry, restricted to some of its outputs. What no window reaches is zero, and filled
in before a bias is added.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from keras import ops

from keras_adjoint.blocks.interval import Box, Covered, Interval, Transposed, part_of, reach
from keras_adjoint.blocks.pointwise import mixed_by_activation
from keras_adjoint.blocks.rule import Local, Rule, along_space, first_axis, in_space, sizes_in_space
from keras_adjoint.blocks.sized_call import SizedCall
from keras_adjoint.blocks.windows import counts_inside, edges_of
from keras_adjoint.errors import NoRuleError
from keras_adjoint.layers.conv_transpose import transposed_windows_of
from keras_adjoint.layers.kernel import read_kernel
from keras_adjoint.layers.pooling import in_equal_frames
from keras_adjoint.ops import Tensor
from keras_adjoint.ops.algorithms.choose import BY_NAME, adjoint_convolution, choose
from keras_adjoint.ops.algorithms.problem import Problem
from keras_adjoint.ops.axes import move_axis
from keras_adjoint.ops.backend import current
from keras_adjoint.ops.geometry import Axis, Convolution
from keras_adjoint.ops.maxima import put_back
from keras_adjoint.ops.window import overlap_add, window


@dataclass(frozen=True)
class Part:
    """Some positions of the adjoint of a convolution along one axis.

    Attributes:
        along: The geometry from the positions that some output reaches to the outputs that are given.
        start: Where the positions that are made begin, after the first of those.
        length: How many are made.
    """

    along: Axis
    start: int
    length: int


def part_along(whole: Axis, given: Interval, made: Interval) -> Part:
    """The part that makes the positions `made` from the outputs `given`."""
    reached = reach(whole, given)
    start, stop = max(reached.start, made.start), min(reached.stop, made.stop)
    inside = Interval(start, stop) if start < stop else Interval(reached.start, reached.start + 1)
    return Part(part_of(whole, inside, given), made.start - inside.start, made.size)


@dataclass(frozen=True)
class ByAdjoint(Local):
    """An adjoint convolution from some outputs to some positions."""

    parts: tuple[Part, ...]
    groups: int

    @property
    def convolution(self) -> Convolution:
        return Convolution(tuple(part.along for part in self.parts), self.groups)

    def cut(self, x: Tensor) -> Tensor:
        """The positions that are made, with zeros where nothing is reached."""
        return window(x, [part.start for part in self.parts], [part.length for part in self.parts])


class ByAdjointLayer(ByAdjoint):
    """By a layer of this package."""

    def apply(self, call: SizedCall, operation: Any, tensors: list[Tensor]) -> Tensor:
        y = operation.prepared(ops.cast(tensors[0], operation.compute_dtype))
        problem = self.problem(operation, y.shape[0], current().device_of(y))
        named = operation.algorithm if operation.algorithm and BY_NAME[operation.algorithm].fits(problem) else None
        transpose = partial(adjoint_convolution, convolution=self.convolution, algorithm=named)
        return operation.finished(self.cut(operation.apply_transpose(y, transpose)))

    def problem(self, operation: Any, batch: int | None, device: str) -> Problem:
        """What is asked of an algorithm."""
        channels, filters = operation.convolved_channels()
        return Problem(self.convolution, batch, channels, filters, device, operation.compute_dtype)

    def workspace(self, operation: Any, batch: int) -> int:
        problem = self.problem(operation, batch, "cpu")
        algorithm = choose(problem)
        return algorithm.work(problem).workspace + problem.inputs


class ByConvTranspose(ByAdjoint):
    """By a transposed convolution of Keras', with its bias and activation."""

    def apply(self, call: SizedCall, operation: Any, tensors: list[Tensor]) -> Tensor:
        dtype, first = operation.compute_dtype, operation.data_format == "channels_first"
        y = ops.cast(move_axis(tensors[0], 1, -1) if first else tensors[0], dtype)
        kernel = ops.cast(ops.convert_to_tensor(read_kernel(operation)), dtype)
        x = self.cut(adjoint_convolution(y, kernel, self.convolution))
        if operation.bias is not None:
            x = x + ops.cast(operation.bias, dtype)
        x = move_axis(x, -1, 1) if first else x
        return x if operation.activation is None else operation.activation(x)


def adjoint_convolution_rule(call: SizedCall, layer: Any) -> Rule:
    """The adjoints of convolutions of every kind."""
    sizes = sizes_in_space(call.out_shape, layer.data_format)
    windows = [one.at(size) for one, size in zip(layer.windows, sizes, strict=True)]
    return _by_adjoint(call, layer, windows, ByAdjointLayer, int(layer.groups))


def transposed_convolution(call: SizedCall, layer: Any) -> Rule:
    """`Conv1DTranspose`, `Conv2DTranspose` and `Conv3DTranspose`."""
    own = transposed_windows_of(layer)
    if current().SHIFTS_CONV_TRANSPOSE and any(one.cropped % 2 for one in own):
        raise NoRuleError(
            f"This version of Keras computes `{call.place}` one position off on PyTorch (keras-team/keras#22876), and its "
            f"blocks would not be. Upgrade to Keras 3.15. Received: {call.describe()}"
        )
    sizes = sizes_in_space(call.out_shape, layer.data_format)
    windows = [one.at(size) for one, size in zip(own, sizes, strict=True)]
    return _by_adjoint(call, layer, windows, ByConvTranspose, 1)


def _by_adjoint(call: SizedCall, layer: Any, windows: list[Axis], made_by: type[ByAdjoint], groups: int) -> Rule:
    data_format = layer.data_format
    alongs = [Transposed(axis, w.outputs, w) for axis, w in enumerate(windows, first_axis(data_format) - 1)]

    def local(made: Box, read: list[Box]) -> Local:
        boxes = zip(windows, in_space(read[0], data_format), in_space(made, data_format), strict=True)
        return made_by(tuple(part_along(*each) for each in boxes), groups)

    mixes = frozenset(mixed_by_activation(getattr(layer, "activation", None), len(call.out_shape), layer))
    return Rule((along_space(len(call.out_shape), data_format, alongs),), local, mixes, layer)


# --- the adjoint of average pooling


@dataclass(frozen=True)
class Distributed(Local):
    """Averages distributed over the positions that they were taken from, one axis after the other.

    Attributes:
        parts: The part along each spatial axis; of edges that are replicated, with the positions beyond them.
        counts: Over how many positions each average was taken.
        joined: How many positions beyond each edge join the edge.
        first: The first spatial axis of a batch.
    """

    parts: tuple[Part, ...]
    counts: tuple[tuple[int, ...], ...]
    joined: tuple[tuple[int, int], ...]
    first: int

    def apply(self, call: SizedCall, operation: Any, tensors: list[Tensor]) -> Tensor:
        x = ops.cast(tensors[0], operation.compute_dtype)
        each = zip(self.parts, self.counts, self.joined, strict=True)
        for axis, (part, counts, (before, after)) in enumerate(each, self.first):
            shape = (-1,) + (1,) * (len(x.shape) - axis - 1)
            x = x / ops.reshape(ops.convert_to_tensor(np.array(counts, "float64"), x.dtype), shape)
            x = overlap_add(in_equal_frames(x, part.along.taps), axis, part.along)
            x = window(x, [part.start], [part.length], first_axis=axis)
            x = _join(x, axis, 0, before + 1) if before else x
            x = _join(x, axis, x.shape[axis] - after - 1, None) if after else x
        return x


def _join(x: Tensor, axis: int, start: int, stop: int | None) -> Tensor:
    """Positions start … stop − 1 become one, their sum."""

    def cut(*bounds: int | None) -> Tensor:
        return x[(slice(None),) * axis + (slice(*bounds),)]

    kept = [ops.sum(cut(start, stop), axis=axis, keepdims=True)]
    kept = [cut(0, start), *kept] if start else kept
    return ops.concatenate([*kept, cut(stop, None)] if stop is not None and stop < x.shape[axis] else kept, axis=axis)


def adjoint_of_average(call: SizedCall, layer: Any) -> Rule:
    """`AdjointAveragePooling`."""
    data_format = layer.data_format
    sizes = sizes_in_space(call.out_shape, data_format)
    windows = [one.at(size) for one, size in zip(layer.windows, sizes, strict=True)]
    replicated = edges_of(layer.source, windows) == "replicated"
    offset = first_axis(data_format) - 1
    alongs = [_Pooled(axis, w.outputs, w, replicated) for axis, w in enumerate(windows, offset)]

    def local(made: Box, read: list[Box]) -> Local:
        parts, counts, joined = [], [], []
        for along, given, wanted in zip(
            alongs, in_space(read[0], data_format), in_space(made, data_format), strict=True
        ):
            w, extended = along.window, along.extended(wanted)
            parts.append(part_along(w, given, extended))
            counts.append((w.taps,) * given.size if replicated else counts_inside(w, given))
            joined.append((wanted.start - extended.start, extended.stop - wanted.stop))
        return Distributed(tuple(parts), tuple(counts), tuple(joined), offset + 1)

    return Rule((along_space(len(call.out_shape), data_format, alongs),), local, operation=layer)


# --- the adjoint of max pooling


@dataclass(frozen=True)
class PutBack(Local):
    """Maxima put back where they came from.

    Attributes:
        windows: The geometry along each spatial axis, from the switches that are read to the values that are read.
        starts: Where the positions that are made begin, after the first of the switches.
        lengths: How many are made.
        first: The first spatial axis of a batch.
    """

    windows: tuple[Axis, ...]
    starts: tuple[int, ...]
    lengths: tuple[int, ...]
    first: int

    def apply(self, call: SizedCall, operation: Any, tensors: list[Tensor]) -> Tensor:
        y, switches = operation.as_computed(*tensors)
        return window(put_back(y, switches, self.windows, self.first), self.starts, self.lengths, self.first)


def adjoint_of_maximum(call: SizedCall, layer: Any) -> Rule:
    """`AdjointMaxPooling`, which reads all switches of the windows that a position is in."""
    data_format = layer.data_format
    sizes = sizes_in_space(call.out_shape, data_format)
    windows = [one.at(size) for one, size in zip(layer.windows, sizes, strict=True)]
    offset = first_axis(data_format) - 1
    values = [Transposed(axis, w.outputs, w) for axis, w in enumerate(windows, offset)]
    switches = [Covered(axis, w.size, w) for axis, w in enumerate(windows, offset)]

    def local(made: Box, read: list[Box]) -> Local:
        given, compared, wanted = (in_space(box, data_format) for box in (*read, made))
        parts = tuple(part_of(*each) for each in zip(windows, compared, given, strict=True))
        starts = tuple(one.start - origin.start for one, origin in zip(wanted, compared, strict=True))
        return PutBack(parts, starts, tuple(one.size for one in wanted), offset + 1)

    reads = tuple(along_space(len(call.out_shape), data_format, alongs) for alongs in (values, switches))
    return Rule(reads, local, operation=layer)


@dataclass(frozen=True)
class _Pooled(Transposed):
    """The adjoint of pooling: with replicated edges, the first and last positions have the shares of those beyond them."""

    replicated: bool

    @property
    def beyond_end(self) -> int:
        return max(self.window.pad_after, 0)

    def extended(self, made: Interval) -> Interval:
        """The positions whose shares are added up in some positions."""
        if not self.replicated:
            return made
        window = self.window
        before = window.pad_before if made.start == 0 else 0
        after = max(window.pad_after, 0) if made.stop == window.size else 0
        return Interval(made.start - before, made.stop + after)

    def reads(self, made: Interval) -> Interval:
        return super().reads(self.extended(made))
