"""A model as its layers and as the calls that it makes, and the transpose of a graph of calls.

The chain rule read as linear algebra: what calls compute one after the other, their adjoints compute in reverse order,
and the cotangent of a tensor that several calls read is a sum (Baydin et al. 2018, section 3.2).
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
from keras import tree

from keras_adjoint.errors import NoRuleError
from keras_adjoint.keras_internals import Functional, Node, call_of, layers_inside, nodes_of, set_dense, set_shape
from keras_adjoint.layers.arguments import bind
from keras_adjoint.layers.computation import calls_as, has_hooks
from keras_adjoint.layers.registry import REGISTERED_BY_USERS, class_with_rule, describe
from keras_adjoint.layers.tied import Tied
from keras_adjoint.models.calls import Call, training_of
from keras_adjoint.models.constants import constant_of, with_constants
from keras_adjoint.models.nested import tensors_for_inputs
from keras_adjoint.models.steps import (
    Calls,
    SamplesToSteps,
    StepsToSamples,
    calls_at_every_step,
    is_distributed_call,
    mixes_in_training,
)
from keras_adjoint.recursion import deep_recursion

MOST_CALLS = 1_000_000  # in one graph; a model that calls a model twice that calls a model twice ... makes 2ⁿ

Cotangents: TypeAlias = list[keras.KerasTensor | None]  # one for each tensor; `None` stands for zeros


@dataclass(frozen=True, eq=False)
class Graph:
    """Every call that a model makes, in an order in which they can run, those inside of nested models included.

    Attributes:
        inputs: The model's input tensors.
        outputs: Its output tensors. Where nested models were called, these are not `model.outputs`, but what their layers
            give when they are called one by one, so that every tensor between them is at hand.
        calls: The calls.
        input_structure: The inputs in the lists and dictionaries that the model takes them in.
        output_structure: The outputs of the model in the lists and dictionaries that it returns them in.
    """

    inputs: list[keras.KerasTensor]
    outputs: list[keras.KerasTensor]
    calls: list[Call]
    input_structure: Any = None
    output_structure: Any = None

    def readers(self) -> dict[int, int]:
        """How many times calls read each tensor as data, by the tensor's `id`."""
        count: dict[int, int] = defaultdict(int)
        for call in self.calls:
            for tensor in call.inputs:
                count[id(tensor)] += 1
        return count


def trace(model: keras.Model) -> Graph:
    """The graph of a Functional or built Sequential model.

    Raises:
        NoRuleError: If the model has no graph, because it is subclassed or not built, or if it makes too many calls.
    """
    functional = graph_of(model)
    if functional is None:
        raise NoRuleError(_no_graph(model, model.name))
    count = count_calls(functional)
    if count > MOST_CALLS:
        raise NoRuleError(
            f"`{model.name}` makes {count:,} calls of layers, for it calls models that call models several times, and at most "
            f"{MOST_CALLS:,} are walked one by one. Take the adjoint of the models inside of it. Received: {describe(model)}"
        )
    calls = Calls()
    outputs = _follow(functional, list(functional.inputs), model.name, calls)
    return Graph(list(functional.inputs), outputs, calls, functional.input, functional.output)


def count_calls(model: Functional, known: dict[int, int] | None = None) -> int:
    """The calls of layers that a model makes, those of a model inside of it as often as that is called."""
    known = {} if known is None else known  # by the operation's `id`
    count = 0
    for node in nodes_of(model):
        operation = node.operation
        if id(operation) not in known:
            inner = model_inside(operation)
            known[id(operation)] = 1 if inner is None else count_calls(inner, known)
        count += known[id(operation)]
    return count


def graph_of(layer: keras.Operation) -> Functional | None:
    """The `Functional` behind a model whose `call` is Keras' own; `None` for everything else."""
    if calls_as(layer, keras.Sequential):
        built = hasattr(layer, "inputs")
        with deep_recursion():
            return Functional(layer.inputs[0], layer.outputs, name=layer.name) if built else None
    return layer if calls_as(layer, Functional) else None


def computes_itself(model: keras.Model) -> bool:
    """Whether a model's `call` is its own, so that its layers cannot be walked."""
    return graph_of(model) is None and not calls_as(model, keras.Sequential)


