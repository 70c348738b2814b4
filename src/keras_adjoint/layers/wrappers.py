"""The adjoints of layers around a layer: that of the layer inside, in the same place."""

from typing import Any

import keras
from keras.layers import Layer

from keras_adjoint.errors import NoRuleError
from keras_adjoint.layers.adjoint import check_linear, linear_adjoint
from keras_adjoint.layers.adjoint_of_adjoint import second_adjoint
from keras_adjoint.layers.registry import describe, rule


@rule(keras.layers.TimeDistributed)
def time_distributed(source: Layer, *, tied: bool = True, name: str | None = None) -> Layer:
    """What a layer does at every time step, its adjoint undoes at every time step."""
    inner = adjoint_inside(source, tied)
    result = keras.layers.TimeDistributed(inner, dtype=source.dtype_policy, name=name)
    result.built = True  # around an adjoint there is nothing to build
    return result


@rule(keras.layers.SpectralNormalization)
def spectral_normalization(source: Layer, *, tied: bool = True, name: str | None = None, **options: Any) -> Layer:
    """Training divides the kernel of the layer inside by its norm; at inference that layer is all there is."""
    return adjoint_inside(source, tied, name=name, **options)


def adjoint_inside(source: Layer, tied: bool, **options: Any) -> Layer:
    """The adjoint of the layer inside a wrapper."""
    inner = source.layer
    second = second_adjoint(inner, tied=tied)
    if second is not None and not options:
        return second
    check_linear(inner, advice=f" It is the layer inside of `{source.name}`.")
    result = linear_adjoint(inner, **options, **({} if tied else {"tied": False}))
    if getattr(result, "needs_switches", False):
        raise NoRuleError(
            f"Max pooling needs switches, which `{type(source).__name__}` does not pass on to the layer inside of it. "
            f"Received: {describe(source)} around {inner.name!r} of type {type(inner).__name__}"
        )
    return result
