"""The adjoints of layers around a layer: that of the layer inside, in the same place."""

from typing import Any

import keras
from keras.layers import Layer

from keras_adjoint.layers.adjoint import linear_adjoint
from keras_adjoint.layers.adjoint_of_adjoint import second_adjoint
from keras_adjoint.layers.automatic import automatic_adjoint
from keras_adjoint.layers.call_pattern import CallPattern, single_input, with_outputs
from keras_adjoint.layers.distributed import DistributedAdjoint, distributed, read_sizes_of
from keras_adjoint.layers.registry import class_with_rule, rule
from keras_adjoint.layers.sizes import recorded_shapes, without_steps
from keras_adjoint.layers.tied import Tied
from keras_adjoint.layers.wrapped import axes_of_steps, inside, scales_inside, wrappers_of


@rule(keras.layers.TimeDistributed, DistributedAdjoint)
def time_distributed(source: Layer, *, tied: bool = True, name: str | None = None, **options: Any) -> Layer:
    """What a layer does at every time step, its adjoint undoes at every time step."""
    return distributed(adjoint_inside(source, tied, **options), source, name=name)


@rule(keras.layers.SpectralNormalization)
def spectral_normalization(source: Layer, *, tied: bool = True, name: str | None = None, **options: Any) -> Layer:
    """Training divides the kernel of the layer inside by its norm; at inference that layer is all there is."""
    return adjoint_inside(source, tied, name=name, **options)


def adjoint_inside(source: Layer, tied: bool, **options: Any) -> Layer:
    """The adjoint of the layer inside a wrapper, which goes by the sizes that the wrapper records."""
    inner: Layer = source.layer
    second = second_adjoint(inner, tied=tied)
    if second is not None and not options:
        return second
    if not tied:
        options["tied"] = False
    core = inside(inner)
    is_adjoint_at_steps = isinstance(core, Tied) and core is not inner  # whose own adjoint the rule of steps finds
    if class_with_rule(core) is None and not scales_inside(inner) and not is_adjoint_at_steps:
        return around(automatic_adjoint(core, patterns=patterns_inside(source), **options), inner)
    result = linear_adjoint(inner, **options)
    read_sizes_of(result, source)
    return result


def around(adjoint: Layer, layer: Layer, *, name: str | None = None) -> Layer:
    """An adjoint of what is inside of all wrappers of a layer, or what stands for one, at every step at which that is called.

    Args:
        adjoint: What is to be called at a step.
        layer: The layer.
        name: The name of what is put around, if anything is.
    """
    steps = [one for one in wrappers_of(layer) if isinstance(one, keras.layers.TimeDistributed)]
    for wrapper in reversed(steps):
        adjoint = distributed(adjoint, wrapper, name=name if wrapper is steps[0] else None)
    read_sizes_of(adjoint, layer)
    return adjoint


def patterns_inside(source: Layer) -> list[CallPattern] | None:
    """How what is inside of all wrappers is called there; `None` if the outer wrapper records no shapes."""
    core, axes = inside(source), axes_of_steps(source)
    shapes = dict.fromkeys(without_steps(shape, axes)[1:] for shape in recorded_shapes(source))
    return [with_outputs(core, single_input((None, *shape), core.compute_dtype)) for shape in shapes] or None
