"""What is applied, as calls of layers and operations at a known size, which no layer keeps a record of."""

import inspect
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import keras
from keras import tree

from keras_adjoint.errors import KerasAdjointError, NoRuleError, SizeError, in_short
from keras_adjoint.keras_internals import called_aside
from keras_adjoint.layers.arguments import is_symbolic
from keras_adjoint.layers.registry import describe
from keras_adjoint.layers.tied import Tied, call_at_inference, with_size
from keras_adjoint.models.calls import Call
from keras_adjoint.models.graph import Graph
from keras_adjoint.ops import Tensor
from keras_adjoint.ops.backend import current

RECORDED = ("recorded", "switches")  # the keywords of tensors that adjoint layers of a model depend on otherwise
ChooseSize: TypeAlias = Callable[[int, Tied, keras.KerasTensor, Any], Any]


@dataclass(frozen=True, eq=False)
class SizedCall:
    """One call of a layer or operation on tensors of known sizes.

    Attributes:
        operation: What is called.
        place: Where it is in its model, for messages.
        inputs: The tensors that it acts on, and behind them those of its keywords in `RECORDED`.
        outputs: What it gives.
        arguments: (positional arguments, keywords), with symbolic tensors in the places of tensors.
        part: Which of its outputs is meant. A call of several outputs is one call for each of them.
    """

    operation: keras.Operation
    place: str
    inputs: list[keras.KerasTensor]
    outputs: list[keras.KerasTensor]
    arguments: tuple[tuple[Any, ...], Mapping[str, Any]]
    part: int = 0

    @property
    def output(self) -> keras.KerasTensor:
        """The one that is meant."""
        return self.outputs[self.part]

    @property
    def parts(self) -> int:
        """How many tensors it gives."""
        return len(self.outputs)

    @property
    def all_shapes(self) -> list[tuple[int, ...]]:
        """The shapes of all its outputs, without the batch axis."""
        return [tuple(y.shape[1:]) for y in self.outputs]

    @property
    def in_shapes(self) -> list[tuple[int, ...]]:
        """The shapes of its inputs, without the batch axis."""
        return [tuple(x.shape[1:]) for x in self.inputs]

    @property
    def out_shape(self) -> tuple[int, ...]:
        """The shape of its output, without the batch axis."""
        return tuple(self.output.shape[1:])

    @property
    def constants(self) -> list[Any]:
        """Whatever it is called with that is no symbolic tensor."""
        return [leaf for leaf in tree.flatten(self.arguments) if not is_symbolic(leaf)]

    def run(self, operation: keras.Operation, tensors: list[Tensor]) -> Tensor:
        """What an operation gives for these arguments, with other tensors in their places, at inference."""
        if not isinstance(operation, keras.layers.Layer):
            given = dict(zip(map(id, self.inputs), tensors, strict=True))
            arguments, keywords = tree.map_structure(lambda leaf: given.get(id(leaf), leaf), self.arguments)
            with current().convolving(operation, tensors):
                return operation(*arguments, **keywords)
        names = recorded_names(self.arguments[1])
        data, recorded = tensors[: len(tensors) - len(names)], tensors[len(tensors) - len(names) :]
        with called_aside(operation):
            passed = dict(zip(names, recorded, strict=True))
            return call_at_inference(operation, data if self.takes_list else data[0], **passed)

    @property
    def takes_list(self) -> bool:
        """Whether the tensors come in a list."""
        return isinstance(self.arguments[0][0] if self.arguments[0] else None, (list, tuple))

    def describe(self) -> str:
        return describe(self.operation)


def calls_of_layer(
    layer: keras.layers.Layer, shape: tuple[int, ...], choose_size: ChooseSize | None = None
) -> list[SizedCall]:
    """The call of one layer on a tensor of a shape, without the batch axis; see `calls_at`."""
    parameters = inspect.signature(layer.call).parameters
    needed = [name for name in RECORDED if name in parameters and parameters[name].default is inspect.Parameter.empty]
    if needed:
        raise NoRuleError(
            f"`{layer.name}` is called with `{needed[0]}` as well, a tensor of the same model. Pass the model, as "
            f"`keras_adjoint.autoencoder` makes it. Received: {describe(layer)}"
        )
    x = keras.KerasTensor((None, *shape), layer.compute_dtype)
    outputs = _outputs_of(layer, layer.name, (x,), {}, choose_size and partial(choose_size, 0))
    return [SizedCall(layer, layer.name, [x], outputs, ((x,), {}))]


