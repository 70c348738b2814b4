"""The adjoint of a model's adjoint: the model itself, as long as that is the very operator."""

import weakref
from dataclasses import dataclass
from typing import Any

import keras

from keras_adjoint.keras_internals import core_operations, numpy_operations
from keras_adjoint.layers.adjoint import recorded_source
from keras_adjoint.layers.adjoint_of_adjoint import is_linear_as_it_is
from keras_adjoint.layers.tied import Tied
from keras_adjoint.models.automatic import is_automatic, is_zero_at_zero
from keras_adjoint.models.calls import Call
from keras_adjoint.models.graph import Graph, trace
from keras_adjoint.models.operations import has_rule
from keras_adjoint.models.steps import Steps

# Operations in which a constant is a shift.
ADDING = (
    numpy_operations.Add,
    numpy_operations.Subtract,
    numpy_operations.Concatenate,
    numpy_operations.Stack,
    numpy_operations.Pad,
    core_operations.SliceUpdate,
)


@dataclass(frozen=True)
class Parts:
    """What a model consisted of when its adjoint was made. It keeps nothing of it alive."""

    references: tuple[Any, ...]

    @classmethod
    def of(cls, model: keras.Model, graph: Graph) -> "Parts":
        own = (call.operation for call in graph.calls if not isinstance(call.operation, Steps))
        return cls(tuple(weakref.ref(part) for part in (*own, *model.variables)))

    def are_those_of(self, model: keras.Model) -> bool:
        """Whether the model still calls the same operations in the same order, and has the same variables."""
        now = Parts.of(model, trace(model)).references
        return len(now) == len(self.references) and all(
            a() is b() is not None for a, b in zip(self.references, now, strict=True)
        )


_PARTS: weakref.WeakKeyDictionary[keras.Model, Parts] = weakref.WeakKeyDictionary()


def remember_parts(adjoint: keras.Model, model: keras.Model, graph: Graph) -> None:
    """Remember what a model is made of that `adjoint` is the tied adjoint of, if it is linear as it is."""
    if all(map(adds_nothing, graph.calls)):
        _PARTS[adjoint] = Parts.of(model, graph)


def adds_nothing(call: Call) -> bool:
    """Whether a call of a linear layer or operation adds no bias or constant, nor ends in an activation."""
    if isinstance(call.operation, Steps):
        return True
    if isinstance(call.operation, Tied):
        return is_linear_as_it_is(call.operation)
    if isinstance(call.operation, keras.layers.Layer):
        return is_zero_at_zero(call) if is_automatic(call) else is_linear_as_it_is(call.operation)
    if not has_rule(call.operation):
        return is_zero_at_zero(call)
    return not isinstance(call.operation, ADDING) or all(constant is None for constant in call.constants)


def unchanged_source(adjoint: keras.Model) -> keras.layers.Layer | None:
    """The model that a model is the adjoint of, if that is the very operator: tied, without biases, and unchanged."""
    source, parts = recorded_source(adjoint), _PARTS.get(adjoint)
    return source if isinstance(source, keras.Model) and parts and parts.are_those_of(source) else None
