"""`operator`: the public door. A model is an operator by its adjoint, and bounded one call after the other."""

import math
from collections import defaultdict
from dataclasses import replace
from functools import reduce
from typing import Any

import keras
from keras import ops, tree

from keras_adjoint.errors import NoRuleError
from keras_adjoint.keras_internals import layers_inside, nodes_of, numpy_operations, set_shape
from keras_adjoint.layers.applied_operation import AppliedOperation
from keras_adjoint.layers.computation import check_called_plainly
from keras_adjoint.layers.options import boolean
from keras_adjoint.layers.registry import class_with_rule, describe
from keras_adjoint.layers.tied import Tied, call_at_inference
from keras_adjoint.models.adjoint import adjoint
from keras_adjoint.models.automatic import is_automatic, pattern_of
from keras_adjoint.models.backward import packed_as
from keras_adjoint.models.calls import Call
from keras_adjoint.models.graph import Graph, computes_itself, leaves_sizes_open, trace
from keras_adjoint.models.policies import calls_activation
from keras_adjoint.models.steps import SamplesToSteps, StepsToSamples
from keras_adjoint.operators.asked_size import sizes_meant, taking
from keras_adjoint.operators.eigenvalues import matrix_bound
from keras_adjoint.operators.layer_bounds import bound_of, rounding_of
from keras_adjoint.operators.layer_operator import MOST_NUMBERS, LayerOperator, layer_operator
from keras_adjoint.operators.operator import ABOVE, Operator
from keras_adjoint.operators.space import LEAF, Space
from keras_adjoint.ops import Tensor
from keras_adjoint.ops.precision import epsilon

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
    is_graph = isinstance(source, keras.Model) and getattr(source, "inputs", None) and not computes_itself(source)
    if is_graph and class_with_rule(source) is None:
        return ModelOperator.of(source, size, linear_part)
    return LayerOperator.of(source, size, linear_part)


class ModelOperator(LayerOperator):
    """The linear part of a model."""

    fixed: keras.Model  # a model of known sizes that calls the source

    @classmethod
    def of(cls, source: Any, size: Any, linear_part: bool) -> Operator:
        check_layers(source)
        fixed = model_at(source, size)
        backward = adjoint(fixed, linear_part=linear_part)
        if [tuple(x.shape[1:]) for x in backward.outputs] != [tuple(x.shape[1:]) for x in fixed.inputs]:
            raise NoRuleError(
                f"`{source.name}` looks up indices in an embedding, which is linear in one-hot vectors. Take the operators "
                f"of the embedding and of a model of what follows, and multiply the two. Received: {describe(source)}"
            )
        ends = packed_as(taken_by(fixed), fixed.inputs), packed_as(given_by(fixed), fixed.outputs)
        found = cls(source, adjoint(backward), backward, *map(Space.like, ends), linear_part=linear_part)
        found.fixed, found.dtype = fixed, coarsest_dtype(fixed)
        return found

    def transposed(self) -> "ModelOperator":
        found = super().transposed()
        assert isinstance(found, ModelOperator)
        found.fixed, found.dtype = self.fixed, self.dtype
        return found

    def apply(self, leaves: list[Tensor]) -> list[Tensor]:
        given = tree.pack_sequence_as(taken_by(self.forward), leaves)
        return list(tree.flatten(call_at_inference(self.forward, given)))

    def layer(self, name: str | None = None) -> keras.layers.Layer:
        is_alike = tree.map_structure(lambda _: LEAF, taken_by(self.forward)) == self.in_space.structure
        return super().layer(name) if is_alike else Operator.layer(self, name)

    def bounded(self) -> Bound:
        """The bound of every tensor as a function of the model's inputs."""
        graph = trace(self.fixed)
        bounds: dict[int, Bound] = defaultdict(float, {id(x): 1.0 for x in graph.inputs})
        for call in graph.calls:
            given = [bounds[id(x)] for x in call.inputs]
            found = 0.0 if all(map(_is_zero, given)) else self._after(call, given)
            bounds.update((id(y), found) for y in call.outputs)
        return _length([bounds[id(y)] for y in graph.outputs])

    def _after(self, call: Call, given: list[Bound]) -> Bound:
        """The bound of what a call gives, for those of what it takes."""
        if isinstance(call.operation, ADDITIONS) and len(given) > 1:
            terms = [one if n == 1 else one * math.sqrt(n) for one, n in zip(given, copies_in(call), strict=True)]
            return reduce(lambda a, b: (a + b) * ABOVE, terms)
        if isinstance(call.operation, MOVES) or (self.linear_part and calls_activation(call)):
            return _length(given)
        return bound_of_call(call) * _length(given) * ABOVE


def taken_by(model: Any) -> Any:
    """The inputs of a model in the structure that it takes them in, which may be a list of one."""
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def given_by(model: Any) -> Any:
    """The outputs of a model in the structure of its making; of a list of one, Keras gives the one."""
    return model.outputs[0] if isinstance(model, keras.Sequential) else model.output