def calls_at(
    graph: Graph, shape: tuple[int, ...], choose_size: ChooseSize | None = None
) -> tuple[list[SizedCall], keras.KerasTensor, keras.KerasTensor]:
    """(the calls of a graph of one input and one output, the input, the output), for a shape without the batch axis.

    Args:
        graph: The graph.
        shape: The shape.
        choose_size: `choose_size(number of the call, adjoint layer, what it is called on, size)` is the `output_size` of an
            adjoint layer, unless it is that of another tensor. The size is the one that the call or the layer says, or `None`
            if it does not fit. Without it, or where that is `None`, the call or the layer says it.

    Raises:
        NoRuleError: If a call depends on a mask, or on constants that its rule knows nothing of.
        SizeError: If a layer does not take the size that reaches it.
    """
    (x,), (y,) = graph.inputs, graph.outputs
    now = {id(x): keras.KerasTensor((None, *shape), x.dtype)}
    calls: list[SizedCall] = []
    for call in graph.calls:
        arguments, keywords = _arguments_of(call, now)
        choose = choose_size and partial(choose_size, len(calls))
        outputs = _outputs_of(call.operation, call.place, arguments, keywords, choose)
        inputs = [now[id(tensor)] for tensor in call.inputs]
        if isinstance(call.operation, keras.layers.Layer):
            inputs += [keywords[name] for name in recorded_names(keywords)]
        for part, tensor in enumerate(call.outputs):
            calls.append(SizedCall(call.operation, call.place, inputs, outputs, (arguments, keywords), part))
            now[id(tensor)] = outputs[part]
    return calls, now[id(x)], now[id(y)]


def _arguments_of(call: Call, now: Mapping[int, keras.KerasTensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """(positional arguments, keywords) of a call on the tensors of now."""
    passed = {name: _filled(value, now) for name, value in call.parameters.items()}
    if not isinstance(call.operation, keras.layers.Layer):
        positional = tuple(value for name, value in passed.items() if name.isdigit())
        return positional, {name: value for name, value in passed.items() if not name.isdigit()}
    first, *others = passed
    keywords = {name: passed[name] for name in others if passed[name] is not None and name != "training"}
    known = {"output_size", *(name for name in RECORDED if is_symbolic(keywords.get(name)))}
    unknown = sorted(keywords.keys() - known)
    if call.training or unknown or not all(map(is_symbolic, tree.flatten(passed[first]))):
        reason = (
            f"it is called with {', '.join(unknown)}" if unknown else "constants are among the tensors that it takes"
        )
        raise NoRuleError(
            f"No rule is known for the blocks of `{call.place}`: {'it is called in training' if call.training else reason}. "
            f"Received: {describe(call.operation)}"
        )
    return (passed[first],), keywords


def recorded_names(keywords: Mapping[str, Any]) -> list[str]:
    """The keywords of a layer whose tensors are among its inputs, in their order."""
    return [name for name in RECORDED if name in keywords]


def _filled(value: Any, now: Mapping[int, keras.KerasTensor]) -> Any:
    # What computes a mask that Keras hands in by itself is no call of the graph.
    return tree.map_structure(lambda leaf: now.get(id(leaf), leaf) if is_symbolic(leaf) else leaf, value)


def _said(layer: Tied, x: keras.KerasTensor, keywords: dict[str, Any]) -> Any:
    """The `output_size` that the call of an adjoint layer or the layer says, if it fits what it is called on."""
    try:
        size = with_size(layer, x, keywords).get("output_size")
        with called_aside(layer):
            layer.compute_output_spec(x, output_size=size)
    except SizeError:
        return None
    return size


def _outputs_of(
    operation: keras.Operation,
    place: str,
    arguments: Any,
    keywords: dict[str, Any],
    choose_size: Callable[[Any, Any, Any], Any] | None = None,
) -> list[keras.KerasTensor]:
    """What a call gives, without a record of it."""
    is_layer = isinstance(operation, keras.layers.Layer)
    try:
        if isinstance(operation, Tied) and (operation.needs_output_size or "output_size" in keywords):
            if choose_size is not None and not any(map(is_symbolic, tree.flatten(keywords.get("output_size")))):
                chosen = choose_size(operation, arguments[0], _said(operation, arguments[0], keywords))
                keywords = keywords if chosen is None else {**keywords, "output_size": chosen}
            keywords = with_size(operation, arguments[0], keywords)
        with called_aside(operation) if is_layer else nullcontext():
            found = tree.flatten(operation.compute_output_spec(*arguments, **keywords))
    except (ValueError, TypeError, RuntimeError) as error:
        if isinstance(error, KerasAdjointError) and not isinstance(error, SizeError):
            raise
        reached = [tuple(x.shape[1:]) for x in tree.flatten(arguments) if is_symbolic(x)]
        any_size = (*(None for _ in reached[0][1:]), 3)
        raise SizeError(
            f"`{place}` does not take what reaches it at this size: {in_short(error).rstrip('. ')}. A model of any size has "
            f"inputs like `keras.Input({any_size})`. Received: a tensor of shape {' and '.join(map(str, reached))}, "
            f"{describe(operation)}"
        ) from error
    if any(None in y.shape[1:] or 0 in y.shape[1:] for y in found):
        given = " and ".join(str(tuple(y.shape[1:])) for y in found)
        raise SizeError(
            f"The size of what `{place}` gives is not known, or zero, at this size: {given}. Received: {describe(operation)}"
        )
    return list(found)
