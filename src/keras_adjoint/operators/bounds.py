"""The bound of any operator: of layers by their rules, of models, products, sums and blocks from the bounds of their parts."""

import math
from collections import defaultdict
from collections.abc import Callable
from functools import reduce
from typing import Any

import keras
from keras import ops

from keras_adjoint.errors import NoRuleError
from keras_adjoint.keras_internals import numpy_operations
from keras_adjoint.models.calls import Call
from keras_adjoint.models.graph import computes_itself, trace
from keras_adjoint.operators.algebra import Composition, Identity, Scaled, Sum
from keras_adjoint.operators.blocks import Block
from keras_adjoint.operators.eigenvalues import matrix_bound
from keras_adjoint.operators.layer_bounds import rule_of
from keras_adjoint.operators.layer_operator import LayerOperator, operator
from keras_adjoint.operators.operator import Operator
from keras_adjoint.ops import Tensor

MOST_NUMBERS = 2**22  # of a matrix whose norm is bounded where nothing is known of an operator

Bound = Tensor | float


def bound_of(operator: Operator) -> Bound:
    """A number that is not below the norm of an operator.

    Raises:
        NoRuleError: If there is none for a part of it, and it is too large to be written as a matrix.
    """
    for operator_class, rule in _RULES.items():
        if isinstance(operator, operator_class):
            return rule(operator)
    raise NoRuleError(f"No bound is known for this operator; `norm` estimates its norm. Received: {operator!r}")


def _of_block(block: Block) -> Bound:
    """The norm of a matrix of norms bounds that of the blocks, and is bounded by √(‖·‖₁‖·‖∞) and by ‖·‖_F."""
    bounds = [[0.0 if each is None else bound_of(each) for each in row] for row in block.rows]
    rows = reduce(ops.maximum, [sum(row) for row in bounds])
    columns = reduce(ops.maximum, [sum(column) for column in zip(*bounds, strict=True)])
    return ops.minimum(ops.sqrt(rows * columns), _length([one for row in bounds for one in row]))


def _of_layer(leaf: LayerOperator) -> Bound:
    """‖A‖ = ‖Aᵀ‖, so it does not matter which of the two is the adjoint layer."""
    if isinstance(leaf.source, keras.Model) and not computes_itself(leaf.source):
        return _of_model(leaf)
    made, taken, given = leaf.backward, leaf.in_space, leaf.out_space
    if leaf.is_adjoint:
        made, taken, given = leaf.forward, given, taken
    rule = rule_of(made)
    found = None if rule is None else rule(made, taken, given)
    return found if found is not None else _of_matrix(leaf)


def _of_matrix(leaf: Operator) -> Bound:
    """By the matrix, where nothing else is known."""
    narrow = leaf if leaf.in_space.size <= leaf.out_space.size else leaf.T
    if math.prod(leaf.shape) > MOST_NUMBERS:
        raise NoRuleError(
            f"No bound is known for this layer, and it is too large for one by its matrix, of at most {MOST_NUMBERS} numbers. "
            f"`norm` estimates its norm. Received: {leaf!r}"
        )
    units = ops.eye(narrow.in_space.size, dtype=narrow.dtype)
    columns = narrow.out_space.join(narrow.apply(narrow.in_space.split(units)))
    return matrix_bound(ops.cast(columns, "float64" if leaf.dtype == "float64" else "float32"))


def _of_model(leaf: LayerOperator) -> Bound:
    """The bound of every tensor as a function of the model's inputs, one call after the other."""
    graph = trace(leaf.fixed or leaf.source)
    bounds: dict[int, Bound] = defaultdict(float, {id(x): 1.0 for x in graph.inputs})
    for call in graph.calls:
        given = [bounds[id(x)] for x in call.inputs]
        found = _of_call(call, given) if any(not _is_zero(one) for one in given) else 0.0
        bounds.update((id(y), found) for y in call.outputs)
    return _length([bounds[id(y)] for y in graph.outputs])


def _of_call(call: Call, given: list[Bound]) -> Bound:
    """The bound of what a call gives, for those of what it takes."""
    if isinstance(call.operation, ADDITIONS):
        return sum(given)
    if isinstance(call.operation, MOVES):
        return _length(given)
    if not isinstance(call.operation, keras.layers.Layer):
        raise NoRuleError(
            f"No bound is known for the operation `{call.place}`. `norm` estimates the norm of the model. "
            f"Received: an operation of type {type(call.operation).__name__}"
        )
    shapes = [tuple(x.shape[1:]) for x in call.inputs]
    part = operator(call.operation, size=shapes[0] if len(shapes) == 1 else shapes)
    return bound_of(part) * _length(given)


ADDITIONS = (numpy_operations.Add, numpy_operations.Subtract)  # ‖A x ± B x‖ ≤ (‖A‖ + ‖B‖) ‖x‖
MOVES = (
    *(numpy_operations.Reshape, numpy_operations.ExpandDims, numpy_operations.Squeeze, numpy_operations.Transpose),
    *(numpy_operations.Swapaxes, numpy_operations.Moveaxis, numpy_operations.Flip, numpy_operations.Concatenate),
    *(numpy_operations.Stack, numpy_operations.Negative),
)


def _length(bounds: list[Bound]) -> Bound:
    """√(Σ bᵢ²): parts side by side."""
    if len(bounds) == 1:
        return bounds[0]
    squares = sum(bound * bound for bound in bounds)
    return math.sqrt(squares) if isinstance(squares, float) else ops.sqrt(squares)


def _is_zero(bound: Bound) -> bool:
    return isinstance(bound, float) and bound == 0


_RULES: dict[type, Callable[[Any], Bound]] = {
    Identity: lambda identity: 1.0,
    Scaled: lambda scaled: ops.abs(scaled.factor) * bound_of(scaled.operator),
    Composition: lambda product: reduce(lambda a, b: a * b, map(bound_of, product.factors)),
    Sum: lambda total: sum(map(bound_of, total.terms)),
    Block: _of_block,
    LayerOperator: _of_layer,
}