def coarsest_dtype(model: keras.Model) -> str:
    """What a model computes in, of the dtypes of its layers the one that rounds most: its own policy may be another one."""
    layers = [layer for layer in layers_inside(model) if not isinstance(layer, (keras.Model, keras.layers.InputLayer))]
    dtypes = [layer.compute_dtype for layer in layers if "float" in layer.compute_dtype]
    return str(max(dtypes, key=epsilon, default=model.compute_dtype))


def check_layers(source: keras.Model) -> None:
    """Raise a NoRuleError if a model has a layer that may not be called anew, see `check_called_plainly`."""
    for layer in layers_inside(source):
        check_called_plainly(layer)


def model_at(source: keras.Model, size: Any) -> keras.Model:
    """A model as it is where all sizes in it are known, else one that calls it on inputs of the size that is meant."""
    templates = [tuple(x.shape[1:]) for x in source.inputs]
    shapes = sizes_meant(source, templates, size)
    if shapes == templates and not any(map(leaves_sizes_open, nodes_of(source))):
        return source
    check_layers(source)
    inputs = [keras.Input(shape, dtype=x.dtype) for shape, x in zip(shapes, source.inputs, strict=True)]
    x = tree.pack_sequence_as(taken_by(source), inputs)
    with taking(source, size):
        y = source(x)
    fixed = keras.Model(x, y, name=source.name)
    for given, found in zip(fixed.outputs, trace(fixed).outputs, strict=True):
        set_shape(given, found.shape)
    return fixed


def graph_at(source: keras.Model, size: Any) -> Graph:
    """The graph of a model at the size that is meant, with the places of the model itself."""
    fixed = model_at(source, size)
    graph = trace(fixed)
    if fixed is source:
        return graph
    return replace(graph, calls=[replace(call, place=call.place.partition("/")[2]) for call in graph.calls])


def copies_in(call: Call) -> list[float]:
    """How often the result of an operation holds each number of each tensor that is broadcast to it."""
    numbers = math.prod(call.outputs[0].shape[1:])
    return [numbers / max(1, math.prod(x.shape[1:])) for x in call.inputs]


def bound_of_call(call: Call) -> Bound:
    """The bound of a call by itself: of its layer, of the source of an adjoint, or from its matrix."""
    source, tensors = call.operation, call.inputs
    if isinstance(source, Tied) and source.exact:
        source, tensors = source.source, call.outputs
    elif isinstance(source, Tied) and class_with_rule(source) is None:  # made by a policy
        found = bound_of(source, Space.like(call.outputs), Space.like(call.inputs))
        return bound_by_matrix(call) if found is None else found * rounding_of(source.compute_dtype)
    if not isinstance(source, keras.layers.Layer) or (source is call.operation and is_automatic(call)):
        return bound_by_matrix(call)
    shapes = [tuple(x.shape[1:]) for x in tensors]
    return layer_operator(source, shapes[0] if len(shapes) == 1 else shapes, linear_part=True).bounded()


def bound_by_matrix(call: Call) -> Tensor:
    """By the matrix of a call, where nothing else is known."""
    taken, given = Space.like(call.inputs), Space.like(call.outputs)
    if taken.size * given.size > MOST_NUMBERS:
        raise NoRuleError(
            f"No bound is known for the call of `{call.place}`, and its matrix is too large to take one from, with more than "
            f"{MOST_NUMBERS} numbers. `norm` estimates the norm. Received: a call of type {type(call.operation).__name__}"
        )
    # The last row is zero, for what the call adds to what is linear.
    rows = ops.eye(taken.size + 1, taken.size, dtype=call.inputs[0].dtype)
    layer, pattern = call.operation, pattern_of(call)
    if not isinstance(layer, keras.layers.Layer):
        layer = AppliedOperation(layer, pattern, dtype=call.outputs[0].dtype, name=layer.name)
        pattern = layer.own_pattern
    found = given.join(tree.flatten(pattern.call(layer, taken.split(rows))))
    return matrix_bound(ops.cast(found[:-1] - found[-1:], "float64" if found.dtype == "float64" else "float32"))


ADDITIONS = (numpy_operations.Add, numpy_operations.Subtract)  # ‖A x ± B x‖ ≤ (‖A‖ + ‖B‖) ‖x‖, if none is broadcast
MOVES = (
    *(numpy_operations.Reshape, numpy_operations.ExpandDims, numpy_operations.Squeeze, numpy_operations.Transpose),
    *(numpy_operations.Swapaxes, numpy_operations.Moveaxis, numpy_operations.Flip, numpy_operations.Concatenate),
    *(numpy_operations.Stack, numpy_operations.Split, numpy_operations.Negative, StepsToSamples, SamplesToSteps),
)


def _length(bounds: list[Bound]) -> Bound:
    """√(Σ bᵢ²): parts side by side."""
    if len(bounds) == 1:
        return bounds[0]
    squares = reduce(lambda a, b: a + b, [bound * bound for bound in bounds])
    return (math.sqrt(squares) if isinstance(squares, float) else ops.sqrt(squares)) * ABOVE


def _is_zero(bound: Bound) -> bool:
    return isinstance(bound, float) and bound == 0
