"""Tensors of a graph that depend on the shape of its inputs alone, as `ops.ones_like(x)` does, and what is computed from them.

In products and choices they are constants.
"""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_adjoint.keras_internals import Node, existing, numpy_operations
from keras_adjoint.ops import Tensor

OF_SHAPES = tuple(existing(numpy_operations, "OnesLike", "ZerosLike", "FullLike"))

# Operations that are not linear in all their tensors together, and broadcast a constant of one sample.
WITH_CONSTANTS = tuple(existing(numpy_operations, "Multiply", "Divide", "TrueDivide", "Matmul", "Where"))


def constant_of(node: Node, constants: Mapping[int, Tensor]) -> Tensor | None:
    """One sample of what an operation gives, if that is the same whatever the model is called with.

    Args:
        node: The record of its call.
        constants: One sample of each constant so far, by the `id` of the symbolic tensor.
    """
    given = node.input_tensors
    of_shape = isinstance(node.operation, OF_SHAPES) and len(given) == 1 and None not in given[0].shape[1:]
    are_constant = all(id(x) in constants for x in given)
    if (
        isinstance(node.operation, keras.layers.Layer)
        or not (of_shape or are_constant)
        or not all(x.shape for x in given)
    ):
        return None
    samples = {id(x): constants[id(x)] if are_constant else ops.zeros((1, *x.shape[1:]), x.dtype) for x in given}
    try:
        one, two = (
            _called(node, {key: ops.repeat(x, count, axis=0) for key, x in samples.items()}) for count in (1, 2)
        )
        alike = tuple(one.shape)[:1] == (1,) and bool(ops.all(ops.equal(two, ops.repeat(one, 2, axis=0))))
    except Exception:  # of whatever kind the operation raises for another number of samples
        return None
    return one if alike else None


def _called(node: Node, tensors: Mapping[int, Tensor]) -> Any:
    arguments, keywords = node.arguments.fill_in(tensors)
    return node.operation(*arguments, **keywords)


def with_constants(node: Node, current: Mapping[int, Any], constants: Mapping[int, Tensor]) -> dict[int, Any]:
    """What a call is made on, by the `id` of each tensor that it was recorded with: constants as such, where that matters."""
    now = {id(x): current[id(x)] for x in node.input_tensors}
    known = {key: constants[id(x)] for key, x in now.items() if id(x) in constants}
    return {**now, **known} if isinstance(node.operation, WITH_CONSTANTS) and len(known) < len(now) else now
