"""What adjoints take: a tensor of real numbers, shaped like the output of the source. One check, by what each layer expects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import keras
import numpy as np
from keras import ops

from keras_adjoint.errors import SizeError, TieError
from keras_adjoint.ops import Shape, Tensor
from keras_adjoint.ops.backend import current
from keras_adjoint.ops.geometry import is_known

_NO_NUMBERS = "OSUMm"  # objects, strings and times of NumPy
name_of_dtype = lru_cache(keras.backend.standardize_dtype)  # asked at every call


@dataclass(frozen=True)
class Expected:
    """The shape that an input must have.

    Attributes:
        axes: Number of axes, the batch axis included; `None` for any number from `at_least` on.
        at_least: The smallest number of axes.
        sizes: The sizes that some axes must have; those that are `None` may be any.
    """

    axes: int | None = None
    at_least: int = 1
    sizes: Mapping[int, int | None] = field(default_factory=dict)

    def fits(self, shape: Sequence[Any]) -> bool:
        """Whether a shape is one of these, as far as it is known."""
        if getattr(shape, "rank", 0) is None:  # TensorFlow's shape of unknown rank, which has no length
            return False
        if len(shape) < self.at_least if self.axes is None else len(shape) != self.axes:
            return False
        for axis, size in self.sizes.items():
            if size is not None and isinstance(shape[axis], int) and shape[axis] != size:
                return False
        return True

    def __str__(self) -> str:
        axes = f"{self.at_least} or more" if self.axes is None else str(self.axes)
        sizes = [f"axis {axis} has size {size}" for axis, size in self.sizes.items() if size is not None]
        return f"{axes} axes" + (f", of which {' and '.join(sizes)}" if sizes else "")

    @classmethod
    def broadcast_from(cls, *shapes: Sequence[Any]) -> "Expected":
        """Shapes that tensors of these ones broadcast to."""
        sizes = {axis - len(shape): size for shape in shapes for axis, size in enumerate(shape) if size != 1}
        return cls(at_least=max(1, *map(len, shapes)), sizes=sizes)

    @classmethod
    def shape(cls, shape: Sequence[Any]) -> "Expected":
        """Exactly this shape, where it is known."""
        return cls(len(shape), sizes={axis: size for axis, size in enumerate(shape) if is_known(size)})


class Adjoint(Protocol):
    """What the check needs to know of a layer."""

    name: str
    source: keras.layers.Layer
    data_format: str

    @property
    def compute_dtype(self) -> str:
        """The dtype to compute in."""

    @property
    def expected(self) -> Expected:
        """The shape that its input must have."""


def accept(layer: Adjoint, y: Tensor, expected: Expected | None = None) -> Tensor:
    """The input of a layer in the layer's compute dtype, after a check that it is one.

    Args:
        layer: A tied layer.
        y: What it was called with.
        expected: The shape that y must have, by default what the layer says.

    Raises:
        ValueError: If y is no tensor of real numbers, or has another shape.
    """
    if getattr(layer.source, "data_format", None) not in (None, layer.data_format):  # no frame in every call
        check_data_format(layer)
    shape = getattr(y, "shape", None)
    if shape is None or not (expected or layer.expected).fits(shape):
        raise ValueError(_refusal(layer, y, expected or layer.expected))
    dtype = name_of_dtype(y.dtype)
    if dtype == layer.compute_dtype:
        return y
    check_real(layer, dtype)
    return ops.cast(y, layer.compute_dtype)


def check_tensors(layer: Adjoint, y: Any) -> None:
    """Refuse what is no tensor, nor a structure of tensors, before Keras tries to make one of it."""
    for each in (y,) if hasattr(y, "shape") else keras.tree.flatten(y) or (None,):
        is_tensor = hasattr(each, "shape") and hasattr(each, "dtype")
        if not is_tensor and each is not layer:
            raise ValueError(_refusal(layer, y, layer.expected))
        _check_array(layer, each)


def check_whole(layer: Any, given: Any) -> None:
    """Refuse arguments that are arrays of no numbers, or tensors that lack some, for which a layer has failed."""
    for each in keras.tree.flatten(given):
        _check_array(layer, each)
        if not current().is_dense(each) or hasattr(each, "nnz"):  # as SciPy's have
            raise ValueError(
                f"`{layer.name}` takes tensors with a number in every place. Make a dense tensor of this one. "
                f"Received: a {type(each).__name__}, sparse or of rows of several lengths"
            )


def check_arrays(layer: Any, given: tuple[Sequence[Any], Mapping[str, Any]]) -> None:
    """Refuse arguments beside y, but sizes, that are arrays of NumPy without a number in every place."""
    arguments, keywords = given
    for value in (*arguments, *(value for name, value in keywords.items() if name != "output_size")):
        _check_array(layer, value)


def _check_array(layer: Any, value: Any) -> None:
    """Refuse an array of NumPy that has no number in every place."""
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in _NO_NUMBERS:
        raise ValueError(f"`{layer.name}` takes a tensor of real numbers. Received: an array of dtype {value.dtype}")
    if isinstance(value, np.ma.MaskedArray):  # of which backends drop the mask
        raise ValueError(
            f"`{layer.name}` takes a tensor with a number in every place. Say what is to stand where it is masked, as in "
            f"`y.filled(0)`. Received: a {type(value).__name__}"
        )


def check_switches(layer: Any, y: Any, switches: Any) -> None:
    """Refuse a call without switches of a layer that needs them."""
    if layer.needs_switches and switches is None:
        source = layer
        while hasattr(source, "needs_switches"):
            source = getattr(source, "source", None) or source.layer
        raise SizeError(
            f"What `{source.name}` selects depends on its input, and only for a given one is it linear. Pass the input, "
            f"x, when you call the adjoint: `adjoint(layer)(y, switches=x)`. Received: y.shape={shape_text(y)}, "
            f"switches=None"
        )


def check_symbolic(layer: Adjoint, y: Any, expected: Expected | None = None) -> None:
    """Refuse a symbolic tensor that `accept` would refuse when the layer runs."""
    check_data_format(layer)
    if not hasattr(y, "shape") or not (expected or layer.expected).fits(y.shape):
        raise ValueError(_refusal(layer, y, expected or layer.expected))
    check_real(layer, name_of_dtype(y.dtype))


def check_data_format(layer: Any) -> None:
    """Raise a TieError if the source has its channels on another axis than when its adjoint was made."""
    before = getattr(layer, "data_format", None)
    if before is not None and getattr(layer.source, "data_format", before) != before:
        raise TieError(
            f"`{layer.source.name}` had another `data_format` when its adjoint was made. Take the adjoint anew. "
            f"Received: data_format={layer.source.data_format!r} after {before!r}"
        )


def check_real(layer: Adjoint, dtype: str) -> None:
    """Raise a ValueError for tensors that no real operator can be applied to, rather than drop an imaginary part."""
    if not dtype.startswith(("float", "bfloat", "int", "uint", "bool")):
        raise ValueError(f"`{layer.name}` takes a tensor of real numbers. Received: a tensor of dtype {dtype}")


def _refusal(layer: Adjoint, y: Any, expected: Expected) -> str:
    received = f"a tensor of shape {shape_text(y)}" if hasattr(y, "shape") else f"y of type {type(y).__name__}"
    return f"`{layer.name}` takes the output of `{layer.source.name}`: {expected}. Received: {received}"


def shape_text(tensor: Any) -> str:
    """The shape of a tensor as messages write it."""
    shape = getattr(tensor, "shape", None)
    return "unknown" if shape is None or getattr(shape, "rank", 0) is None else str(tuple(shape))


def broadcast_shape(shapes: Sequence[Shape]) -> Shape:
    """The shape that tensors of these shapes, without their batch axes, are merged to; `None` where it is not known.

    Raises:
        ValueError: If they do not broadcast.
    """
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    merged = []
    for sizes in zip(*padded, strict=True):
        wide = sorted({size for size in sizes if is_known(size)} - {1})
        if len(wide) > 1:
            raise ValueError(f"These shapes do not broadcast to one. Received: {list(shapes)}")
        merged.append(wide[0] if wide else 1 if all(map(is_known, sizes)) else None)
    return tuple(merged)
