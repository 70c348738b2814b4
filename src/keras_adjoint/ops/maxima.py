"""Max pooling as the linear map that it is once its switches, the positions of the maxima, are fixed.

The pick and its adjoint go by a mask that is made of comparisons, so every backend differentiates them any number of times.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_adjoint.ops import Tensor
from keras_adjoint.ops.axes import move_axis
from keras_adjoint.ops.geometry import Axis, Window, is_known
from keras_adjoint.ops.window import cut_frames, overlap_add


def max_pool(
    x: Tensor, pool_size: Any, strides: Any = None, padding: str = "valid", data_format: str | None = None
) -> Tensor:
    """`keras.ops.max_pool`, with derivatives of every order."""
    first_axis = 1 if (data_format or keras.config.image_data_format()) == "channels_last" else 2
    rank = len(x.shape) - 2
    taps, steps = (
        each if isinstance(each, (tuple, list)) else (each,) * rank for each in (pool_size, strides or pool_size)
    )
    sizes = ops.shape(x)[first_axis : first_axis + rank]
    windows = [Window(*each, padding=padding) for each in zip(taps, steps, strict=True)]
    return pick(x, x, [window.at(size) for window, size in zip(windows, sizes, strict=True)], first_axis)


def adaptive_max_pool(x: Tensor, output_size: Any, data_format: str | None = None) -> Tensor:
    """`keras.ops.adaptive_max_pool`, with derivatives of every order, along one axis after the other."""
    first_axis = 1 if (data_format or keras.config.image_data_format()) == "channels_last" else 2
    rank = len(x.shape) - 2
    counts = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * rank
    for axis, count in enumerate(counts, first_axis):
        x = _adaptive_maxima(x, axis, count)
    return x


def _adaptive_maxima(x: Tensor, axis: int, count: int) -> Tensor:
    """The maxima of `count` windows along one axis: window j of n positions is from ⌊j n / count⌋ to ⌈(j + 1) n / count⌉."""
    size = x.shape[axis]
    windows = [range(j * size // count, -(-(j + 1) * size // count)) for j in range(count)]
    longest = max(map(len, windows))
    positions = [window[min(tap, len(window) - 1)] for window in windows for tap in range(longest)]
    shape = ops.shape(x)
    frames = ops.reshape(ops.take(x, positions, axis=axis), (*shape[:axis], count, longest, *shape[axis + 1 :]))
    frames = move_axis(frames, axis + 1, -1)
    return ops.sum(ops.where(first_maximum(frames), frames, 0), axis=-1)


def pick(x: Tensor, switches: Tensor, axes: Sequence[Axis], first_axis: int) -> Tensor:
    """A x: of every window of `x`, what stands where `switches` has its first maximum.

    Args:
        x: Tensor.
        switches: Tensor of the same shape.
        axes: The `Axis` records of successive axes of both.
        first_axis: The axis that the first record belongs to.

    Returns:
        A tensor with the outputs along those axes.
    """
    picked = ops.where(_selected(switches, axes, first_axis), _frames(x, axes, first_axis), 0)
    return ops.sum(picked, axis=tuple(range(-len(axes), 0)))


def put_back(y: Tensor, switches: Tensor, axes: Sequence[Axis], first_axis: int) -> Tensor:
    """Aᵀ y, the adjoint of `pick`: every value goes back to where it was picked, and where windows overlap, they add up."""
    selected = ops.cast(_selected(switches, axes, first_axis), y.dtype)
    frames = ops.reshape(y, (*ops.shape(y), *(1 for _ in axes))) * selected
    for number, along in reversed(list(enumerate(axes, first_axis))):
        frames = overlap_add(frames, number, along)
    return frames


def first_maximum(x: Tensor, inside: Tensor | None = None) -> Tensor:
    """True at the first maximum along the last axis, of those `inside`, if it is given.

    It is made of comparisons and minima, which every export format has. `argmax` and `one_hot` are not in all of them.
    """
    size = ops.shape(x)[-1]
    positions = ops.arange(0, size, dtype="int32")
    # Not `ops.max` and `ops.min`, which `torch.compile` does not follow.
    maxima = x == ops.amax(x, axis=-1, keepdims=True)
    maxima = maxima if inside is None else ops.logical_and(maxima, inside)
    return positions == ops.amin(ops.where(maxima, positions, size), axis=-1, keepdims=True)


def is_empty(x: Tensor) -> bool:
    """Whether a tensor has no sample, of which TensorFlow would find no maximum."""
    return is_known(x.shape[0]) and x.shape[0] == 0


def _lowest_of(dtype: str) -> float:
    """A number that no other one of a dtype lies below."""
    if "int" in dtype:
        return 0 if dtype.startswith("u") else -(2 ** (int(dtype[3:]) - 1))
    return -math.inf


def _frames(x: Tensor, axes: Sequence[Axis], first_axis: int, fill: Any = 0) -> Tensor:
    """`x` cut along every axis: the shape of the pool's output, then one axis of taps per spatial axis."""
    for number, along in enumerate(axes, first_axis):
        x = cut_frames(x, number, along, fill)
    return x


def _selected(switches: Tensor, axes: Sequence[Axis], first_axis: int) -> Tensor:
    """True at one tap of every window: its first maximum. Padding is never the maximum."""
    frames = _frames(switches, axes, first_axis, _lowest_of(keras.backend.standardize_dtype(switches.dtype)))
    shape = ops.shape(frames)
    if is_empty(switches):
        return ops.zeros(shape, "bool")
    taps = math.prod([along.taps for along in axes])
    flat = ops.reshape(frames, (*shape[: -len(axes)], taps))
    if any(not is_known(pad) or pad > 0 for along in axes for pad in (along.pad_before, along.pad_after)):
        sizes = [1] * len(switches.shape)
        sizes[first_axis : first_axis + len(axes)] = [along.size for along in axes]
        inside = _frames(ops.ones(sizes, "bool"), axes, first_axis, False)
        inside = ops.reshape(inside, (*ops.shape(inside)[: -len(axes)], taps))
        return ops.reshape(first_maximum(flat, inside), shape)
    return ops.reshape(first_maximum(flat), shape)
