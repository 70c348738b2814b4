"""Sizes in `torch.jit.trace`, which makes tensors of them, so that those that are free stay free in an exported file.

A size that is the same in every call is wanted as an integer, and is one in the file. PyTorch would warn of each that this
makes it a constant, so it is read past the tracer.
"""

from collections.abc import Callable
from typing import TypeVar

import torch

from keras_adjoint.ops import Size, Tensor

Value = TypeVar("Value")


def known_size(size: Size) -> Size:
    return past_tracer(lambda: int(size)) if isinstance(size, torch.Tensor) else size


def fixed_shape(tensor: Tensor) -> tuple[int, ...]:
    if torch.compiler.is_compiling() or not torch.jit.is_tracing():
        return tuple(map(int, tensor.shape))
    return past_tracer(lambda: tuple(tensor.shape))


def past_tracer(read: Callable[[], Value]) -> Value:
    """What a function returns that the tracer does not see."""
    state = torch._C._get_tracing_state()
    torch._C._set_tracing_state(None)
    try:
        return read()
    finally:
        torch._C._set_tracing_state(state)
