"""`Operator`: a linear map between tensors, with its adjoint, an algebra, and a matrix. Subclasses say how it is applied."""

from abc import ABC, abstractmethod
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_adjoint.errors import SizeError
from keras_adjoint.operators.space import Space
from keras_adjoint.ops import Tensor

MOST_NUMBERS = 2**27  # of a matrix: half a gigabyte in float32


class Operator(ABC):
    """A linear map A from tensors of one space to tensors of another, batch by batch.

    Operators are made by `keras_adjoint.operator` and `keras_adjoint.identity`, and of each other: `A @ B`, `A + B`, `A - B`,
    `2 * A`, `A / 2`, `-A`, `A.T`, `A.gram()`, and by `vstack`, `hstack` and `block`. None holds numbers of its own: a kernel
    that changes changes every operator made of it.

    Attributes:
        in_space: The `Space` of x in A x.
        out_space: The `Space` of A x.
        dtype: What it is computed in.
    """

    __array_ufunc__ = None  # NumPy's scalars and arrays leave `2 * A` to this class

    def __init__(self, in_space: Space, out_space: Space, dtype: str) -> None:
        self.in_space = in_space
        self.out_space = out_space
        self.dtype = dtype
        self._transpose: Operator | None = None

    # --- what a subclass says

    @abstractmethod
    def apply(self, leaves: list[Tensor]) -> list[Tensor]:
        """A x, for the tensors of x as a list."""

    @abstractmethod
    def transposed(self) -> "Operator":
        """Aᵀ, as a new operator."""

    @abstractmethod
    def describe(self) -> str:
        """What it is, in a few words."""

    # --- shapes

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

    # --- the algebra

    @property
    def T(self) -> "Operator":
        """The adjoint Aᵀ. `A.T.T is A`."""
        if self._transpose is None:
            self._transpose = self.transposed()
            self._transpose._transpose = self
        return self._transpose

    def __call__(self, x: Any) -> Any:
        """A x, for a batch x."""
        found = self.apply(self.in_space.leaves(x, self.dtype, repr(self)))
        return self.out_space.pack(found)

    def __matmul__(self, other: Any) -> Any:
        from keras_adjoint.operators.algebra import Composition

        return Composition.of(self, other) if isinstance(other, Operator) else self(other)

    def __add__(self, other: Any) -> "Operator":
        from keras_adjoint.operators.algebra import Sum

        return Sum.of(self, other) if isinstance(other, Operator) else NotImplemented

    def __sub__(self, other: Any) -> "Operator":
        return self + -1 * other if isinstance(other, Operator) else NotImplemented

    def __mul__(self, factor: Any) -> "Operator":
        from keras_adjoint.operators.algebra import Scaled

        return Scaled.of(self, factor)

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> "Operator":
        return self * (1 / divisor)

    def __neg__(self) -> "Operator":
        return self * -1

    def gram(self, side: str = "inputs") -> "Operator":
        """AᵀA, which is symmetric and takes what A takes; or AAᵀ for `side="outputs"`.

        Raises:
            ValueError: If `side` is neither.
        """
        if side not in ("inputs", "outputs"):
            raise ValueError(
                f'`gram` makes AᵀA for `side="inputs"` and AAᵀ for `side="outputs"`. Received: side={side!r}'
            )
        from keras_adjoint.operators.algebra import Composition

        return Composition.of(self.T, self) if side == "inputs" else Composition.of(self, self.T)

    # --- spectra

    def bound(self) -> Tensor:
        """A number that is never below the norm, cheap, and differentiable by the kernels.

        Of convolutions it is the norm of the circular convolution that A is a part of (see `keras_adjoint.operators.symbol`);
        of compositions the product of the bounds, of sums the sum, of blocks the norm of the matrix of bounds. Where no rule
        is known for a layer, it is taken from the layer's matrix if that is small.

        Returns:
            A scalar tensor, in float32 or float64.

        Raises:
            NoRuleError: If no bound is known, and the operator is too large for its matrix. `norm` estimates.

        Example:

        >>> float((3 * ka.identity((2,))).bound())
        3.0
        """
        from keras_adjoint.operators.bounds import bound_of

        return ops.convert_to_tensor(bound_of(self), self._matrix_dtype)

    # --- as other things

    def layer(self, name: str | None = None) -> keras.layers.Layer:
        """A Keras layer or model that computes A, tied to the kernels that A reads.

        Args:
            name: Name of the model.

        Returns:
            A Functional model of the tensors of `in_space`. It can be saved as every tied model can.
        """
        x = self.in_space.inputs(self.dtype)
        return keras.Model(x, self(x), name=name)

    def to_matrix(self, *, most_numbers: int = MOST_NUMBERS) -> np.ndarray[Any, Any]:
        """The matrix of A, of shape `A.shape`: column j is A applied to the j-th unit vector.

        Args:
            most_numbers: The largest matrix that is made.

        Returns:
            A NumPy array.

        Raises:
            SizeError: If the matrix has more numbers.

        Example:

        >>> ka.identity((2,)).to_matrix().tolist()
        [[1.0, 0.0], [0.0, 1.0]]
        """
        rows, columns = self.shape
        if rows * columns > most_numbers:
            raise SizeError(
                f"The matrix would have {rows} × {columns} = {rows * columns} numbers, more than `most_numbers`. Apply the "
                f"operator instead (`A @ x`), or raise the limit. Received: most_numbers={most_numbers}, {self!r}"
            )
        wide = rows < columns  # the fewer unit vectors, the sooner
        operator, count = (self.T, rows) if wide else (self, columns)
        found = np.empty((count, columns if wide else rows), self._matrix_dtype)
        step = max(1, 2**24 // max(rows, columns))
        for start in range(0, count, step):
            units = np.eye(min(step, count - start), count, start, dtype=self._matrix_dtype)
            given = operator.in_space.split(ops.convert_to_tensor(units, operator.dtype))
            part = operator.out_space.join(operator.apply(given))
            found[start : start + len(units)] = ops.convert_to_numpy(ops.cast(part, self._matrix_dtype))
        return found if wide else found.T

    @property
    def _matrix_dtype(self) -> str:
        return "float64" if self.dtype == "float64" else "float32"

    def __repr__(self) -> str:
        return f"<Operator {self.describe()}: {self.in_space} to {self.out_space}>"
