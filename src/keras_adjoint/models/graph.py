"""A model as the list of calls that it makes, and the way back through them.

The chain rule read as linear algebra: what calls compute one after the other, their adjoints compute in reverse order,
and a tensor that several calls read collects the sum of what comes back from them (Baydin et al. 2018, section 3.2).
What the adjoint of one call is, others say.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops, tree
from keras.src.models.functional import Functional

from keras_adjoint.errors import NoRuleError
from keras_adjoint.layers.registry import REGISTERED_BY_USERS, class_with_rule, describe
from keras_adjoint.ops.precision import epsilon


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer or operation.

    Attributes:
        operation: What was called, usually a layer.
        place: Where it is, as in "classifier/encoder/conv1".
        arguments: The positional arguments, symbolic tensors among them.
        inputs: The symbolic tensors among all arguments.
        outputs: The symbolic tensors that it returned.
    """

    operation: Any
    place: str
    arguments: tuple
    inputs: list
    outputs: list


@dataclass(frozen=True, eq=False)
class Graph:
    """Every call that a model makes, in an order in which they can run, those inside of nested models included.

    Attributes:
        inputs: The model's input tensors.
        outputs: Its output tensors. Where nested models were called, these are not `model.outputs`, but what their layers
            give when they are called one by one, with every tensor between them in reach.
        calls: The calls.
    """

    inputs: list
    outputs: list
    calls: list

    def readers(self):
        """How many calls read each tensor, by the tensor's `id`."""
        count: dict[int, int] = defaultdict(int)
        for call in self.calls:
            for tensor in call.inputs:
                count[id(tensor)] += 1
        return count


def trace(model):
    """The graph of a Functional or built Sequential model.

    Raises:
        NoRuleError: If the model has no graph, because it is subclassed or not built.
    """
    functional = graph_of(model)
    if functional is None:
        raise NoRuleError(_no_graph(model, model.name))
    calls: list[Call] = []
    outputs = _follow(functional, list(functional.inputs), model.name, calls)
    return Graph(list(functional.inputs), outputs, calls)


def graph_of(layer):
    """The `Functional` behind a model whose `call` is Keras' own; `None` for everything else."""
    if isinstance(layer, keras.Sequential) and type(layer).call is keras.Sequential.call:
        return layer._functional
    if isinstance(layer, Functional) and type(layer).call is Functional.call:
        return layer
    return None


def _follow(model, inputs, place, calls):
    """Append the calls of `model` on `inputs`, and return its outputs.

    As long as the tensors are those that the model was made with, its own record of the call is taken. Inside of nested
    models they are not, and the layers are called once more.
    """
    current = dict(zip(map(id, model.inputs), inputs, strict=True))
    depths = sorted(model._nodes_by_depth, reverse=True)
    for node in (node for depth in depths for node in model._nodes_by_depth[depth] if not node.is_input):
        layer, here = node.operation, f"{place}/{node.operation.name}"
        arguments, keywords = node.arguments.fill_in(current)
        nested = graph_of(layer) if class_with_rule(layer) not in REGISTERED_BY_USERS else None
        if nested is not None:
            outputs = _follow(nested, tree.flatten(arguments[0]), here, calls)
        else:
            if isinstance(layer, keras.Model) and class_with_rule(layer) is None:
                raise NoRuleError(_no_graph(layer, here))
            if all(current[id(tensor)] is tensor for tensor in node.input_tensors):
                outputs = list(node.output_tensors)
            else:
                outputs = tree.flatten(layer(*arguments, **keywords))
            read = [current[id(tensor)] for tensor in node.input_tensors]
            calls.append(Call(layer, here, arguments, read, outputs))
        current.update(zip(map(id, node.output_tensors), outputs, strict=True))
    return [current[id(tensor)] for tensor in model.outputs]


def _no_graph(model, place):
    name = type(model).__name__
    reason = (
        "it is not built yet; call it once, or give it an `Input`"
        if isinstance(model, keras.Sequential) and type(model).call is keras.Sequential.call
        else "its `call` is its own; write it as a Functional model, or, if it is linear, teach its adjoint with "
        f"`@keras_adjoint.register_rule({name})`"
    )
    return (
        f"The layers of a model can only be walked if Keras knows how they are wired, and of `{place}` it does not: "
        f"{reason}. Received: {describe(model)}"
    )


def reverse(graph: Graph, starts: list, carry_back: Callable[[Call, list], list]) -> list:
    """Go through a graph from its outputs back to its inputs.

    Args:
        graph: A graph.
        starts: One symbolic tensor for each of its outputs.
        carry_back: Called with a call and what came back for each of its outputs, returns what goes back to each of its
            inputs; `None` stands for nothing on either side.

    Returns:
        What arrives at each of the graph's inputs, or `None` where nothing does.
    """
    arriving = defaultdict(list)
    for tensor, start in zip(graph.outputs, starts, strict=True):
        arriving[id(tensor)].append(start)
    for call in reversed(graph.calls):
        backs = [total(arriving[id(tensor)]) for tensor in call.outputs]
        if any(back is not None for back in backs):
            for tensor, back in zip(call.inputs, carry_back(call, backs), strict=True):
                if back is not None:
                    arriving[id(tensor)].append(back)
    return [total(arriving[id(tensor)]) for tensor in graph.inputs]


def total(tensors):
    """The sum of symbolic tensors; `None` if there are none."""
    if len(tensors) < 2:
        return tensors[0] if tensors else None
    finest = min((tensor.dtype for tensor in tensors), key=epsilon)  # Keras' own choice knows no float64
    return keras.layers.Add(dtype=finest)(tensors)


def zeros(shape, like):
    """A symbolic tensor of zeros of `shape`, with as many samples as `like` has."""
    one_each = ops.max(ops.zeros_like(like), axis=tuple(range(1, len(like.shape))))
    return ops.reshape(one_each, (-1, *(1 for _ in shape))) + ops.zeros((1, *shape), dtype=like.dtype)
