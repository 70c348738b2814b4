"""The adjoints of layers around a layer: that of the layer inside, in the same place."""

from typing import Any

import keras
from keras.layers import Layer

from keras_adjoint.errors import NoRuleError
from keras_adjoint.layers.adjoint import linear_adjoint, original_of
from keras_adjoint.layers.adjoint_of_adjoint import second_adjoint
from keras_adjoint.layers.registry import class_with_rule, describe, options_of, rule
from keras_adjoint.layers.sizes import recorded_shapes


@rule(keras.layers.TimeDistributed)
def time_distributed(source: Layer, *, tied: bool = True, name: str | None = None, **options: Any) -> Layer:
    """What a layer does at every time step, its adjoint undoes at every time step."""
    inner = adjoint_inside(source, tied, **{**size_at_a_step(source), **options})
    result = keras.layers.TimeDistributed(inner, dtype=source.dtype_policy, name=name)
    result.built = True  # around an adjoint there is nothing to build
    return result


@rule(keras.layers.SpectralNormalization)
def spectral_normalization(source: Layer, *, tied: bool = True, name: str | None = None, **options: Any) -> Layer:
    """Training divides the kernel of the layer inside by its norm; at inference that layer is all there is."""
    return adjoint_inside(source, tied, name=name, **options)


def size_at_a_step(source: Layer) -> dict[str, Any]:
    """The size of one step for the adjoint of a layer inside that recorded no size, as pooling layers in a map do not."""
    inner = source.layer
    shapes = {(shape[0], *shape[2:]) for shape in recorded_shapes(source)}
    known = len(shapes) == 1 and None not in (*shapes,)[0][1:]
    takes_size = class_with_rule(inner) is None or "output_size" in options_of(inner)[0]
    if recorded_shapes(inner) or not known or not takes_size or original_of(inner) is not None:
        return {}
    return {"output_size": keras.KerasTensor(shapes.pop())}


def adjoint_inside(source: Layer, tied: bool, **options: Any) -> Layer:
    """The adjoint of the layer inside a wrapper."""
    inner = source.layer
    second = second_adjoint(inner, tied=tied)
    if second is not None and not options:
        return second
    result = linear_adjoint(inner, **options, **({} if tied else {"tied": False}))
    if getattr(result, "needs_switches", False):
        raise NoRuleError(
            f"Max pooling needs switches, which `{type(source).__name__}` does not pass on to the layer inside of it. "
            f"Received: {describe(source)} around {inner.name!r} of type {type(inner).__name__}"
        )
    return result
