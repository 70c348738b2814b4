"""The adjoints of operations that move values: each puts the values back.

All of them are transposed by operations that stand in the same table, so that adjoints have adjoints again.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_adjoint.errors import SizeError
from keras_adjoint.keras_internals import numpy_operations
from keras_adjoint.layers.arguments import is_symbolic
from keras_adjoint.models.calls import Call
from keras_adjoint.models.graph import Cotangents

Tensors = list[keras.KerasTensor]

KNOWN_SIZE = "Give the model an input of known size: `keras.Model(x, model(x))` with `x = keras.Input(...)`."


# --- shapes


def reshaped(call: Call, ys: Tensors) -> Cotangents:
    before = tuple(call.inputs[0].shape)
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
    return [ops.squeeze(ys[0], axes[0] if len(axes) == 1 else tuple(axes))]


def squeezed(call: Call, ys: Tensors) -> Cotangents:
    shape, y = call.inputs[0].shape, ys[0]
    if call.operation.axis is None:
        axes = [axis for axis, size in enumerate(shape) if size == 1]
    else:
        axes = normalized(call.operation.axis, len(shape))
    for axis in axes:
        y = ops.expand_dims(y, axis)
    return [y]


# --- orders of axes


def order_of(call: Call) -> list[int]:
    """For each axis of what `Transpose`, `Swapaxes` or `Moveaxis` gives, which one of its input that was."""
    operation, rank = call.operation, len(call.inputs[0].shape)
    order: Any = list(range(rank))
    if isinstance(operation, numpy_operations.Transpose):
        order = operation.axes or order[::-1]
    elif isinstance(operation, numpy_operations.Swapaxes):
        one, other = operation.axis1, operation.axis2
        order[one], order[other] = order[other], order[one]
    else:
        axes = np.zeros(order)  # an array whose sizes are the numbers of its axes
        order = np.moveaxis(axes, list(operation.source), list(operation.destination)).shape
    return normalized(order, rank, keep_order=True)


def permuted(call: Call, ys: Tensors) -> Cotangents:
    return [ops.transpose(ys[0], tuple(int(axis) for axis in np.argsort(order_of(call))))]


# --- parts


def concatenated(call: Call, ys: Tensors) -> Cotangents:
    """Every part gets back its own; parts that are constants are shifts."""
    (axis,) = normalized(call.operation.axis, len(ys[0].shape))
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
    return [ops.concatenate(ys, axis=call.operation.axis)]


def stacked(call: Call, ys: Tensors) -> Cotangents:
    (axis,) = normalized(call.operation.axis, len(ys[0].shape))
    parts = list(next(iter(call.parameters.values())))
    unstacked = ops.unstack(ys[0], len(parts), axis=axis)
    return [y for part, y in zip(parts, unstacked, strict=True) if is_symbolic(part)]


def unstacked(call: Call, ys: Tensors) -> Cotangents:
    (axis,) = normalized(call.operation.axis, len(call.inputs[0].shape))
    return [ops.stack(ys, axis=axis)]


def flipped(call: Call, ys: Tensors) -> Cotangents:
    rank = len(ys[0].shape)
    axes = normalized(range(rank) if call.operation.axis is None else call.operation.axis, rank)
    return [ops.flip(ys[0], axis=axes[0] if len(axes) == 1 else tuple(axes))]


def cumulated(call: Call, ys: Tensors) -> Cotangents:
    """Sums from the other end. Reversed by flips, since XLA's own reversed sum of what was padded is wrong on the CPU."""
    axis = int(call.operation.axis)
    return [ops.flip(ops.cumsum(ops.flip(ys[0], axis=axis), axis=axis), axis=axis)]


def normalized(axes: Any, rank: int, *, keep_order: bool = False) -> list[int]:
    """One or several axes as non-negative integers, in rising order."""
    several = axes if isinstance(axes, (list, tuple, range)) else [axes]
    found = [int(axis) % rank for axis in several]
    return found if keep_order else sorted(found)
