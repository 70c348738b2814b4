"""Random x and y that an operator takes as they are: of a model with integer inputs integers, which its casts do not round."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_adjoint.keras_internals import Functional, layers_inside, nodes_of
from keras_adjoint.ops import Shape
from keras_adjoint.ops.dot_test import random_probe, rounded_to
from keras_adjoint.testing.pairs import Array, Packing, inputs_of

LARGEST_INTEGER = 8  # every float holds it


@dataclass(frozen=True)
class Probe:
    """Random inputs of one operator.

    Attributes:
        shape: Their shape, batch axis included; that of several tensors as one, where they are packed.
        dtype: The dtype that the operator computes in.
        narrower: Which of their numbers another dtype must hold, too: an index and the dtype for each.
    """

    shape: Shape
    dtype: str
    narrower: tuple[tuple[Any, str], ...] = ()

    @property
    def may_be_negative(self) -> bool:
        """Whether the operator takes −x for every x."""
        return not any(dtype == "bool" or dtype.startswith("uint") for _, dtype in self.narrower)

    @property
    def may_be_added(self) -> bool:
        """Whether the operator takes the sum of any two x."""
        return not any(dtype == "bool" for _, dtype in self.narrower)

    @property
    def floats(self) -> list[str]:
        """The other dtypes of floats, to which what is of this shape may be rounded."""
        return [dtype for _, dtype in self.narrower if "float" in dtype]

    def random(self, generator: np.random.Generator) -> Array:
        numbers = random_probe(self.shape, self.dtype, generator)
        for index, dtype in self.narrower:
            part = numbers[index]
            numbers[index] = rounded_to(dtype, part) if "float" in dtype else _integers(dtype, part.shape, generator)
        return numbers


def _integers(dtype: str, shape: Shape, generator: np.random.Generator) -> Array:
    """Random integers that a dtype holds, as float64, not all of them zero."""
    lowest = -LARGEST_INTEGER if dtype.startswith("int") else 0
    numbers = generator.integers(lowest, 1 if dtype == "bool" else LARGEST_INTEGER, shape, endpoint=True).astype(
        "float64"
    )
    numbers.flat[0] = numbers.flat[0] or 1.0
    return numbers


def probe_of(operator: Callable[..., Any], shape: Shape, packing: Packing | None, dtype: str) -> Probe:
    """The `Probe` of an operator whose inputs have one shape, or are packed. What a function takes is not known."""
    dtypes = [keras.backend.standardize_dtype(x.dtype) for x in inputs_of(operator)]
    sizes = [None] if packing is None else packing.sizes
    if len(dtypes) != len(sizes):
        return Probe(shape, dtype)
    narrower, start = [], 0
    for size, own in zip(sizes, dtypes, strict=True):
        index = ... if size is None else (slice(None), slice(start, start + size))
        start += size or 0
        if own != dtype:
            narrower.append((index, own))
    return Probe(shape, dtype, tuple(narrower))


def floats_inside(operator: Callable[..., Any]) -> set[str]:
    """The dtypes of floats that the layers in a layer or model compute in, and those of the tensors between them.

    What the code of a function, or of one layer, casts to inside is not known.
    """
    if not isinstance(operator, keras.layers.Layer):
        return set()
    found: set[str] = set()
    for layer in (operator, *layers_inside(operator)):
        if isinstance(layer, (Functional, keras.Sequential)):  # it computes by its layers alone
            found |= {y.dtype for node in nodes_of(layer) for y in node.output_tensors}
        elif not isinstance(layer, keras.layers.InputLayer) and layer.compute_dtype:
            found.add(layer.compute_dtype)
    return {dtype for dtype in found if "float" in dtype}
