"""The code of an autoencoder: the narrowest tensor that everything passes on its way from the input to the output."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import keras

from keras_adjoint.keras_internals import nodes_of
from keras_adjoint.models.calls import Call
from keras_adjoint.models.deconvnet import graph_up_to
from keras_adjoint.models.graph import Graph, graph_of
from keras_adjoint.models.policies import policy_of_class
from keras_adjoint.models.text import size_text
from keras_adjoint.recursion import deep_recursion

PART_OF_A_LAYER = ("activation", "norm", "dropout")  # policies about what usually stands behind a layer


@dataclass(frozen=True)
class Cut:
    """A tensor without which the output does not depend on the input.

    Attributes:
        layer: The layer that makes it, with the names of the models around it.
        shape: Its shape.
    """

    layer: str
    shape: tuple[int | None, ...]

    @property
    def numbers(self) -> float:
        """How many numbers a sample has there; infinitely many if that is not known."""
        return math.inf if None in self.shape[1:] else math.prod(size or 1 for size in self.shape[1:])


def gives_back_its_shape(model: keras.Model) -> bool:
    """Whether a model makes of one tensor another one of the same shape, as an autoencoder does."""
    inputs, outputs = getattr(model, "inputs", None) or [], getattr(model, "outputs", None) or []
    return len(inputs) == len(outputs) == 1 and tuple(inputs[0].shape) == tuple(outputs[0].shape)


def narrowest_cut(graph: Graph) -> Cut | None:
    """The narrowest `Cut` of a graph with one input, if it is narrower than that.

    Of several that are equally narrow it is the first, but behind the activation and the like of its layer.
    """
    best, last = Cut("", tuple(graph.inputs[0].shape)), None
    for call in cuts(graph):
        (tensor,) = call.outputs
        found = Cut(call.path, tuple(tensor.shape))
        follows = last is best and policy_of_class(call.operation) in PART_OF_A_LAYER
        if found.numbers < best.numbers or follows and found.numbers == best.numbers and best.layer:
            best = found
        last = found
    return best if best.layer else None


def cuts(graph: Graph) -> Iterator[Call]:
    """The calls whose output everything passes.

    That is the case where, of all that has been computed from the input, later calls read this one tensor alone.
    """
    reads = {call: [*call.inputs, *call.recorded] for call in graph.calls}
    needed = {id(tensor) for tensor in graph.outputs}
    alive_after: list[tuple[Call, set[int]]] = []
    for call in reversed(graph.calls):
        alive_after.append((call, set(needed)))
        if needed & {id(tensor) for tensor in call.outputs}:
            needed -= {id(tensor) for tensor in call.outputs}
            needed |= {id(tensor) for tensor in reads[call]}
    reached = {id(tensor) for tensor in graph.inputs}
    for call, alive in reversed(alive_after):
        if any(id(tensor) in reached for tensor in reads[call]):
            reached |= {id(tensor) for tensor in call.outputs}
        if len(call.outputs) == 1 and alive & reached == {id(call.outputs[0])}:
            yield call


def autoencoder_hint(model: keras.Model, graph: Graph) -> tuple[str, Cut | None]:
    """(what to say of a model that seems to be an autoencoder, its code if that is found); ("", None) of any other."""
    if not gives_back_its_shape(model):
        return "", None
    cut, shape = narrowest_cut(graph), tuple(model.inputs[0].shape)[1:]
    looks = f"This model gives back the shape that it takes, {size_text(shape)}, as an autoencoder does."
    if cut is not None:
        return f"{looks} Its code seems to be the output of `{cut.layer}`, {size_text(cut.shape[1:])}.", cut
    if None in shape:
        return looks, None
    return "", None  # nothing in it is narrower than its input


def encoder_up_to(model: keras.Model, layer: str) -> keras.Model:
    """The part of a model up to the output of a layer or nested model.

    Raises:
        ValueError: If there is no such layer.
    """
    functional = graph_of(model)
    nested = {} if functional is None else {node.operation.name: node for node in nodes_of(functional)}
    if functional is not None and layer in nested:
        inputs, outputs = functional.input, nested[layer].output_tensors
    else:
        graph = graph_up_to(model, layer)
        inputs, outputs = graph.input_structure, graph.outputs
    with deep_recursion():
        return keras.Model(inputs, outputs[0], name=f"{model.name}_encoder")
