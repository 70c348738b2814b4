"""Repaired copies of models: some layers are replaced and the outputs compared; everything else stays the very same."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import keras
import numpy as np

from keras_adjoint.doctor.finding import Finding
from keras_adjoint.doctor.models.outputs import (
    Refused,
    compare_models,
    largest_difference,
    rounding,
    rounding_of_model,
)
from keras_adjoint.doctor.models.replacements import Replacement, computed
from keras_adjoint.errors import in_short
from keras_adjoint.keras_internals import Functional
from keras_adjoint.layers.adjoint import probe_shape
from keras_adjoint.models.graph import graph_of
from keras_adjoint.ops import Tensor
from keras_adjoint.ops.dot_test import evaluate, random_probe
from keras_adjoint.recursion import deep_recursion

Chains: TypeAlias = dict[int, list[keras.layers.Layer]]  # by the `id` of what is replaced


@dataclass(frozen=True)
class Repair:
    """What became of the findings.

    Attributes:
        model: The repaired model; `None` if nothing could be repaired.
        repaired: The findings that are gone.
        refused: (finding, why not) for those that could have been repaired, but would have changed what they must not.
        keeps_outputs: Whether the outputs must stay what they were, up to rounding.
        difference: The largest difference between the outputs of the two models, in size of the largest output; `None` if
            there is no repaired model, or the other one does not run.
    """

    model: keras.Model | None
    repaired: list[Finding[Replacement]]
    refused: list[tuple[Finding[Replacement], str]]
    keeps_outputs: bool = True
    difference: float | None = None


def repair_model(model: keras.Model, findings: Sequence[Finding[Replacement]]) -> Repair:
    """Make the replacements that can be made.

    Each replacement must give what its layer gave, or, where that was wrong, at least its shape.

    Raises:
        Refused: If the model as a whole gives something else afterwards, although it must not.
    """
    chains: Chains = {}
    repaired, refused = [], []
    for finding in findings:
        change = finding.change
        if change is None or id(change.replaced) in chains:
            continue
        try:
            chains[id(change.replaced)] = proven(change)
            repaired.append(finding)
        except Exception as error:  # whatever it is, this one layer stays unchanged
            refused.append((finding, in_short(error)))
    if not repaired:
        return Repair(None, repaired, refused)
    result = Rebuilder(chains).model(model)
    keeps = all(finding.change is None or finding.change.keeps_outputs for finding in repaired)
    return Repair(result, repaired, refused, keeps, proven_difference(model, result, keeps))


def proven_difference(model: keras.Model, repaired: keras.Model, keeps_outputs: bool) -> float | None:
    """`compare_models`, which must not be more than rounding where outputs must stay what they were."""
    difference = compare_models(model, repaired)
    if keeps_outputs and difference is not None and difference > rounding_of_model(model):
        raise Refused(
            f"The repaired model would give other outputs, by {difference:.1e} of their size, so it is not kept"
        )
    return difference


def proven(change: Replacement) -> list[keras.layers.Layer]:
    """The layers of a replacement, which were compared with what they replace."""
    chain = change.make()
    shape = change.input_shape or probe_shape(change.replaced)
    if shape is None:
        return chain
    dtype = chain[0].compute_dtype
    y = random_probe(shape, dtype, np.random.default_rng(0))
    before, after = evaluate(computed(change), y, dtype), evaluate(lambda y: applied(chain, y), y, dtype)
    difference = largest_difference([before], [after])
    if change.keeps_outputs and difference > rounding(dtype):
        raise Refused(f"it would return other values, by {difference:.1e} of their size")
    return chain


def applied(chain: Sequence[keras.layers.Layer], y: Tensor) -> Tensor:
    for layer in chain:
        y = layer(y)
    return y


class Rebuilder:
    """Makes models again with some of their layers replaced, and those around them.

    Args:
        chains: By the `id` of a layer or operation, the layers that are called one after the other instead.
    """

    def __init__(self, chains: Chains) -> None:
        self.chains = chains
        self.models: dict[int, keras.Model] = {}  # by `id`, so that a nested model that is called twice stays one

    def model(self, model: keras.Model) -> keras.Model:
        """The model itself, if nothing in it is replaced, or what takes its place."""
        if id(model) not in self.models:
            graph = graph_of(model)
            self.models[id(model)] = model if graph is None or not self.changes(graph) else self.rebuilt(model, graph)
        return self.models[id(model)]

    def changes(self, graph: Functional) -> bool:
        """Whether anything in a graph is replaced, in nested models included."""
        nested = [graph_of(operation) for operation in graph.operations]
        return any(id(operation) in self.chains for operation in graph.operations) or any(
            self.changes(inner) for inner in nested if inner is not None
        )

    def rebuilt(self, model: keras.Model, graph: Functional) -> keras.Model:
        if isinstance(model, keras.Sequential):
            layers = [part for layer in model.layers for part in self.chains.get(id(layer)) or [self.model(layer)]]
            if len({id(layer) for layer in layers}) == len(layers):
                (image,) = graph.inputs
                inputs = keras.Input(batch_shape=image.shape, dtype=image.dtype, name=image.name)
                return keras.Sequential([inputs, *layers], name=model.name)
        with deep_recursion():
            if isinstance(model, keras.Sequential):  # a layer twice takes a graph
                graph = keras.Model(graph.inputs[0], graph.outputs[0], name=model.name)
            return keras.models.clone_model(graph, clone_function=self.replacement)

    def replacement(self, operation: keras.Operation) -> Callable[..., Tensor]:
        """What is called in the place of a layer or operation."""
        chain = self.chains.get(id(operation))
        if chain is not None:
            return lambda tensor, *constants, **options: applied(chain, tensor)
        unchanged: Callable[..., Tensor] = self.model(operation)
        return unchanged
