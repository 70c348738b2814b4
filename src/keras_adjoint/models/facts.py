"""What there is to know about every layer of a model: kernels, sizes, its adjoint and what a mirror makes of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_adjoint.keras_internals import layers_inside
from keras_adjoint.kernels import VARIABLES
from keras_adjoint.layers.adjoint import linear_adjoint
from keras_adjoint.layers.conv import AdjointConv
from keras_adjoint.layers.registered import RegisteredAdjoint
from keras_adjoint.layers.sizes import recorded_shapes, spatial
from keras_adjoint.layers.tied import Tied, exact_source
from keras_adjoint.layers.wrapped import WRAPPERS
from keras_adjoint.models.calls import Call
from keras_adjoint.models.decisions import Decision, Decisions, Kind, count_parameters
from keras_adjoint.models.graph import Graph, is_opaque, layers_of
from keras_adjoint.ops.algorithms.problem import ANY_SIZE
from keras_adjoint.ops.backend import current


@dataclass(frozen=True)
class LayerFacts:
    """What there is to know about one layer.

    Attributes:
        layer: Its name, with those of the models around it.
        type: Its type.
        kernels: The shapes of its kernels, by their names.
        strides: Its strides.
        dilation: Its dilation.
        padding: Its padding.
        groups: Its groups.
        inputs: The shapes of its inputs.
        outputs: The shapes of its outputs.
        adjoint: The type of its adjoint, whether or not a mirror takes it, or "".
        adjoint_of: The name of its source, if it is itself the adjoint of one, or "".
        kind: How a mirror undoes it.
        policies: What the policies chose about it.
        left_out: Whether a policy chose to put nothing in its place.
        parameters: How many parameters it has.
        tied_parameters: How many of them a mirror shares with it.
        own_parameters: How many a mirror adds.
        algorithms: The algorithms that run in its adjoint.
        reason: Why it is not undone, or "".
    """

    layer: str
    type: str
    kernels: dict[str, tuple[int, ...]]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: str
    groups: int
    inputs: list[tuple[int | None, ...]]
    outputs: list[tuple[int | None, ...]]
    adjoint: str
    adjoint_of: str
    kind: Kind
    policies: dict[str, Any]
    left_out: bool
    parameters: int
    tied_parameters: int
    own_parameters: int
    algorithms: list[str]
    reason: str = ""


@dataclass(frozen=True)
class Totals:
    """The parameters of a model and of its mirror. Each variable is counted once, however many layers read it.

    Attributes:
        parameters: Those of the model.
        tied_parameters: Those of them that a mirror shares.
        own_parameters: Those that a mirror adds.
    """

    parameters: int
    tied_parameters: int
    own_parameters: int


def totals(model: keras.Model, decisions: Decisions | None) -> Totals:
    """The `Totals` of a model, about which there are decisions if it is a graph of layers."""
    return Totals(
        parameters=count_parameters(model.weights),
        tied_parameters=count_parameters(one for decision in decisions or () for one in decision.tied_variables),
        own_parameters=count_parameters(one for decision in decisions or () for one in decision.own_variables),
    )


def facts_about_layers(model: keras.Model, decisions: Decisions | None, batch: int = 1) -> list[LayerFacts]:
    """The `LayerFacts` of every layer and operation of a model.

    Args:
        model: The model.
        decisions: The `Decisions` about it; `None` if it is no graph of layers.
        batch: How many samples the algorithms are chosen for.
    """
    if decisions is None:
        return [facts_about(name, layer, None, batch) for name, layer in layers_of(model)]
    found = decisions.by_layer()
    inside = kinds_inside(decisions)
    return [
        facts_about(name, layer, found.get(id(layer)), batch, inside.get(id(layer), Kind.UNREACHED))
        for name, layer in in_order(model, decisions.graph)
    ]


def kinds_inside(decisions: Decisions) -> dict[int, Kind]:
    """How the layers inside of wrappers are undone, by their `id`: as the wrappers are."""
    return {
        id(layer): decision.kind
        for decision in decisions
        if isinstance(decision.call.operation, WRAPPERS)
        for layer in layers_inside(decision.call.operation)
    }


def in_order(model: keras.Model, graph: Graph) -> Iterator[tuple[str, keras.Operation]]:
    """(name, layer or operation) in the order of the calls, each followed by the layers inside; then whatever else there is."""
    seen: set[int] = set()
    calls = [(call.path, call.operation) for call in graph.calls]
    for name, layer in (*calls, *layers_of(model)):
        if id(layer) not in seen:
            seen.add(id(layer))
            yield name, layer
            if isinstance(layer, keras.layers.Layer) and not is_opaque(layer):
                yield from layers_of(layer, f"{name}/", seen)


def facts_about(
    name: str, layer: keras.Operation, decision: Decision | None, batch: int, kind: Kind = Kind.UNREACHED
) -> LayerFacts:
    """The `LayerFacts` of one layer, about which there is a decision if it is called; if not, it is undone as `kind` says."""
    call = None if decision is None else decision.call
    adjoint = None if decision is None else decision.layers.get("adjoint")
    inputs, outputs = shapes(layer, call)
    return LayerFacts(
        layer=name,
        type=type(layer).__name__,
        **hyperparameters(layer),
        inputs=inputs,
        outputs=outputs,
        adjoint=type_of_adjoint(layer, adjoint),
        adjoint_of=getattr(exact_source(layer), "name", ""),
        kind=kind if decision is None else decision.kind,
        policies={} if decision is None else decision.policies,
        left_out=decision is not None and decision.left_out,
        tied_parameters=0 if decision is None else count_parameters(decision.tied_variables),
        own_parameters=0 if decision is None else count_parameters(decision.own_variables),
        algorithms=algorithms(layer, outputs, batch) or algorithms(adjoint, inputs, batch),
        reason="" if decision is None else decision.reason,
    )


def type_of_adjoint(layer: keras.Operation, adjoint: keras.layers.Layer | None) -> str:
    """The type of a layer's adjoint, whether or not a mirror takes it."""
    source = exact_source(layer)
    if source is not None:
        return type(source).__name__
    if adjoint is None and isinstance(layer, keras.layers.Layer):
        try:
            adjoint = linear_adjoint(layer)
        except Exception:
            return ""
    if isinstance(adjoint, RegisteredAdjoint):
        adjoint = adjoint.inner  # what the user's rule returned
    return "" if adjoint is None else type(adjoint).__name__


