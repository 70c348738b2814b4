"""`LinearMap`: what the norms, bounds and bridges need to know of an operator."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import keras

from keras_adjoint.operators.space import Space
from keras_adjoint.ops import Tensor

HALF = ("bfloat16", "float16")


class LinearMap(ABC):
    """A linear map A from tensors of one space to tensors of another, batch by batch.

    Args:
        in_space: The `Space` of x in A x.
        out_space: The `Space` of A x.
        dtype: What it is computed in.
    """

    def __init__(self, in_space: Space, out_space: Space, dtype: str) -> None:
        self.in_space = in_space
        self.out_space = out_space
        self.dtype = dtype
        self._transpose: Self | None = None
        self._wide: LinearMap | None = None
        self.functions: dict[Hashable, Callable[..., Any]] = {}  # compiled ones that apply it

    @abstractmethod
    def apply(self, leaves: list[Tensor]) -> list[Tensor]:
        """A x, for the tensors of x as a list."""

    @abstractmethod
    def transposed(self) -> Any:
        """Aᵀ, as a new operator."""

    @abstractmethod
    def describe(self) -> str:
        """What it is, in a few words."""

    @abstractmethod
    def bounded(self) -> Tensor | float:
        """A number that is not below the norm."""

    def parts(self) -> Sequence["LinearMap"]:
        """The operators that it is made of."""
        return ()

    def variables(self) -> list[keras.Variable]:
        """The variables that it reads, each once."""
        return variables_of(self.parts())

    def scalars(self) -> list[Tensor]:
        """The tensors, other than variables, that it multiplies by, each once."""
        return scalars_of(self.parts())

    def layers(self) -> list[keras.layers.Layer]:
        """The layers and models that it is made of."""
        return [layer for part in self.parts() for layer in part.layers()]

    def near_maximum(self) -> tuple[Tensor, Tensor] | None:
        """(a row of the numbers of x that A lengthens nearly most, a close bound of the norm), where both are cheap."""
        return None

    @property
    def T(self) -> Self:
        """The adjoint Aᵀ. `A.T.T is A`."""
        if self._transpose is None:
            self._transpose = self.transposed()
            self._transpose._transpose = self
        return self._transpose

    @property
    def in_shape(self) -> Any:
        """The shape of x in A x without the batch axis, or a structure of shapes."""
        return self.in_space.shape

    @property
    def out_shape(self) -> Any:
        """The shape of A x without the batch axis, or a structure of shapes."""
        return self.out_space.shape

    @property
    def shape(self) -> tuple[int, int]:
        """(numbers in A x, numbers in x), the shape of the matrix."""
        return self.out_space.size, self.in_space.size

    @property
    def precision(self) -> str:
        """What norms and matrices are computed in, float64 if the operator computes in that and else float32."""
        return "float64" if self.dtype == "float64" else "float32"

    def in_precision(self) -> "LinearMap | None":
        """The same operator from the same variables, computed in `precision`; `None` if that is not known."""
        return None

    def rounds(self) -> bool:
        """Whether anything that it is made of computes in half precision."""
        return self.dtype in HALF or any(part.rounds() for part in self.parts())

    def widened(self) -> "LinearMap":
        """The operator whose spectrum is this one's: of half precision the same in float32, as far as that is known."""
        if not self.rounds():
            return self
        if self._wide is None:
            found = self.in_precision()
            self._wide = self if found is None or found.rounds() else found
        return self._wide

    def apply_to_rows(self, rows: Tensor) -> Tensor:
        """A x for samples that are rows of numbers, in `precision`."""
        leaves = [keras.ops.cast(leaf, self.dtype) for leaf in self.in_space.split(rows)]
        return keras.ops.cast(self.out_space.join(self.apply(leaves)), self.precision)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "functions": {}}

    def __repr__(self) -> str:
        return f"<Operator {self.describe()}: {self.in_space} to {self.out_space}>"


def variables_of(operators: Sequence[LinearMap]) -> list[keras.Variable]:
    """The variables that operators read, each once."""
    found = [variable for operator in operators for variable in operator.variables()]
    return list({id(variable): variable for variable in found}.values())


def scalars_of(operators: Sequence[LinearMap]) -> list[Tensor]:
    """The tensors, other than variables, that operators multiply by, each once."""
    found = [scalar for operator in operators for scalar in operator.scalars()]
    return list({id(scalar): scalar for scalar in found}.values())


class _Replaced(threading.local):
    """What this thread multiplies by instead of scalars, by their identity. `torch.compile` cannot read a `ContextVar`."""

    values: Mapping[int, Tensor] = {}  # noqa: RUF012  never changed, only replaced


_REPLACED = _Replaced()


@contextmanager
def replacing_scalars(scalars: Sequence[Tensor], values: Sequence[Tensor]) -> Iterator[None]:
    """Within this, operators multiply by other values than their own `scalars`, which compilers cannot see."""
    before = _REPLACED.values
    _REPLACED.values = {**before, **{id(scalar): value for scalar, value in zip(scalars, values, strict=True)}}
    try:
        yield
    finally:
        _REPLACED.values = before


def current_scalar(scalar: Tensor) -> Tensor:
    """A scalar of an operator, or what it is replaced by."""
    return _REPLACED.values.get(id(scalar), scalar)
