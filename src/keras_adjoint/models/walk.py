"""The layers of a model one by one, each with its place: its name behind those of the models around it."""

import keras

from keras_adjoint.layers.registry import class_with_rule
from keras_adjoint.layers.tied import Tied


def layers_of(root, prefix="", seen=None):
    """(name, layer) of every layer, nested models included, each layer once."""
    seen = set() if seen is None else seen
    for layer in root._flatten_layers(include_self=False, recursive=False):
        if isinstance(layer, keras.layers.InputLayer) or id(layer) in seen:
            continue
        seen.add(id(layer))
        name = prefix + layer.name
        if not isinstance(layer, keras.Model):
            yield name, layer
        if not is_whole(layer):
            yield from layers_of(layer, f"{name}/", seen)


def is_whole(layer):
    """Whether the layers inside of a layer are no layers of the model.

    The source in an adjoint layer belongs to it, and the parts of a layer with a rule are that rule's business.
    """
    return isinstance(layer, Tied) or class_with_rule(layer) is not None
