"""Models inside of `TimeDistributed`: in a graph their steps are further samples, between two layers that say so."""

from collections.abc import Sequence
from itertools import count
from typing import Any

import keras
from keras import ops

from keras_adjoint.keras_internals import Functional, Node, call_of, layers_inside, mask_of
from keras_adjoint.layers.arguments import called_with, signature_of
from keras_adjoint.layers.distributed import as_samples
from keras_adjoint.models.calls import Call
from keras_adjoint.ops import Shape, Tensor


class Steps(keras.layers.Layer):
    """A layer that leaves the dtype of its input alone. A mask, which has steps or none, ends at it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"autocast": False, **kwargs})
        self.supports_masking = True

    def compute_mask(self, *inputs: Any, **masks: Any) -> None:
        return None

    def get_config(self) -> dict[str, Any]:
        return dict(super().get_config())  # with an own `get_config`, Keras takes the dtype policy for what it is


@keras.saving.register_keras_serializable(package="keras_adjoint")
class StepsToSamples(Steps):
    """A tensor whose steps have become further samples.

    Call arguments:
        x: Tensor of shape `(batch, steps, ...)`.
        recorded: Another tensor of as many samples and steps, which says where they come from.

    Input shape: `(batch, steps, ...)`.
    Output shape: `(batch · steps, ...)`.

    Example:

    >>> StepsToSamples()(np.ones((2, 3, 4))).shape
    (6, 4)
    """

    def call(self, x: Tensor, recorded: Tensor | None = None) -> Tensor:
        return as_samples(x)

    def compute_output_spec(self, x: keras.KerasTensor, recorded: Any = None) -> keras.KerasTensor:
        return keras.KerasTensor(self.compute_output_shape(tuple(x.shape)), x.dtype)

    def compute_output_shape(self, x_shape: Shape, recorded_shape: Shape | None = None) -> Shape:
        batch, steps, *rest = x_shape
        return (None if None in (batch, steps) else batch * steps, *rest)


@keras.saving.register_keras_serializable(package="keras_adjoint")
class SamplesToSteps(Steps):
    """A tensor whose samples are the steps of another one again.

    Call arguments:
        x: Tensor of shape `(batch · steps, ...)`.
        recorded: A tensor of as many samples and steps.

    Input shape: `(batch · steps, ...)`.
    Output shape: `(batch, steps, ...)`.

    Example:

    >>> SamplesToSteps()(np.ones((6, 4)), np.ones((2, 3, 5))).shape
    (2, 3, 4)
    """

    def call(self, x: Tensor, recorded: Tensor) -> Tensor:
        return ops.reshape(x, (*ops.shape(recorded)[:2], *ops.shape(x)[1:]))

    def compute_output_spec(self, x: keras.KerasTensor, recorded: keras.KerasTensor) -> keras.KerasTensor:
        return keras.KerasTensor((*recorded.shape[:2], *x.shape[1:]), x.dtype)

    def compute_output_shape(self, x_shape: Shape, recorded_shape: Shape) -> Shape:
        return (*recorded_shape[:2], *x_shape[1:])


def calls_at_every_step(layer: Any) -> bool:
    """Whether a layer is a `TimeDistributed` whose `call` is Keras' own."""
    stock = keras.layers.TimeDistributed
    return isinstance(layer, stock) and type(layer).call is stock.call and "call" not in vars(layer)


def is_distributed_call(node: Node) -> bool:
    """Whether a recorded call is that of a `TimeDistributed`, which does at every step what the layer inside does.

    A mask that it was called with goes to the layer inside, a step at a time.
    """
    if not calls_at_every_step(node.operation):
        return False
    if called_with(node)[1].get("mask") is not None:
        return not any(map(takes_mask, layers_inside(node.operation)))
    return all(mask_of(x) is None for x in node.input_tensors)  # else one was passed by position


def takes_mask(layer: Any) -> bool:
    """Whether a layer may do something else with a mask; stock models pass it on, as `TimeDistributed` does."""
    passes = calls_at_every_step(layer) or type(layer).call in (Functional.call, keras.Sequential.call)
    return not passes and "mask" in signature_of(type(layer).call).parameters


# Layers that in training compute one thing of all samples, for which those of other steps are others.
MIXING = (keras.layers.BatchNormalization, keras.layers.SpectralNormalization)


def mixes_in_training(node: Node) -> bool:
    """Whether a layer that was called on one tensor, or a layer inside of it, computes something of all samples in training."""
    layer = node.operation
    alone = isinstance(layer, keras.layers.Layer) and len(node.input_tensors) == 1
    return alone and any(isinstance(one, MIXING) for one in (layer, *layers_inside(layer)))


class Calls(list[Call]):
    """The calls of a graph so far.

    Attributes:
        with_steps: The tensors whose steps are samples in the model that is followed now, the outermost first.
        constants: One sample of each tensor that the shape of the inputs determines, by the `id` of the symbolic tensor.
    """

    def __init__(self) -> None:
        super().__init__()
        self.with_steps: list[keras.KerasTensor] = []
        self.constants: dict[int, Tensor] = {}
        self._distributed: dict[int, keras.layers.Layer] = {}

    def add(self, operation: keras.Operation, place: str, *tensors: keras.KerasTensor) -> keras.KerasTensor:
        """What an operation gives for tensors; the call is appended."""
        y = operation(*tensors)
        self.append(Call.of(call_of(y), f"{place}/{operation.name}"))
        return y

    def named(self, layer_class: type[Steps], name: str, dtype: Any) -> Steps:
        """A new layer whose name no operation of the graph has so far."""
        taken = {call.operation.name for call in self}
        names = (f"{name}_{number}" if number else name for number in count())
        return layer_class(dtype=dtype, name=next(one for one in names if one not in taken))

    def at_every_step(self, layer: keras.layers.Layer, place: str, x: keras.KerasTensor) -> keras.KerasTensor:
        """What a layer that is called on samples that are steps gives for them where they are steps again."""
        for passed in reversed(self.with_steps):
            x = self.add(self.named(SamplesToSteps, f"{layer.name}_steps", x.dtype), place, x, passed)
        if id(layer) not in self._distributed:
            distributed = layer
            for _ in self.with_steps:
                distributed = keras.layers.TimeDistributed(distributed, dtype=layer.dtype_policy, name=layer.name)
            self._distributed[id(layer)] = distributed
        x = self.add(self._distributed[id(layer)], place, x)
        for passed in self.with_steps:
            x = self.add(self.named(StepsToSamples, f"{layer.name}_samples", x.dtype), place, x, passed)
        return x


def depth_of_steps(calls: Sequence[Call]) -> int:
    """How many axes of steps are samples behind the last of some calls."""
    kinds = [type(call.operation) for call in calls]
    return kinds.count(StepsToSamples) - kinds.count(SamplesToSteps)
