"""What a call does to the batch axis: nothing, or it has no adjoint sample by sample."""

from collections.abc import Callable
from typing import Any

import keras

from keras_adjoint.errors import NoRuleError
from keras_adjoint.models.calls import Call

# The axes that layers of a type work along, numbered from the batch axis; all other layers leave the batch axis alone.
AXES: dict[type, Callable[[Any], Any]] = {
    keras.layers.Concatenate: lambda layer: layer.axis,
    keras.layers.BatchNormalization: lambda layer: layer.axis,
    keras.layers.LayerNormalization: lambda layer: layer.axis,
    keras.layers.Softmax: lambda layer: layer.axis,
    keras.layers.UnitNormalization: lambda layer: layer.axis,
}


def check_batch_axis(call: Call) -> None:
    """Raise a NoRuleError if the layer of a call works along the batch axis."""
    axes_of = next((AXES[base] for base in type(call.operation).__mro__ if base in AXES), None)
    if axes_of is not None:
        axes = axes_of(call.operation)
        rank = len(call.outputs[0].shape)
        check_axes(call, axes if isinstance(axes, (list, tuple)) else (axes,), rank)


def check_axes(call: Call, axes: Any, rank: int) -> None:
    """Raise a NoRuleError if the batch axis is among the axes, of tensors of that rank, that an operation works along."""
    if any(axis % rank == 0 for axis in axes):
        raise mixes_samples(call, f"works along axis 0 of tensors with {rank} axes")


def mixes_samples(call: Call, what: str, instead: str = "Use another axis") -> NoRuleError:
    """The error about a call that mixes samples or moves the batch axis, with what to do instead."""
    return NoRuleError(
        f"`{call.place}` {what}. The first axis is that of the samples, and an adjoint is taken sample by sample, so nothing "
        f"may be moved into it, out of it or along it. {instead}. Received: {type(call.operation).__name__} of shapes "
        f"{', '.join(str(tuple(x.shape)) for x in call.inputs)}"
    )
