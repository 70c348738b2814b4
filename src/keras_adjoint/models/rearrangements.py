"""The adjoints of operations that move values: each puts the values back.

All of them are transposed by operations that stand in the same table, so that adjoints have adjoints again.
"""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_adjoint.errors import SizeError
from keras_adjoint.layers.arguments import is_symbolic
from keras_adjoint.models.batch_axis import check_axes, mixes_samples
from keras_adjoint.models.calls import Call
from keras_adjoint.models.graph import Cotangents

Tensors = list[keras.KerasTensor]

KNOWN_SIZE = "Give the model an input of known size: `keras.Model(x, model(x))` with `x = keras.Input(...)`."


# --- shapes


def reshaped(call: Call, ys: Tensors) -> Cotangents:
    """Each sample is reshaped for itself if samples keep their number: then the adjoint is a reshape, too."""
    before, after = tuple(call.inputs[0].shape), tuple(call.outputs[0].shape)
    same_number = before[0] is not None and before[0] == after[0]
    sizes = [math.prod(shape[1:]) if shape and None not in shape[1:] else None for shape in (before, after)]
    if not same_number and (None in sizes or sizes[0] != sizes[1]):
        raise mixes_samples(
            call,
            f"reshapes tensors of shape {before} to {after}, where samples may not stay what they were",
            "Use a `keras.layers.Reshape`, which reshapes sample by sample",
        )
    if before[1:].count(None) > 1:
        raise SizeError(
            f"`{call.place}` takes tensors with several unknown sizes, so its adjoint cannot tell which shape to return. "
            f"{KNOWN_SIZE} Received: input shape {before}"
        )
    target = tuple(-1 if size is None else size for size in before[1:])
    return [keras.layers.Reshape(target, dtype=ys[0].dtype)(ys[0])]  # besides the batch, it can infer one size


def expanded(call: Call, ys: Tensors) -> Cotangents:
    rank = len(call.outputs[0].shape)
    axes = normalized(call.operation.axis, rank)
    check_axes(call, axes, rank)
    return [ops.squeeze(ys[0], axes[0] if len(axes) == 1 else tuple(axes))]


def squeezed(call: Call, ys: Tensors) -> Cotangents:
    shape, y = call.inputs[0].shape, ys[0]
    if call.operation.axis is None:
        axes = [axis for axis, size in enumerate(shape) if size == 1]
    else:
        axes = normalized(call.operation.axis, len(shape))
    check_axes(call, axes, len(shape))
    for axis in axes:
        y = ops.expand_dims(y, axis)
    return [y]


# --- orders of axes


def transposed(call: Call, ys: Tensors) -> Cotangents:
    rank = len(ys[0].shape)
    return permuted(call, ys, call.operation.axes or tuple(reversed(range(rank))))


def swapped(call: Call, ys: Tensors) -> Cotangents:
    order = list(range(len(ys[0].shape)))
    one, other = call.operation.axis1, call.operation.axis2
    order[one], order[other] = order[other], order[one]
    return permuted(call, ys, order)


def moved(call: Call, ys: Tensors) -> Cotangents:
    axes = np.zeros(range(len(ys[0].shape)))  # an array whose sizes are the numbers of its axes
    order = np.moveaxis(axes, list(call.operation.source), list(call.operation.destination)).shape
    return permuted(call, ys, order)


def permuted(call: Call, ys: Tensors, order: Any) -> Cotangents:
    order = normalized(order, len(ys[0].shape), keep_order=True)
    if order[0] != 0:
        what = f"moves the first axis: the order of axes is {tuple(order)}"
        raise mixes_samples(call, what, "Use a `keras.layers.Permute`, which leaves the first axis where it is")
    return [ops.transpose(ys[0], tuple(int(axis) for axis in np.argsort(order)))]


# --- parts


def concatenated(call: Call, ys: Tensors) -> Cotangents:
    """Every part gets back its own; parts that are constants are shifts."""
    (axis,) = normalized(call.operation.axis, len(ys[0].shape))
    check_axes(call, [axis], len(ys[0].shape))
    parts = list(next(iter(call.parameters.values())))
    sizes = [np.shape(part)[axis] if not is_symbolic(part) else part.shape[axis] for part in parts]
    if None in sizes:
        raise SizeError(
            f"`{call.place}` joins tensors along an axis of unknown size, so its adjoint cannot tell where to cut. "
            f"{KNOWN_SIZE} Received: sizes {sizes}"
        )
    cuts = [int(cut) for cut in np.cumsum(sizes)[:-1]]
    cut = ops.split(ys[0], cuts, axis=axis) if cuts else ys
    return [y for part, y in zip(parts, cut, strict=True) if is_symbolic(part)]


def split(call: Call, ys: Tensors) -> Cotangents:
    check_axes(call, [call.operation.axis], len(ys[0].shape))
    return [ops.concatenate(ys, axis=call.operation.axis)]


def stacked(call: Call, ys: Tensors) -> Cotangents:
    rank = len(ys[0].shape)
    (axis,) = normalized(call.operation.axis, rank)
    check_axes(call, [axis], rank)
    parts = list(next(iter(call.parameters.values())))
    unstacked = ops.unstack(ys[0], len(parts), axis=axis)
    return [y for part, y in zip(parts, unstacked, strict=True) if is_symbolic(part)]


def unstacked(call: Call, ys: Tensors) -> Cotangents:
    rank = len(call.inputs[0].shape)
    (axis,) = normalized(call.operation.axis, rank)
    check_axes(call, [axis], rank)
    return [ops.stack(ys, axis=axis)]


def flipped(call: Call, ys: Tensors) -> Cotangents:
    rank = len(ys[0].shape)
    axes = normalized(range(rank) if call.operation.axis is None else call.operation.axis, rank)
    check_axes(call, axes, rank)
    return [ops.flip(ys[0], axis=axes[0] if len(axes) == 1 else tuple(axes))]


def cumulated(call: Call, ys: Tensors) -> Cotangents:
    """Sums from the other end. Reversed by flips, since XLA's own reversed sum of what was padded is wrong on the CPU."""
    rank = len(ys[0].shape)
    axis = 0 if call.operation.axis is None else int(call.operation.axis) % rank
    check_axes(call, [axis], rank)
    return [ops.flip(ops.cumsum(ops.flip(ys[0], axis=axis), axis=axis), axis=axis)]


def normalized(axes: Any, rank: int, *, keep_order: bool = False) -> list[int]:
    """One or several axes as non-negative integers, in rising order."""
    several = axes if isinstance(axes, (list, tuple, range)) else [axes]
    found = [int(axis) % rank for axis in several]
    return found if keep_order else sorted(found)
