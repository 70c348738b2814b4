"""Sizes in `torch.jit.trace`, which makes tensors of them, so that those that are free stay free in an exported file.

A size that is the same in every call is wanted as an integer, and is one in the file. PyTorch warns of each integer that is
made of a tensor, as it becomes a constant; here that is what is meant.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from keras_adjoint.ops import Size, Tensor


def known_size(size: Size) -> Size:
    if not isinstance(size, torch.Tensor):
        return size
    with _constants():
        return int(size)


def fixed_shape(tensor: Tensor) -> tuple[int, ...]:
    if torch.compiler.is_compiling() or not torch.jit.is_tracing():
        return tuple(map(int, tensor.shape))
    with _constants():
        return tuple(map(int, tensor.shape))


@contextmanager
def _constants() -> Iterator[None]:
    """Inside, PyTorch does not warn of tensors that become constants of a trace."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        yield
