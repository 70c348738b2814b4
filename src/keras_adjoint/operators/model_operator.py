"""`operator`: the public door. A model is an operator by its adjoint, and bounded one call after the other."""

import math
from collections import defaultdict
from functools import reduce
from typing import Any

import keras
from keras import ops, tree

from keras_adjoint.errors import NoRuleError
from keras_adjoint.keras_internals import numpy_operations
from keras_adjoint.layers.options import boolean
from keras_adjoint.layers.registry import class_with_rule
from keras_adjoint.models.adjoint import adjoint
from keras_adjoint.models.automatic import is_automatic
from keras_adjoint.models.calls import Call
from keras_adjoint.models.graph import trace
from keras_adjoint.operators.asked_size import sizes_meant
from keras_adjoint.operators.layer_operator import LayerOperator, layer_operator
from keras_adjoint.operators.operator import ABOVE, Operator
from keras_adjoint.operators.space import Space
from keras_adjoint.ops import Tensor

Bound = Tensor | float


def operator(source: keras.layers.Layer, *, size: Any = None, linear_part: bool = False) -> Operator:
    """A linear layer or model as an operator A between the tensors that it takes and gives.

    Biases are no part of it. `A @ x` is the layer applied to a batch, `A.T` its tied adjoint, and operators are combined as
    matrices are: `A @ B`, `A + B`, `2 * A`, `A.gram()`.

    Args:
        source: A built, linear Keras layer, or a Functional or Sequential model of such layers.
        size: The shape of what the layer takes, without the batch axis, or its spatial sizes alone; a list of shapes where
            it takes several tensors. By default the size that it was built or called with.
        linear_part: Whether to take the linear part of a layer that ends in an activation.

    Returns:
        An `Operator`.

    Raises:
        NoRuleError: If the layer is not linear.
        SizeError: If the size is not known, or the layer recorded several.
        TieError: If the layer is not built.

    Example:

    >>> conv = keras.layers.Conv2D(8, 3, strides=2, padding="same")
    >>> conv.build((None, 27, 27, 3))
    >>> A = ka.operator(conv)
    >>> A.in_shape, A.out_shape, A.shape
    ((27, 27, 3), (14, 14, 8), (1568, 2187))
    >>> x = np.ones((4, 27, 27, 3), "float32")
    >>> (A.T @ (A @ x)).shape
    (4, 27, 27, 3)
    >>> A.T.T is A
    True
    """
    if not isinstance(source, keras.layers.Layer):
        raise ValueError(
            f"`operator` takes a Keras layer or model. Received: {source!r} of type {type(source).__name__}"
        )
    linear_part = boolean("linear_part", linear_part)
    if isinstance(source, keras.Model) and class_with_rule(source) is None and getattr(source, "inputs", None):
        return ModelOperator.of(source, size, linear_part)
    return LayerOperator.of(source, size, linear_part)


class ModelOperator(LayerOperator):
    """The linear part of a model."""

    fixed: keras.Model  # a model of known sizes that calls the source

    @classmethod
    def of(cls, source: Any, size: Any, linear_part: bool) -> Operator:
        templates = [tuple(x.shape[1:]) for x in source.inputs]
        shapes = sizes_meant(source, templates, size)
        if shapes == templates:
            fixed = source
        else:
            inputs = [keras.Input(shape, dtype=x.dtype) for shape, x in zip(shapes, source.inputs, strict=True)]
            x = inputs[0] if isinstance(source, keras.Sequential) else tree.pack_sequence_as(source.input, inputs)
            fixed = keras.Model(x, source(x), name=source.name)
        backward = adjoint(fixed, linear_part=linear_part)
        is_chain = isinstance(fixed, keras.Sequential)
        ends = (fixed.inputs[0], fixed.outputs[0]) if is_chain else (fixed.input, fixed.output)
        found = cls(source, adjoint(backward), backward, *map(Space.like, ends), linear_part=linear_part)
        found.fixed = fixed
        return found

    def transposed(self) -> "ModelOperator":
        found = super().transposed()
        assert isinstance(found, ModelOperator)
        found.fixed = self.fixed
        return found

    def bounded(self) -> Bound:
        """The bound of every tensor as a function of the model's inputs."""
        graph = trace(self.fixed)
        bounds: dict[int, Bound] = defaultdict(float, {id(x): 1.0 for x in graph.inputs})
        for call in graph.calls:
            given = [bounds[id(x)] for x in call.inputs]
            found = 0.0 if all(map(_is_zero, given)) else _after(call, given)
            bounds.update((id(y), found) for y in call.outputs)
        return _length([bounds[id(y)] for y in graph.outputs])


def _after(call: Call, given: list[Bound]) -> Bound:
    """The bound of what a call gives, for those of what it takes."""
    if isinstance(call.operation, ADDITIONS):
        return reduce(lambda a, b: (a + b) * ABOVE, given)
    if isinstance(call.operation, MOVES):
        return _length(given)
    if not isinstance(call.operation, keras.layers.Layer) or is_automatic(call):
        raise NoRuleError(
            f"No bound is known for the call of `{call.place}`. `norm` estimates the norm of the model. "
            f"Received: a call of type {type(call.operation).__name__}"
        )
    shapes = [tuple(x.shape[1:]) for x in call.inputs]
    part = layer_operator(call.operation, shapes[0] if len(shapes) == 1 else shapes, linear_part=True)
    return part.bounded() * _length(given) * ABOVE


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
    squares = reduce(lambda a, b: a + b, [bound * bound for bound in bounds])
    return (math.sqrt(squares) if isinstance(squares, float) else ops.sqrt(squares)) * ABOVE


def _is_zero(bound: Bound) -> bool:
    return isinstance(bound, float) and bound == 0
