"""Convolutions of one channel, which PyTorch 2.13 gets wrong on the CPU.

Of one channel a tensor may have strides of a tensor with its channels last, as Keras hands it over. Where a strided convolution
of such a tensor, or by such a kernel, gives a single position along the last axis, oneDNN computes with numbers that are none
of the tensor's.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from keras_adjoint.keras_internals import layers_inside
from keras_adjoint.ops import Tensor

CONVOLUTIONS = (functional.conv2d, functional.conv3d)


def is_one(x: Tensor, axis: int) -> bool:
    """Whether a tensor has one position along an axis. A trace, which would write the answer into its file, gets no for one."""
    return not torch.jit.is_tracing() and x.shape[axis] == 1


def one_channel_first(x: Tensor, axis: int) -> Tensor:
    """A tensor whose axis of one channel comes after the batch, with the strides of a tensor with its channels first."""
    return x.squeeze(axis).unsqueeze(1)


def one_channel_last(x: Tensor) -> Tensor:
    """The other way round, of which the gradient, that may be convolved, has these strides."""
    return x.squeeze(1).unsqueeze(-1)


class LaidOut(TorchFunctionMode):
    """Inside, convolutions of one channel get both tensors with the strides that they compute right with."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in CONVOLUTIONS and len(args) > 1 and args[1].shape[1] == 1:
            x, kernel, *rest = args
            x = one_channel_first(x, 1) if x.shape[1] == 1 else x
            args = (x, one_channel_first(kernel, 1), *rest)
        return func(*args, **(kwargs or {}))


def convolving(operation: Any, xs: Sequence[Any]) -> AbstractContextManager[Any]:
    """A context in which a layer or operation convolves tensors right; one that is as fast as none where it does anyway."""
    is_traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    may_be_wrong = any(isinstance(x, torch.Tensor) and x.ndim > 3 and x.device.type == "cpu" for x in xs)
    if is_traced or not may_be_wrong:
        return nullcontext()
    if not isinstance(operation, keras.layers.Layer):
        is_affected = hasattr(operation, "strides") and any(1 in (x.shape[1], x.shape[-1]) for x in xs)
        return LaidOut() if is_affected else nullcontext()
    return LaidOut() if any(map(_steps_over_one_channel, (operation, *layers_inside(operation)))) else nullcontext()


def _steps_over_one_channel(layer: keras.layers.Layer) -> bool:
    """Whether a layer has a kernel for one channel, and a stride along the last axis."""
    strides = getattr(layer, "strides", ())
    if not isinstance(strides, tuple) or len(strides) < 2 or strides[-1] == 1:
        return False
    return any(len(weight.shape) == len(strides) + 2 and weight.shape[-2] == 1 for weight in layer.weights)
