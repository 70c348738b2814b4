"""The adjoints of the arithmetic of tensors with tensors and with constants, such as the `+` in `x + y`, and of sums.

A constant that is added is a shift, which is no part of the linear operator.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_adjoint.errors import NoRuleError, SizeError
from keras_adjoint.layers.arguments import is_symbolic
from keras_adjoint.models.calls import Call
from keras_adjoint.models.graph import Cotangents

Tensors = list[keras.KerasTensor]


def signs(*of_operands: int) -> Any:
    """The rule of a sum of operands with these signs."""

    def transpose(call: Call, ys: Tensors) -> Cotangents:
        pairs = zip(operands(call), of_operands, strict=False)
        signed = [(x, ys[0] if sign > 0 else ops.negative(ys[0])) for x, sign in pairs if is_symbolic(x)]
        return [unbroadcast(call, x, y) for x, y in signed]

    return transpose


def times_constant(call: Call, ys: Tensors) -> Cotangents:
    left, right = operands(call)
    if is_symbolic(left) and is_symbolic(right):
        raise NoRuleError(
            "A product of two tensors is not linear in both, so it has no adjoint. `mirror` and `autoencoder` take it for a "
            f"gate. Received: `{call.place}`"
        )
    x, factor = (left, right) if is_symbolic(left) else (right, left)
    return [unbroadcast(call, x, ops.multiply(ys[0], factor))]


def over_constant(call: Call, ys: Tensors) -> Cotangents:
    left, right = operands(call)
    if is_symbolic(right):
        raise NoRuleError(f"Division by a tensor is not linear, so it has no adjoint. Received: `{call.place}`")
    return [unbroadcast(call, left, ops.divide(ys[0], right))]


def operands(call: Call) -> tuple[Any, ...]:
    """The two sides of an arithmetic operation, or the one of a sign."""
    return tuple(call.parameters.values())[:2]


def unbroadcast(call: Call, x: keras.KerasTensor, y: keras.KerasTensor) -> keras.KerasTensor:
    """The transpose of broadcasting `x` to the output of a call, as NumPy does, applied to a cotangent `y` of that shape."""
    shape, wide = tuple(x.shape), tuple(call.outputs[0].shape)
    spread = tuple(axis for axis, size in enumerate(shape) if size == 1 and wide[axis] != 1)
    return ops.sum(y, axis=spread, keepdims=True) if spread else y


# --- sums and means


def over_axes(*, mean: bool) -> Any:
    """The rule of a sum or mean along axes: what was added up gets the same cotangent, or an equal share of it."""

    def transpose(call: Call, ys: Tensors) -> Cotangents:
        (x,), (y,) = call.inputs, ys
        rank, axes = len(x.shape), call.operation.axis
        axes = sorted({int(axis) % rank for axis in (range(rank) if axes is None else axes)})
        sizes = [x.shape[axis] for axis in axes]
        if None in sizes:
            raise SizeError(
                f"`{call.place}` adds up along an axis of unknown size, so its adjoint cannot tell how long that is. Give the "
                f"model an input of known size: `keras.Model(x, model(x))` with `x = keras.Input(...)`. Received: {x.shape}"
            )
        if not call.operation.keepdims:
            for axis in axes:
                y = ops.expand_dims(y, axis)
        share = 1.0 / float(np.prod(sizes)) if mean else 1.0
        spread = np.full([x.shape[axis] if axis in axes else 1 for axis in range(rank)], share, np_dtype(y))
        return [ops.multiply(y, spread)]

    return transpose


def np_dtype(y: keras.KerasTensor) -> str:
    """The dtype of a constant that is multiplied with `y` and does not change its dtype, as far as NumPy has it."""
    return "float64" if y.dtype == "float64" else "float32"
