"""The adjoints of operations of `keras.ops` that a Functional model may contain, such as the `+` in `x + y`.

Unlike layers they hold nothing and are called once, so each is transposed by other operations on the spot. A rule takes
the call and the cotangents of its outputs, and returns the cotangents of its inputs.
"""

from collections.abc import Callable
from typing import TypeAlias

import keras
from keras import ops

from keras_adjoint.keras_internals import core_operations, existing, numpy_operations
from keras_adjoint.models.arithmetic import over_axes, over_constant, signs, times_constant
from keras_adjoint.models.calls import Call
from keras_adjoint.models.graph import Cotangents
from keras_adjoint.models.indexing import indexed, padded, slice_updated
from keras_adjoint.models.rearrangements import (
    concatenated,
    cumulated,
    expanded,
    flipped,
    permuted,
    reshaped,
    split,
    squeezed,
    stacked,
    unstacked,
)

Transpose: TypeAlias = Callable[[Call, list[keras.KerasTensor]], Cotangents]


def cast(call: Call, ys: list[keras.KerasTensor]) -> Cotangents:
    """A cast keeps numbers as far as the dtype can; those of integers get no cotangent."""
    dtype = call.inputs[0].dtype
    return [ops.cast(ys[0], dtype) if "float" in dtype else ys[0]]


OPERATIONS: dict[type, Transpose] = {
    # arithmetic
    numpy_operations.Add: signs(1, 1),
    numpy_operations.Subtract: signs(1, -1),
    numpy_operations.Negative: signs(-1),
    numpy_operations.Multiply: times_constant,
    numpy_operations.TrueDivide: over_constant,
    numpy_operations.Divide: over_constant,
    numpy_operations.Sum: over_axes(mean=False),
    numpy_operations.Mean: over_axes(mean=True),
    numpy_operations.Cumsum: cumulated,
    core_operations.Cast: cast,
    # shapes
    numpy_operations.Reshape: reshaped,
    numpy_operations.ExpandDims: expanded,
    numpy_operations.Squeeze: squeezed,
    numpy_operations.Transpose: permuted,
    numpy_operations.Swapaxes: permuted,
    numpy_operations.Moveaxis: permuted,
    # parts
    numpy_operations.Concatenate: concatenated,
    **dict.fromkeys(existing(numpy_operations, "Split", "ArraySplit"), split),
    numpy_operations.Stack: stacked,
    core_operations.Unstack: unstacked,
    numpy_operations.Flip: flipped,
    numpy_operations.GetItem: indexed,
    numpy_operations.Pad: padded,
    core_operations.SliceUpdate: slice_updated,
}


def has_rule(operation: keras.Operation) -> bool:
    """Whether an operation is in the table; of paddings those by constants."""
    pads_otherwise = isinstance(operation, numpy_operations.Pad) and operation.mode != "constant"
    return type(operation) in OPERATIONS and not pads_otherwise


def transpose_operation(call: Call, ys: list[keras.KerasTensor]) -> Cotangents:
    """The cotangents of the inputs of a call of an operation in the table, from those of its outputs."""
    return OPERATIONS[type(call.operation)](call, ys)
