"""A repaired copy of a model: some layers replaced, the others the very same, and the outputs compared."""

from dataclasses import dataclass

import keras
import numpy as np

from keras_adjoint.doctor.repair.outputs import (
    Refused,
    compare_models,
    in_short,
    largest_difference,
    rounding,
    rounding_of_model,
)
from keras_adjoint.doctor.repair.remedies import computed
from keras_adjoint.layers.adjoint import probe_shape
from keras_adjoint.models.graph import graph_of
from keras_adjoint.ops.dot_test import evaluate, random_probe


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
    repaired: list
    refused: list
    keeps_outputs: bool = True
    difference: float | None = None


def repair_model(model, findings):
    """Apply what can be applied of the remedies.

    Each replacement must give what its layer gave, or, where that was wrong, at least its shape.

    Raises:
        Refused: If the model as a whole gives something else afterwards, although it must not.
    """
    chains, repaired, refused = {}, [], []
    for finding in findings:
        remedy = finding.remedy
        if remedy is None or id(remedy.replaced) in chains:
            continue
        try:
            chains[id(remedy.replaced)] = proven(remedy)
            repaired.append(finding)
        except Exception as error:  # whatever it is, this one layer stays as it was
            refused.append((finding, in_short(error)))
    if not repaired:
        return Repair(None, repaired, refused)
    result = Rebuilder(chains).model(model)
    keeps = all(finding.remedy.keeps_outputs for finding in repaired)
    return Repair(result, repaired, refused, keeps, proven_difference(model, result, keeps))


def proven_difference(model, repaired, keeps_outputs):
    """`compare_models`, which must not be more than rounding where outputs must stay what they were."""
    difference = compare_models(model, repaired)
    if keeps_outputs and difference is not None and difference > rounding_of_model(model):
        raise Refused(
            f"The repaired model would give other outputs, by {difference:.1e} of their size, so it is not kept"
        )
    return difference


def proven(remedy):
    """The layers of a replacement, which were compared with what they replace."""
    chain = remedy.make()
    shape = remedy.input_shape or probe_shape(remedy.replaced)
    if shape is None:
        return chain
    dtype = chain[0].compute_dtype
    y = random_probe(shape, dtype, np.random.default_rng(0))
    before, after = evaluate(computed(remedy), y, dtype), evaluate(lambda y: applied(chain, y), y, dtype)
    difference = largest_difference([before], [after])
    if remedy.keeps_outputs and difference > rounding(dtype):
        raise Refused(f"it would return other values, by {difference:.1e} of their size")
    return chain


def applied(chain, y):
    for layer in chain:
        y = layer(y)
    return y


class Rebuilder:
    """Makes models again with some of their layers replaced, and those around them.

    Args:
        chains: By the `id` of a layer or operation, the layers that are called one after the other instead.
    """

    def __init__(self, chains):
        self.chains = chains
        self.models = {}  # by `id`, so that a nested model that is called twice stays one

    def model(self, model):
        """The model itself, if nothing in it is replaced, or what takes its place."""
        if id(model) not in self.models:
            self.models[id(model)] = self.rebuilt(model) if self.is_touched(model) else model
        return self.models[id(model)]

    def is_touched(self, model):
        graph = graph_of(model)
        return graph is not None and any(
            id(operation) in self.chains or self.is_touched(operation) for operation in graph.operations
        )

    def rebuilt(self, model):
        graph = graph_of(model)
        if isinstance(model, keras.Sequential):
            layers = [part for layer in model.layers for part in self.chains.get(id(layer)) or [self.model(layer)]]
            if len({id(layer) for layer in layers}) == len(layers):
                (image,) = graph.inputs
                inputs = keras.Input(batch_shape=image.shape, dtype=image.dtype, name=image.name)
                return keras.Sequential([inputs, *layers], name=model.name)
            graph = keras.Model(graph.inputs[0], graph.outputs[0], name=model.name)  # a layer twice takes a graph
        return keras.models.clone_model(graph, clone_function=self.taken)

    def taken(self, operation):
        """What is called in the place of a layer or operation."""
        chain = self.chains.get(id(operation))
        if chain is not None:
            return lambda tensor, *constants, **options: applied(chain, tensor)
        return self.model(operation)
