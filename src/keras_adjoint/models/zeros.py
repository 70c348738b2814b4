"""Zeros of a given shape, for tensors that no cotangent arrives at."""

from typing import Any

import keras
from keras import ops

from keras_adjoint.errors import SizeError
from keras_adjoint.layers.registry import describe, rule
from keras_adjoint.layers.sizes import recorded_shapes
from keras_adjoint.ops import Shape, Tensor


@keras.saving.register_keras_serializable(package="keras_adjoint")
class Zeros(keras.layers.Layer):
    """Zeros of a shape, with as many samples as the input has: the zero map, whose adjoint is another zero map.

    Args:
        shape: The shape of one sample.

    Input shape: Any.
    Output shape: `(batch, *shape)`.

    Example:

    >>> Zeros((2, 3))(np.ones((5, 4))).shape
    (5, 2, 3)
    """

    def __init__(self, shape: Shape, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shape = tuple(shape)

    def call(self, x: Tensor) -> Tensor:
        return ops.zeros((ops.shape(x)[0], *self.shape), self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape[0], *self.shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "shape": self.shape}


@rule(Zeros)
def zeros_of_input(source: Zeros, *, output_size: Any = None, name: str | None = None) -> Zeros:
    """The adjoint of a zero map gives zeros of the shape that it takes."""
    shapes = recorded_shapes(source)
    shape = output_size if output_size is not None else shapes[0][1:] if shapes else (None,)
    if None in shape:
        raise SizeError(
            f"Zeros can only be made of a known shape. Give the model an input of known size: `keras.Model(x, model(x))` with "
            f"`x = keras.Input(...)`. Received: {describe(source)}, shape {tuple(shape)}"
        )
    return Zeros(shape, name=name, dtype=source.dtype_policy)


def zeros(shape: Shape, like: keras.KerasTensor) -> keras.KerasTensor:
    """A symbolic tensor of zeros of `shape`, with as many samples as `like` has."""
    if None in shape:
        raise SizeError(
            f"No cotangent arrives at a tensor of unknown size, so its zeros cannot be made. Give the model an input of known "
            f"size: `keras.Model(x, model(x))` with `x = keras.Input(...)`. Received: shape {(None, *shape)}"
        )
    return Zeros(shape, dtype=like.dtype)(like)