def _follow(
    model: Functional,
    inputs: list[keras.KerasTensor],
    place: str,
    calls: Calls,
    training: bool | None = None,
) -> list[keras.KerasTensor]:
    """Append the calls of `model` on `inputs`, and return its outputs.

    As long as the tensors are those that the model was made with, its own record of the call is taken. Inside of nested
    models they are not, and the layers are called once more.
    """
    current = dict(zip(map(id, model.inputs), inputs, strict=True))
    for node in nodes_of(model):
        layer, here = node.operation, f"{place}/{node.operation.name}"
        nested = model_inside(layer) if graph_of(layer) is not None or is_distributed_call(node) else None
        if nested is not None:
            arguments, keywords = node.arguments.fill_in(current)
            passed = next(iter(bind(layer, arguments, keywords).values()))
            outputs = _called(layer, passed, here, calls, training_of(layer, node, training))
        elif calls.with_steps and mixes_in_training(node) and training_of(layer, node, training) is None:
            outputs = [calls.at_every_step(layer, place, current[id(node.input_tensors[0])])]
        else:
            made = _on(node, with_constants(node, current, calls.constants))
            call = Call.of(made, here, training)
            calls.append(call)
            constant = constant_of(made, calls.constants)
            if constant is not None:
                calls.constants[id(call.outputs[0])] = constant
            outputs = call.outputs
        current.update(zip(map(id, node.output_tensors), outputs, strict=True))
    return [current[id(tensor)] for tensor in model.outputs]


def model_inside(layer: keras.Operation) -> Functional | None:
    """The `Functional` behind a model, also one inside of `TimeDistributed`; `None` for everything else."""
    while calls_at_every_step(layer):
        layer = layer.layer
    return graph_of(layer) if class_with_rule(layer) not in REGISTERED_BY_USERS else None


def _called(layer: Any, passed: Any, place: str, calls: Calls, training: bool | None) -> list[keras.KerasTensor]:
    """Append the calls of a model, or of the model that is called at every step, on `passed`, and return the outputs."""
    model = graph_of(layer)
    if model is not None:
        return _nested(model, passed, place, calls, training)

    samples = calls.add(calls.named(StepsToSamples, f"{layer.name}_samples", layer.dtype_policy), place, passed)
    calls.with_steps.append(passed)
    outputs = _called(layer.layer, samples, f"{place}/{layer.layer.name}", calls, training)
    calls.with_steps.pop()
    join = calls.named(SamplesToSteps, f"{layer.name}_steps", layer.dtype_policy)
    return [calls.add(join, place, y, passed) for y in outputs]


def _nested(model: Functional, passed: Any, place: str, calls: Calls, training: bool | None) -> list[keras.KerasTensor]:
    """Append the calls of a nested model that is called with `passed`, and return its outputs."""
    given = {id(x) for x in tree.flatten(passed)}
    inputs = tensors_for_inputs(model, passed, place)
    for x in inputs:
        if id(x) not in given:  # an axis was added or dropped
            node = call_of(x)
            calls.append(Call.of(node, f"{place}/{node.operation.name}"))
    return _follow(model, inputs, place, calls, training)


def _on(node: Node, current: dict[int, Any]) -> Node:
    """The record of the same call on the current tensors."""
    if all(current[id(tensor)] is tensor for tensor in node.input_tensors):
        return node
    arguments, keywords = node.arguments.fill_in(current)
    made = call_of(tree.flatten(node.operation(*arguments, **keywords))[0])
    _find_sizes(made)
    return made


def _find_sizes(node: Node) -> None:
    """Find sizes that Keras leaves open although the call tells them, as of an `EinsumDense` that was made without them."""
    if not leaves_sizes_open(node):
        return
    arguments = node.arguments
    try:
        found = keras.Operation.compute_output_spec(node.operation, *arguments.args, **arguments.kwargs)
    except Exception:  # of whatever kind the layer's own code raises
        return
    for tensor, spec in zip(node.output_tensors, tree.flatten(found), strict=True):
        set_shape(tensor, spec.shape)