def hyperparameters(layer: keras.Operation) -> dict[str, Any]:
    """The kernels of a layer and how they move; those that an adjoint layer reads."""
    source = layer.source if isinstance(layer, Tied) else layer
    weights = getattr(source, "weights", [])
    padding = getattr(source, "padding", "")
    return {
        "kernels": {w.name: tuple(w.shape) for w in weights if w.name.endswith(VARIABLES) and "lora" not in w.name},
        "strides": as_tuple(getattr(source, "strides", ())),
        "dilation": as_tuple(getattr(source, "dilation_rate", ())),
        "padding": padding if isinstance(padding, str) else str(padding),
        "groups": getattr(source, "groups", 1),
        "parameters": layer.count_params() if isinstance(layer, keras.layers.Layer) and layer.built else 0,
    }


def shapes(
    layer: keras.Operation, call: Call | None
) -> tuple[list[tuple[int | None, ...]], list[tuple[int | None, ...]]]:
    """(shapes of what a layer takes, shapes of what it gives): in a call, else as it was built."""
    if call is not None:
        return [tuple(x.shape) for x in call.inputs], [tuple(y.shape) for y in call.outputs]
    recorded = recorded_shapes(layer)[:1]
    try:
        return recorded, [tuple(layer.compute_output_shape(shape)) for shape in recorded]
    except Exception:
        return recorded, []


def algorithms(adjoint: keras.Operation | None, shapes: list[tuple[int | None, ...]], batch: int) -> list[str]:
    """Names of the algorithms that run in the adjoint of a convolution, if it is one, for the first of the shapes of x.

    A size that is not known counts as a middling one.
    """
    if not isinstance(adjoint, AdjointConv) or not shapes:
        return []
    known = [ANY_SIZE if size is None else size for size in spatial(shapes[0], adjoint.data_format)]
    return adjoint.algorithms(known, batch, current().device_of(ops.zeros(())))


def as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)
