"""Layers around a layer, which do what the layer inside does, at every step or with a normalised kernel."""

from typing import Any

import keras

from keras_adjoint.layers.kernel import float_policy
from keras_adjoint.ops import Shape
from keras_adjoint.ops.backend import MadeUntraced
from keras_adjoint.ops.precision import check_policy


class LinearWrapper(keras.layers.Wrapper, metaclass=MadeUntraced):
    """A layer of this package around one that is linear up to its activation, and so is what the two compute.

    Args:
        layer: The layer inside.
        dtype: A dtype policy; by default that of the layer inside.
    """

    scales = False  # whether it computes with another kernel than the layer inside has

    def __init__(self, layer: keras.layers.Layer, **kwargs: Any) -> None:
        if not isinstance(layer, keras.layers.Layer):
            raise ValueError(f"`{type(self).__name__}` takes a Keras layer. Received: layer={layer!r}")
        kwargs.setdefault("dtype", float_policy(layer))
        check_policy(kwargs.get("dtype"))
        super().__init__(layer, **kwargs)
        self.supports_masking = layer.supports_masking

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return output_shape_of(self.layer, input_shape)


def output_shape_of(layer: keras.layers.Layer, input_shape: Shape) -> Shape:
    """The shape that a layer gives for an input of a shape, by its call if it has no method that computes shapes."""
    try:
        shape: Shape = tuple(layer.compute_output_shape(input_shape))
    except NotImplementedError:
        if not layer.built:
            layer.build(input_shape)
        shape = tuple(layer.compute_output_spec(keras.KerasTensor(input_shape, layer.compute_dtype)).shape)
    return shape


WRAPPERS = (keras.layers.TimeDistributed, keras.layers.SpectralNormalization, LinearWrapper)


def wrappers_of(layer: Any) -> list[Any]:
    """A layer that is a wrapper, and the wrappers inside, the outer ones first."""
    found = []
    while isinstance(layer, WRAPPERS):
        found.append(layer)
        layer = layer.layer
    return found


def inside_linear_wrappers(layer: Any) -> Any:
    """The layer inside of wrappers of this package; a layer without any around it is that layer itself."""
    while isinstance(layer, LinearWrapper):
        layer = layer.layer
    return layer


def scales_inside(layer: Any) -> bool:
    """Whether a wrapper computes with another kernel than the layer inside of all wrappers has."""
    return any(getattr(wrapper, "scales", False) for wrapper in wrappers_of(layer))


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
