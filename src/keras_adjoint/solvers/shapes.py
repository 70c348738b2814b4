"""Shapes of the tensors of a space: symbolic ones of the same batch, and shapes as JSON has left them."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import tree

from keras_adjoint.operators.space import Space


def symbolic(space: Space, like: Any, dtype: str) -> Any:
    """Symbolic tensors of a space, of as many samples as others."""
    batch = tree.flatten(like)[0].shape[0]
    return space.pack([keras.KerasTensor((batch, *shape), dtype=dtype) for shape in space.shapes])


def with_batch(space: Space, input_shape: Any) -> Any:
    """The shapes of the tensors of a space, of as many samples as tensors of other shapes."""
    batch = input_shape[0] if not isinstance(input_shape[0], (tuple, list)) else input_shape[0][0]
    return space.pack([(batch, *shape) for shape in space.shapes])


def from_json(size: Any) -> Any:
    """Shapes as they were before JSON made lists of tuples."""
    if isinstance(size, dict):
        return {name: from_json(one) for name, one in size.items()}
    if isinstance(size, Sequence) and all(isinstance(one, int) for one in size):
        return tuple(size)
    return [from_json(one) for one in size]
