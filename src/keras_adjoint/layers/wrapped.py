"""Layers around a layer, which do what the layer inside does, at every step or with a normalised kernel."""

from typing import Any

import keras

WRAPPERS = (keras.layers.TimeDistributed, keras.layers.SpectralNormalization)


def inside(layer: Any) -> Any:
    """The layer inside of all wrappers; a layer without any around it is that layer itself."""
    while isinstance(layer, WRAPPERS):
        layer = layer.layer
    return layer


def is_distributed(layer: Any) -> bool:
    """Whether a layer is applied at every time step."""
    return isinstance(layer, keras.layers.TimeDistributed) or (
        isinstance(layer, WRAPPERS) and is_distributed(layer.layer)
    )


def activation_of(layer: Any) -> Any:
    """The activation that a layer ends in, or the layer inside of it; `None` if there is none."""
    return getattr(inside(layer), "activation", None)
