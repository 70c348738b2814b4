"""The adjoints of operations of `keras.ops` that a Functional model may contain, such as the `+` in `x + y`.

Unlike layers they hold nothing and are called once, so each is transposed by other operations on the spot. A rule here
takes the call and the cotangent of its output, and returns the cotangents of its inputs. Constants that are added are
shifts, which are no part of the linear operator.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops

from keras_adjoint.errors import NoRuleError
from keras_adjoint.keras_internals import numpy_operations
from keras_adjoint.layers.merge import sum_to
from keras_adjoint.models.graph import Call, Cotangents

Transpose: TypeAlias = Callable[[Call, keras.KerasTensor], Cotangents]


def is_symbolic(argument: Any) -> bool:
    return isinstance(argument, keras.KerasTensor)


def _operands(call: Call) -> tuple[Any, ...]:
    """The two sides of an arithmetic operation; Keras passes them by position."""
    return call.arguments[:2]


def _signs(*signs: int) -> Transpose:
    def transpose(call: Call, y: keras.KerasTensor) -> Cotangents:
        pairs = zip(_operands(call), signs, strict=False)
        signed = [(x, y if sign > 0 else ops.negative(y)) for x, sign in pairs if is_symbolic(x)]
        return [sum_to(y, tuple(x.shape[1:])) for x, y in signed]

    return transpose


def _times_constant(call: Call, y: keras.KerasTensor) -> Cotangents:
    left, right = _operands(call)
    if is_symbolic(left) and is_symbolic(right):
        raise NoRuleError(
            "A product of two tensors is not linear in both, so it has no adjoint. `mirror` and `autoencoder` take it for a "
            f"gate. Received: `{call.place}`"
        )
    x, factor = (left, right) if is_symbolic(left) else (right, left)
    return [sum_to(ops.multiply(y, factor), tuple(x.shape[1:]))]


def _over_constant(call: Call, y: keras.KerasTensor) -> Cotangents:
    left, right = _operands(call)
    if is_symbolic(right):
        raise NoRuleError(f"Division by a tensor is not linear, so it has no adjoint. Received: `{call.place}`")
    return [sum_to(ops.divide(y, right), tuple(left.shape[1:]))]


def _to_shape_of_input(call: Call, y: keras.KerasTensor) -> Cotangents:
    shape = tuple(call.inputs[0].shape[1:])
    if shape.count(None) > 1:
        raise NoRuleError(
            f"`{call.place}` takes tensors with several unknown sizes, so its adjoint cannot tell which shape to return. Use a "
            f"`keras.layers.Reshape`, or an input of known size. Received: input shape {shape}"
        )
    target = tuple(-1 if size is None else size for size in shape)
    return [keras.layers.Reshape(target, dtype=y.dtype)(y)]  # besides the batch, it can infer one size


def _transposed(call: Call, y: keras.KerasTensor) -> Cotangents:
    axes = call.operation.axes or tuple(reversed(range(len(y.shape))))
    return [ops.transpose(y, tuple(int(axis) for axis in np.argsort(axes)))]


def _split(call: Call, y: keras.KerasTensor) -> Cotangents:
    axis = call.operation.axis % len(y.shape)
    cuts = np.cumsum([x.shape[axis] for x in call.inputs])[:-1]
    return list(ops.split(y, [int(cut) for cut in cuts], axis=axis))


OPERATIONS: dict[type, Transpose] = {
    numpy_operations.Add: _signs(1, 1),
    numpy_operations.Subtract: _signs(1, -1),
    numpy_operations.Negative: _signs(-1),
    numpy_operations.Multiply: _times_constant,
    numpy_operations.TrueDivide: _over_constant,
    numpy_operations.Divide: _over_constant,
    numpy_operations.Reshape: _to_shape_of_input,
    numpy_operations.ExpandDims: _to_shape_of_input,
    numpy_operations.Squeeze: _to_shape_of_input,
    numpy_operations.Transpose: _transposed,
    numpy_operations.Concatenate: _split,
}


def transpose_operation(call: Call, y: keras.KerasTensor) -> Cotangents:
    """The cotangents of the inputs of a call of an operation.

    Raises:
        NoRuleError: If the operation is not in the table.
    """
    kind = type(call.operation)
    if kind not in OPERATIONS:
        names = ", ".join(operation.__name__ for operation in OPERATIONS)
        raise NoRuleError(
            f"No adjoint is known for the operation `{kind.__name__}` at `{call.place}`; known are {names}. Write it as a "
            f"layer, and, if it is linear, teach its adjoint with `@keras_adjoint.register_rule`. Received: {kind.__name__}"
        )
    return OPERATIONS[kind](call, y)
