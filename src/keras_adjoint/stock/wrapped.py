"""Layers that go by the norm of the layer inside, in stock layers: with the kernel that they compute with."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from keras.layers import Layer

from keras_adjoint.keras_internals import own_variables
from keras_adjoint.layers.adjoint_of_adjoint import AdjointOfAdjoint
from keras_adjoint.layers.tied import Tied
from keras_adjoint.layers.wrapped import WRAPPERS
from keras_adjoint.operators.adjoint_lipschitz import AdjointLipschitz
from keras_adjoint.stock.pieces import array, scaled
from keras_adjoint.stock.steps import UNKNOWN, AdjointCall, Step

# The one of a layer's variables that a factor of its linear part goes to.
KERNELS = ("pointwise_kernel", "kernel")


def number(factor: Any) -> float:
    """A scalar tensor as a number."""
    return float(array(factor))


def kernel_index(layer: Layer) -> int | None:
    """Which variable of a layer its linear part is proportional to; `None` if that cannot be told."""
    is_plain = layer.quantization_mode is None and not getattr(layer, "lora_enabled", False)
    if not is_plain or isinstance(layer, WRAPPERS) or not type(layer).__module__.startswith("keras."):
        return None
    names = [variable.name for variable in layer.variables]
    found = next((name for name in KERNELS if name in names), None)
    is_known = set(names) <= {"bias", "depthwise_kernel", *KERNELS} and len(own_variables(layer)) == len(names)
    return names.index(found) if found is not None and is_known else None


def times(steps: Sequence[Step], factor: float, *, keep_bias: bool) -> list[Step]:
    """The steps of an affine map with its linear part multiplied by a factor, and its bias as well unless that is kept.

    A factor of the last step that has weights is one of the whole, since nothing behind it adds anything.
    """
    places = [place for place, each in enumerate(steps) if each.weights]
    if factor == 1:
        return list(steps)
    if not places or (keep_bias and any("offset" in each.options for each in steps)):
        return [scaled(factor), *steps] if keep_bias else [*steps, scaled(factor)]
    last = steps[places[-1]]
    kernel, *biases = last.weights
    weights = (times_factor(kernel, factor), *(one if keep_bias else times_factor(one, factor) for one in biases))
    return [*steps[: places[-1]], replace(last, weights=weights), *steps[places[-1] + 1 :]]


def times_factor(weight: np.ndarray, factor: float) -> np.ndarray:
    return (weight * factor).astype(weight.dtype)


def adjoint_lipschitz(call: AdjointCall, convert: Any) -> list[Step]:
    """The adjoint of the layer inside, times the factor.

    Args:
        call: The call.
        convert: Finds the conversion of the adjoint inside.
    """
    tied = call.tied
    assert isinstance(tied, AdjointLipschitz)
    inner, factor = tied.inner, number(tied.source.factor(call.output_shape))
    if isinstance(inner, Tied):
        steps = convert(inner)(replace(call, tied=inner))
    elif isinstance(inner, WRAPPERS):
        call.refuse(UNKNOWN)
    else:
        own = ("name", "dtype", "trainable")
        options = {option: value for option, value in inner.get_config().items() if option not in own}
        steps = [Step(type(inner), options, tuple(map(array, inner.weights)))]
    return times(steps, factor, keep_bias=False)


def lipschitz_forward(call: AdjointCall, convert: Any) -> list[Step]:
    """The adjoint of that: what the layer inside does without its bias and activation, times the factor."""
    adjoint = call.tied.source
    if not isinstance(adjoint.inner, Tied):
        call.refuse(UNKNOWN)
    inner = AdjointOfAdjoint(adjoint.inner)
    return times(
        convert(inner)(replace(call, tied=inner)), number(adjoint.source.factor(call.input_shape)), keep_bias=True
    )
