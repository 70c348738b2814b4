"""Layers around a layer, which do what the layer inside does, at every step or with a normalised kernel."""

from typing import Any

import keras

WRAPPERS = (keras.layers.TimeDistributed, keras.layers.SpectralNormalization)


def wrappers_of(layer: Any) -> list[Any]:
    """A layer that is a wrapper, and the wrappers inside, the outer ones first."""
    found = []
    while isinstance(layer, WRAPPERS):
        found.append(layer)
        layer = layer.layer
    return found


def inside(layer: Any) -> Any:
    """The layer inside of all wrappers; a layer without any around it is that layer itself."""
    wrappers = wrappers_of(layer)
    return wrappers[-1].layer if wrappers else layer


def axes_of_steps(layer: Any) -> int:
    """How many axes of steps a layer takes, one for each `TimeDistributed` around the layer inside of all wrappers."""
    return sum(isinstance(wrapper, keras.layers.TimeDistributed) for wrapper in wrappers_of(layer))


def is_distributed(layer: Any) -> bool:
    """Whether a layer is applied at every time step."""
    return axes_of_steps(layer) > 0


def activation_of(layer: Any) -> Any:
    """The activation that a layer ends in, or the layer inside of it; `None` if there is none."""
    return getattr(inside(layer), "activation", None)
