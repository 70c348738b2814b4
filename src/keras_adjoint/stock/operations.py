"""What layers of this package that are no adjoints compute, by operations of Keras that a file holds without this package."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from keras_adjoint.layers.applied_operation import AppliedOperation
from keras_adjoint.layers.call_pattern import filled, flat
from keras_adjoint.models.masks import MaskedShare
from keras_adjoint.models.steps import SamplesToSteps, Steps, StepsToSamples
from keras_adjoint.models.zeros import Zeros
from keras_adjoint.stock.steps import refuse


def reshaped(layer: Steps, x: keras.KerasTensor, recorded: keras.KerasTensor | None = None) -> keras.KerasTensor:
    """What a layer that makes steps samples, or samples steps, gives for a tensor."""
    splits = isinstance(layer, StepsToSamples)
    shape = x.shape[2:] if splits or recorded is None else (recorded.shape[1], *x.shape[1:])
    if None in shape:
        refuse(layer, f"the sizes must be known, and they are {tuple(shape)}; build the model for a fixed input size")
    result: keras.KerasTensor = ops.reshape(x, (-1, *shape))
    return result


def zeros(layer: Zeros, x: keras.KerasTensor) -> keras.KerasTensor:
    """Zeros of another shape for as many samples."""
    of_samples = ops.sum(ops.zeros_like(x, dtype=layer.compute_dtype), axis=tuple(range(1, len(x.shape))))
    repeated = ops.repeat(ops.reshape(of_samples, (-1, 1)), math.prod(layer.shape), axis=1)
    result: keras.KerasTensor = ops.reshape(repeated, (-1, *layer.shape))
    return result


def shared_by_mask(layer: MaskedShare, y: keras.KerasTensor, recorded: Any) -> keras.KerasTensor:
    """The positions that a mask keeps: the layer's own operations, one by one."""
    result: keras.KerasTensor = layer.call(y, recorded)
    return result


def applied(layer: AppliedOperation, tensors: Any) -> Any:
    """The operation itself, on its constants."""
    arguments, keywords = filled((layer.pattern.arguments, layer.pattern.keywords), flat(tensors))
    return layer.operation(*arguments, **keywords)


def joined(tensors: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
    """Several tensors as one, with all of their numbers in a row for each sample; a single one as it is."""
    if len(tensors) == 1:
        return tensors[0]
    rows = [ops.reshape(tensor, (-1, math.prod(tensor.shape[1:]))) for tensor in tensors]
    result: keras.KerasTensor = ops.concatenate(rows, axis=-1)
    return result


OPERATIONS: dict[type, Callable[..., Any]] = {
    StepsToSamples: reshaped,
    SamplesToSteps: reshaped,
    Zeros: zeros,
    MaskedShare: shared_by_mask,
    AppliedOperation: applied,
}
