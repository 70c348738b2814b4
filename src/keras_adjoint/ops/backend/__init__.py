"""What differs between backends: one module each, which implements the protocol `Backend`."""

import importlib
import inspect
import operator
from collections.abc import Callable, Sequence
from functools import partial, reduce, wraps
from itertools import starmap
from typing import Any, ParamSpec, TypeVar, cast

import keras

from keras_adjoint.ops import Tensor
from keras_adjoint.ops.backend.protocol import Backend
from keras_adjoint.ops.geometry import Convolution

P = ParamSpec("P")
T = TypeVar("T")

TF32 = 2.0**-10  # 10 bits of mantissa
BFLOAT16 = 2.0**-7


def current() -> Backend:
    """The module of the backend that Keras runs on."""
    if not _CURRENT:  # not `functools.cache`, through which `torch.compile` would look and see an import
        module = importlib.import_module(f"keras_adjoint.ops.backend.{keras.backend.backend()}")
        _CURRENT.append(cast(Backend, module))
    return _CURRENT[0]


_CURRENT: list[Backend] = []


def untraced(function: Callable[P, T]) -> Callable[P, T]:
    """The function, which `torch.compile` runs as it is: PyTorch traces no code that makes layers."""
    found: list[Callable[P, T]] = []

    @wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> T:
        if not found:
            found.append(current().untraced(function))
        return found[0](*args, **options)

    return call


class MadeUntraced(type(keras.layers.Layer)):  # type: ignore[misc]
    """The type of classes of layers that `torch.compile` makes as they are, in code that it traces."""

    @untraced
    def __call__(cls, *args: Any, **options: Any) -> Any:
        return super().__call__(*args, **options)

    @property
    def __signature__(cls) -> inspect.Signature:  # without which that of `__call__` above would be shown
        return inspect.signature(partial(cls.__init__, cls))  # type: ignore[misc]


def sum_unrolled(term: Callable[..., Tensor], operand: Tensor, rows: Sequence[tuple[Any, ...]]) -> Tensor:
    """The sum of `term(operand, *row)`, operation by operation."""
    return reduce(operator.add, starmap(partial(term, operand), rows))


def map_unrolled(term: Callable[..., Tensor], operand: Tensor, rows: Sequence[tuple[Any, ...]]) -> list[Tensor]:
    """A list of `term(operand, *row)`, operation by operation."""
    return list(starmap(partial(term, operand), rows))


def fold_missing(columns: Tensor, convolution: Convolution) -> Tensor:
    """The `fold` of backends that have none, and say so in `FOLDED_RANKS`."""
    raise NotImplementedError(f"This backend has no operation `fold`. Received: {convolution}")
