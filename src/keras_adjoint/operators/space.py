"""The tensors that an operator takes or gives: their shapes without the batch axis, in a model's own structure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_adjoint.errors import SizeError, with_article
from keras_adjoint.layers.inputs import shape_text
from keras_adjoint.layers.options import as_integer, is_real_number
from keras_adjoint.ops import Tensor
from keras_adjoint.ops.backend import current

LEAF = 0


@dataclass(frozen=True)
class Space:
    """All batches of tensors of given shapes.

    Attributes:
        shapes: The shape of every tensor, without the batch axis.
        structure: The lists, tuples and dictionaries that they come in, with anything in the place of each tensor.
    """

    shapes: tuple[tuple[int, ...], ...]
    structure: Any = field(default=LEAF, compare=False)

    @classmethod
    def of(cls, shape: Any) -> "Space":
        """The space of one shape, or of a structure of shapes, as users write it.

        Raises:
            SizeError: If a size is not a positive integer.
        """
        if isinstance(shape, Mapping):
            parts: Any = {key: cls.of(one) for key, one in shape.items()}
        elif isinstance(shape, (list, tuple)) and any(isinstance(one, (list, tuple, Mapping)) for one in shape):
            parts = type(shape)(cls.of(one) for one in shape)
        else:
            return cls((_checked(shape, "Leave the batch axis out."),))
        spaces = tree.flatten(parts)
        return cls(
            tuple(one for space in spaces for one in space.shapes), tree.map_structure(lambda one: one.structure, parts)
        )

    @classmethod
    def like(cls, tensors: Any) -> "Space":
        """The space of tensors, or of symbolic ones, in their structure."""
        shapes = tuple(_checked(tuple(tensor.shape[1:]), "Pass them as `size`.") for tensor in tree.flatten(tensors))
        return cls(shapes, tree.map_structure(lambda tensor: LEAF, tensors))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and (self.shapes, self.pack(self.shapes)) == (
            other.shapes,
            other.pack(other.shapes),
        )

    def __hash__(self) -> int:
        return hash(self.shapes)

    @property
    def size(self) -> int:
        """Numbers in one sample."""
        return sum(map(math.prod, self.shapes))

    @property
    def shape(self) -> Any:
        """The shape of the one tensor, or the structure of shapes."""
        return self.pack(self.shapes)

    def pack(self, leaves: Sequence[Any]) -> Any:
        """One value for every tensor, in the structure of the space."""
        if self.structure == LEAF:
            return leaves[0]
        return tree.pack_sequence_as(self.structure, list(leaves))

    def inputs(self, dtype: str) -> Any:
        """Symbolic tensors of this space."""
        return self.pack([keras.Input(shape, dtype=dtype) for shape in self.shapes])

    def leaves(self, tensors: Any, dtype: str, name: str) -> list[Tensor]:
        """The tensors of a batch, in the dtype of the operator.

        Raises:
            SizeError: If they are not of this space.
        """
        leaves = tree.flatten(tensors)
        if not all(current().is_dense(leaf) and not isinstance(leaf, np.ma.MaskedArray) for leaf in leaves):
            raise _not_made_tensors(name, leaves)
        given = [tensors] if hasattr(tensors, "shape") else tree.flatten(tensors)
        fits = len(given) == len(self.shapes) and all(
            hasattr(tensor, "shape")
            and hasattr(tensor, "dtype")
            and len(tensor.shape) == len(shape) + 1
            and all(size is None or size == wanted for size, wanted in zip(tensor.shape[1:], shape, strict=True))
            for tensor, shape in zip(given, self.shapes, strict=False)
        )
        if not fits or not _same_structure(tensors, self.shape):
            raise SizeError(
                f"{name} takes batches of {self}, with the batch axis in front. Received: {_received(tensors, given)}"
            )
        for tensor in given:
            if not is_real(tensor.dtype):
                raise ValueError(f"{name} takes real numbers. Received: a tensor of dtype {tensor.dtype}")
        try:
            return [tensor if _is_symbolic(tensor) else ops.convert_to_tensor(tensor, dtype) for tensor in given]
        except (TypeError, ValueError) as error:  # of sparse matrices and the like, by the backend
            raise _not_made_tensors(name, given) from error

    def join(self, leaves: Sequence[Tensor]) -> Tensor:
        """The tensors of a batch side by side, as one matrix with a row for every sample."""
        rows = [ops.reshape(leaf, (-1, math.prod(shape))) for leaf, shape in zip(leaves, self.shapes, strict=True)]
        return rows[0] if len(rows) == 1 else ops.concatenate(rows, axis=1)

    def split(self, rows: Tensor) -> list[Tensor]:
        """The inverse of `join`."""
        parts, start = [], 0
        for shape in self.shapes:
            parts.append(ops.reshape(rows[:, start : start + math.prod(shape)], (-1, *shape)))
            start += math.prod(shape)
        return parts

    def __str__(self) -> str:
        return " and ".join(map(str, self.shapes))


def _checked(shape: Any, what_to_do: str) -> tuple[int, ...]:
    sizes = tuple(shape) if isinstance(shape, (list, tuple)) else (shape,)
    integers = [as_integer(size) for size in sizes]
    if not all(size and size > 0 for size in integers):
        raise SizeError(
            f"The shape of an operator's tensors has known sizes, positive integers, without the batch axis. {what_to_do} "
            f"Received: {shape}"
        )
    return tuple(size for size in integers if size)


def _not_made_tensors(name: str, given: Sequence[Any]) -> ValueError:
    """The error for sparse matrices and the like."""
    kinds = ", ".join(type(tensor).__name__ for tensor in given)
    return ValueError(
        f"{name} takes arrays, and tensors with a number in every place, that Keras makes tensors of. Received: {kinds}"
    )


def _received(tensors: Any, given: Sequence[Any]) -> str:
    """What came in the place of the tensors of a space."""
    if given and not any(hasattr(one, "shape") for one in given):
        kind = f"{type(tensors).__name__}{'' if tensors is given[0] else f' of {type(given[0]).__name__}'}"
        hint = ", which `np.asarray` makes an array of" if all(map(is_real_number, given)) else ""
        return f"{with_article(kind)}{hint}"
    return ", ".join(map(shape_text, given)) or "nothing"


def is_real(dtype: Any) -> bool:
    """Whether a dtype is one of floats, integers or booleans."""
    if isinstance(dtype, np.dtype):
        return dtype.kind in "fiub" or dtype.name == "bfloat16"
    return keras.backend.standardize_dtype(dtype).startswith(("float", "bfloat", "int", "uint", "bool"))


def _is_symbolic(tensor: Any) -> bool:
    return isinstance(tensor, keras.KerasTensor)


def _same_structure(tensors: Any, shapes: Any) -> bool:
    """Whether dictionaries have the same keys; lists and tuples are taken for each other."""
    if isinstance(shapes, Mapping):
        return isinstance(tensors, Mapping) and all(
            key in tensors and _same_structure(tensors[key], shapes[key]) for key in shapes
        )
    return not isinstance(tensors, Mapping)