def leaves_sizes_open(node: Node) -> bool:
    """Whether sizes of what a call gives are not known, but for the batch axis, although those of what it takes are."""
    takes, gives = (
        any(None in tensor.shape[1:] for tensor in tensors) for tensors in (node.input_tensors, node.output_tensors)
    )
    return gives and not takes


def _no_graph(model: keras.Model, place: str) -> str:
    name = type(model).__name__
    unbuilt = "it is not built yet; call it once, or give it an `Input`"
    unknown = (
        "it is built, but Keras cannot tell which shape one of its layers gives; give your own layer a `compute_output_shape`, "
        "a `Lambda` its `output_shape`, and a model inside of it an `Input`"
    )
    reason = (
        (unknown if model.built else unbuilt)
        if calls_as(model, keras.Sequential)
        else "it has forward hooks, which may change what it computes; remove them first"
        if has_hooks(model)
        else "its `call` is its own; write it as a Functional model, or, if it is linear, teach its adjoint with "
        f"`@keras_adjoint.register_rule({name})`"
    )
    return (
        f"The layers of a model can only be walked if Keras knows how they are wired, and of `{place}` it does not: "
        f"{reason}. Received: {describe(model)}"
    )


def transpose_graph(
    graph: Graph,
    output_cotangents: Cotangents,
    transpose_call: Callable[[Call, Cotangents], Cotangents],
    add: Callable[[keras.KerasTensor, list[keras.KerasTensor]], keras.KerasTensor],
) -> Cotangents:
    """Carry cotangents through a graph from its outputs to its inputs.

    Args:
        graph: A graph.
        output_cotangents: Those of its outputs.
        transpose_call: Called with a call and the cotangents of its outputs, returns those of its inputs.
        add: Called with one of the graph's tensors and two or more cotangents of it, returns their sum.

    Returns:
        The cotangents of the graph's inputs.
    """
    found: dict[int, list[keras.KerasTensor]] = defaultdict(list)

    def cotangent_of(tensor: keras.KerasTensor) -> keras.KerasTensor | None:
        parts = found[id(tensor)]
        return add(tensor, parts) if len(parts) > 1 else next(iter(parts), None)

    def collect(tensors: list[keras.KerasTensor], cotangents: Cotangents) -> None:
        for tensor, cotangent in zip(tensors, cotangents, strict=True):
            if cotangent is not None:
                set_dense(cotangent)  # Keras does not know what shape a user's layer gives of a sparse one
                found[id(tensor)].append(cotangent)

    collect(graph.outputs, output_cotangents)
    for call in reversed(graph.calls):
        cotangents = [cotangent_of(tensor) for tensor in call.outputs]
        if any(cotangent is not None for cotangent in cotangents):
            collect(call.inputs, transpose_call(call, cotangents))
    # a model that lists one input twice computes with what it is given for the last of them
    last = {id(tensor): position for position, tensor in enumerate(graph.inputs)}
    return [cotangent_of(x) if last[id(x)] == position else None for position, x in enumerate(graph.inputs)]


# --- layers, called or not


def layers_of(
    root: keras.layers.Layer, prefix: str = "", seen: set[int] | None = None
) -> Iterator[tuple[str, keras.layers.Layer]]:
    """(name, layer) of every layer, nested models included, each layer once.

    A name begins with those of the models around the layer.
    """
    seen = set() if seen is None else seen
    for layer in layers_inside(root, recursive=False):
        if isinstance(layer, keras.layers.InputLayer) or id(layer) in seen:
            continue
        seen.add(id(layer))
        name = prefix + layer.name
        if not isinstance(layer, keras.Model) and model_inside(layer) is None:
            yield name, layer
        if not is_opaque(layer):
            yield from layers_of(layer, f"{name}/", seen)


def is_opaque(layer: keras.layers.Layer) -> bool:
    """Whether the layers inside of a layer do not count as layers of the model.

    The source in an adjoint layer belongs to that layer, and the parts of a layer with a rule are that rule's business. The
    layer in a wrapper such as `TimeDistributed` is a layer of its own.
    """
    if isinstance(layer, keras.layers.Wrapper):
        return False
    return isinstance(layer, Tied) or class_with_rule(layer) is not None
