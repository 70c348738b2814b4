"""What an adjoint layer is converted from and to: a call of it, and stock layers as data with their weights."""

import hashlib
import inspect
import pickle
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from keras.layers import Layer

from keras_adjoint.errors import NoRuleError
from keras_adjoint.layers.sizes import spatial
from keras_adjoint.layers.tied import Tied
from keras_adjoint.ops import Shape


@dataclass(frozen=True)
class AdjointCall:
    """A call of an adjoint layer that is to be converted.

    Args:
        tied: The layer, built.
        input_shape: Shape of its input, batch axis included, or a structure of shapes.
        output_shape: Shape of its output, or a structure of shapes.
        to: "conv_transpose" or "conv".
    """

    tied: Tied
    input_shape: Shape
    output_shape: Shape
    to: str

    @property
    def input_sizes(self) -> Shape:
        return spatial(self.input_shape, self.tied.data_format)

    @property
    def output_sizes(self) -> Shape:
        return spatial(self.output_shape, self.tied.data_format)

    def known(self, sizes: Shape) -> tuple[int, ...]:
        """`sizes`, all of which must be known."""
        if None in sizes:
            self.refuse(f"the sizes must be known, and they are {tuple(sizes)}; build the model for a fixed input size")
        return tuple(sizes)

    def refuse(self, reason: str) -> NoReturn:
        refuse(self.tied, reason)


UNKNOWN = "no arrangement of them is known that computes it"


def refuse(tied: Layer, reason: str) -> NoReturn:
    """Raise a NoRuleError."""
    raise NoRuleError(f"`{tied.name}` cannot be converted into stock layers: {reason}. Received: {received(tied)}")


def received(layer: Layer) -> str:
    """A layer as error messages name it."""
    return f"layer={layer.name!r} of type {type(layer).__name__}"


@dataclass(frozen=True)
class Step:
    """A stock layer that is yet to be made, and the arrays to be set as its weights.

    Attributes:
        layer_class: Its class.
        options: Those of its constructor.
        weights: The arrays.
        reads: The variable that its kernel stands for, of the adjoint's source or of the adjoint itself, if the adjoint reads
            several.
    """

    layer_class: type
    options: dict[str, Any]
    weights: tuple[np.ndarray, ...]
    reads: str | None = None

    def make(self, **kwargs: Any) -> Layer:
        return self.layer_class(**self.options, **kwargs)

    def fingerprint(self) -> bytes:
        """The same for steps that do the same, so that one layer can serve them."""
        return hashlib.sha256(pickle.dumps((self.layer_class, self.options, self.weights))).digest()


@dataclass(frozen=True)
class Branches:
    """The conversion of an adjoint that returns several tensors: a chain of steps for each."""

    chains: list[list[Step]]


def step(layer_class: type, *weights: np.ndarray, **options: Any) -> Step:
    """A `Step` that works on channels-last tensors."""
    if "data_format" in inspect.signature(layer_class).parameters:
        options["data_format"] = "channels_last"
    return Step(layer_class, options, weights)


def weighted(layer_class: type, kernel: np.ndarray, bias: np.ndarray | None = None, **options: Any) -> Step:
    """A `Step` with a kernel, and with a bias if there is one."""
    weights = (kernel,) if bias is None else (kernel, bias)
    return step(layer_class, *weights, use_bias=bias is not None, **options)
