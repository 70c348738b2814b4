"""`Operator`: a linear map that is combined as matrices are; products, sums, multiples and the identity."""

import math
from collections.abc import Iterable, Sequence
from functools import reduce
from numbers import Real
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_adjoint.errors import SizeError, one_of, shortened
from keras_adjoint.layers.inputs import shape_text
from keras_adjoint.layers.options import is_real_number
from keras_adjoint.operators.linear_map import current_scalar
from keras_adjoint.operators.matrix_like import MatrixLike
from keras_adjoint.operators.multiple import multiple_of
from keras_adjoint.operators.space import Space, is_real
from keras_adjoint.ops import Shape, Tensor
from keras_adjoint.ops.precision import float_dtype

ABOVE = 1 + 1e-6  # what rounding may have taken off a bound that was computed in a few steps


class Operator(MatrixLike):
    """A linear map A from tensors of one space to tensors of another, batch by batch.

    Operators are made by `keras_adjoint.operator` and `keras_adjoint.identity`, and of each other: `A @ B`, `A + B`, `A - B`,
    `2 * A`, `A / 2`, `-A`, `A.T`, `A.gram()`, and by `vstack`, `hstack` and `block`. None holds numbers of its own: a kernel
    that changes changes every operator made of it, and so does a `keras.Variable` c in `A * c`, but not in `A / c`, which has
    the value of this moment. (`c * A` is computed by Keras, which takes no operator.)

    Attributes:
        in_space: The `Space` of x in A x.
        out_space: The `Space` of A x.
        dtype: What it is computed in.
    """

    __array_ufunc__ = None  # NumPy's scalars and arrays leave `2 * A` to this class

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise ValueError(
            f"An operator is no array: `A.to_matrix()` is its matrix, `A @ x` applies it, and a variable c stands behind it, "
            f"as in `A * c`. Received: {self!r}"
        )

    # --- the algebra

    def __call__(self, x: Any) -> Any:
        """A x, for a batch x."""
        found = self.apply(self.in_space.leaves(x, self.dtype, repr(self)))
        return self.out_space.pack(found)

    def __matmul__(self, other: Any) -> Any:
        return Composition.of(self, other) if isinstance(other, Operator) else self(other)

    def __rmatmul__(self, other: Any) -> Any:
        raise ValueError(
            f"What an operator A is applied to stands behind it: `A @ x`, and `A.T @ y` for the adjoint. Received: "
            f"{received(other)} @ {self!r}"
        )

    def __add__(self, other: Any) -> "Operator":
        return Sum.of(self, other) if is_term(other) else self

    __radd__ = __add__

    def __sub__(self, other: Any) -> "Operator":
        return Sum.of(self, -other) if is_term(other) else self

    def __rsub__(self, other: Any) -> "Operator":
        return -self + other

    def __mul__(self, factor: Any) -> "Operator":
        return Scaled.of(self, factor_from(factor))

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> "Operator":
        found = factor_from(divisor)
        if isinstance(found, float) and not found:
            raise ValueError(f"An operator is divided by a number that is not zero. Received: {self!r} / {divisor!r}")
        return self * (1 / found)

    def __rtruediv__(self, other: Any) -> Any:
        raise ValueError(
            f"Nothing is divided by an operator A. `keras_adjoint.lstsq(A, y)` solves A x = y. Received: {received(other)} / "
            f"{self!r}"
        )

    def __neg__(self) -> "Operator":
        return self * -1

    def gram(self, side: str = "inputs") -> "Operator":
        """AᵀA, which is symmetric and takes what A takes; or AAᵀ for `side="outputs"`.

        Raises:
            ValueError: If `side` is neither.
        """
        one_of("side", side, ("inputs", "outputs"))
        return Composition.of(self.T, self) if side == "inputs" else Composition.of(self, self.T)

    def layer(self, name: str | None = None) -> keras.layers.Layer:
        """A Keras layer or model that computes A, tied to the kernels and variables that A reads.

        Args:
            name: Name of the model.

        Returns:
            A Functional model of the tensors of `in_space`. It can be saved as every tied model can. Of the operator of a
            single layer or model, without a name, it is that layer, or the adjoint that computes it; `model.save` is that of
            models alone.
        """
        x = self.in_space.inputs(self.dtype)
        return keras.Model(x, self(x), name=name)


class Composition(Operator):
    """A @ B @ …: the last one is applied first, and (A B)ᵀ = Bᵀ Aᵀ."""

    def __init__(self, factors: Sequence[Operator]) -> None:
        super().__init__(factors[-1].in_space, factors[0].out_space, factors[0].dtype)
        self.factors = tuple(factors)

    @classmethod
    def of(cls, a: Operator, b: Operator) -> Operator:
        """A B.

        Raises:
            SizeError: If A does not take what B gives.
        """
        check_dtypes(a, b)
        if a.in_space.shapes != b.out_space.shapes:
            raise SizeError(
                f"In a product A @ B, A takes what B gives. Received: A={a!r}, which takes {a.in_space}, and B={b!r}, which "
                f"gives {b.out_space}"
            )
        parts = [part for each in (a, b) for part in (each.factors if isinstance(each, Composition) else (each,))]
        parts = [part for part in parts if not isinstance(part, Identity)] or [a]
        return parts[0] if len(parts) == 1 else cls(parts)

    def apply(self, leaves: list[Tensor]) -> list[Tensor]:
        return reduce(lambda given, factor: factor.apply(given), reversed(self.factors), leaves)

    def transposed(self) -> Operator:
        return Composition([factor.T for factor in reversed(self.factors)])

    def in_precision(self) -> Operator | None:
        wide = all_in_precision(self.factors)
        return None if wide is None else Composition(wide)

    def bounded(self) -> Tensor | float:
        """‖A B‖ ≤ ‖A‖ ‖B‖."""
        return reduce(lambda a, b: a * b * ABOVE, (factor.bounded() for factor in self.factors))

    def parts(self) -> Sequence[Operator]:
        return self.factors

    def describe(self) -> str:
        return " @ ".join(
            f"({factor.describe()})" if isinstance(factor, Sum) else factor.describe() for factor in self.factors
        )


class Sum(Operator):
    """A + B + …, between the same spaces."""

    def __init__(self, terms: Sequence[Operator]) -> None:
        super().__init__(terms[0].in_space, terms[0].out_space, terms[0].dtype)
        self.terms = tuple(terms)

    @classmethod
    def of(cls, a: Operator, b: Operator) -> Operator:
        """A + B.

        Raises:
            SizeError: If they are not between the same spaces.
        """
        check_dtypes(a, b)
        if (a.in_shape, a.out_shape) != (b.in_shape, b.out_shape):
            raise SizeError(f"The terms of a sum take and give the same shapes. Received: {a!r} and {b!r}")
        return cls([term for each in (a, b) for term in (each.terms if isinstance(each, Sum) else (each,))])

    def apply(self, leaves: list[Tensor]) -> list[Tensor]:
        found = [term.apply(leaves) for term in self.terms]
        return [reduce(ops.add, parts) for parts in zip(*found, strict=True)]

    def transposed(self) -> Operator:
        return Sum([term.T for term in self.terms])

    def in_precision(self) -> Operator | None:
        wide = all_in_precision(self.terms)
        return None if wide is None else Sum(wide)

    def bounded(self) -> Tensor | float:
        """‖A + B‖ ≤ ‖A‖ + ‖B‖."""
        return reduce(lambda a, b: (a + b) * ABOVE, (term.bounded() for term in self.terms))

    def parts(self) -> Sequence[Operator]:
        return self.terms

    def describe(self) -> str:
        return " + ".join(term.describe() for term in self.terms)


class Scaled(Operator):
    """c A for a real number c, which may be a tensor or a variable."""

    def __init__(self, operator: Operator, factor: Any) -> None:
        super().__init__(operator.in_space, operator.out_space, operator.dtype)
        self.operator, self.factor = operator, factor

    @classmethod
    def of(cls, operator: Operator, factor: Any) -> Operator:
        """c A, for a float, a tensor or a variable c."""
        if isinstance(factor, float) and isinstance(operator, Scaled) and isinstance(operator.factor, float):
            return cls.of(operator.operator, factor_from(operator.factor * factor))
        return operator if isinstance(factor, float) and factor == 1 else cls(operator, factor)

    def apply(self, leaves: list[Tensor]) -> list[Tensor]:
        if isinstance(self.factor, keras.Variable) and any(isinstance(leaf, keras.KerasTensor) for leaf in leaves):
            return [multiple_of(self.factor, self.dtype)(leaf) for leaf in self.operator.apply(leaves)]
        factor = self.factor if isinstance(self.factor, float) else ops.cast(current_scalar(self.factor), self.dtype)
        if isinstance(factor, float) and self.dtype == "float64":
            factor = np.full(1, factor)  # of a Python number, Keras makes float32
        return [ops.multiply(leaf, factor) for leaf in self.operator.apply(leaves)]

    def transposed(self) -> Operator:
        return Scaled(self.operator.T, self.factor)

    def in_precision(self) -> Operator | None:
        wide = all_in_precision([self.operator])
        return None if wide is None else Scaled(wide[0], self.factor)

    def bounded(self) -> Tensor | float:
        factor = np.asarray(self.factor) if isinstance(self.factor, float) else self.factor
        return ops.abs(ops.cast(factor, self.precision)) * self.operator.bounded() * ABOVE

    def parts(self) -> Sequence[Operator]:
        return (self.operator,)

    def variables(self) -> list[keras.Variable]:
        own = [self.factor] if isinstance(self.factor, keras.Variable) else []
        return [*own, *super().variables()]

    def scalars(self) -> list[Tensor]:
        own = [] if isinstance(self.factor, (float, keras.Variable)) else [self.factor]
        return [*own, *super().scalars()]

    def describe(self) -> str:
        inner = self.operator.describe()
        factor = f"{self.factor:g}" if isinstance(self.factor, float) else "c"
        return f"{factor} * ({inner})" if isinstance(self.operator, Sum) else f"{factor} * {inner}"


class Identity(Operator):
    """x ↦ x."""

    def apply(self, leaves: list[Tensor]) -> list[Tensor]:
        return list(leaves)

    def transposed(self) -> Operator:
        return Identity(self.out_space, self.in_space, self.dtype)

    def in_precision(self) -> Operator:
        return Identity(self.in_space, self.out_space, self.precision)

    def bounded(self) -> Tensor | float:
        return 1.0

    def describe(self) -> str:
        return "identity"


def identity(shape: Shape, *, dtype: str = "float32") -> Operator:
    """The identity on tensors of a shape.

    Args:
        shape: Their shape without the batch axis, or a structure of shapes.
        dtype: What it is computed in.

    Returns:
        An `Operator`.

    Raises:
        SizeError: If a size is not a positive integer.
        ValueError: If the dtype is not one of real floating-point numbers.

    Example:

    >>> (2 * ka.identity((3,))).to_matrix().diagonal().tolist()
    [2.0, 2.0, 2.0]
    """
    space = Space.of(shape)
    return Identity(space, space, float_dtype(dtype))


def is_term(value: Any) -> bool:
    """Whether what is added to an operator is another one, rather than the 0 that `sum` begins with.

    Raises:
        ValueError: If it is anything else.
    """
    is_operator = isinstance(value, Operator)
    if not is_operator and not (is_real_number(value) and value == 0):
        raise ValueError(
            f"Operators are added to operators. A layer becomes one by `keras_adjoint.operator(layer)`, a number c by "
            f"`c * keras_adjoint.identity(shape)`, and other numbers are added to what A gives: `A @ x + c`. Received: "
            f"{received(value)}"
        )
    return is_operator


def factor_from(value: Any) -> Any:
    """What an operator is multiplied by: a float, or a scalar tensor or variable as it is.

    Raises:
        ValueError: If it is not one finite real number.
    """
    is_scalar = hasattr(value, "dtype") and shape_text(value) == "()" and is_real(value.dtype)
    if not (is_scalar or isinstance(value, Real)) or isinstance(value, (bool, np.bool_)):
        raise ValueError(
            f"An operator is multiplied and divided by one real number. Write `A @ x` to apply it to a batch, and `A @ B` for "
            f"the product of two. Received: {received(value)}"
        )
    if not isinstance(value, (Real, np.ndarray)):
        return value
    try:
        factor = float(value)
    except OverflowError:  # of an integer
        factor = math.inf
    if not math.isfinite(factor):
        raise ValueError(f"An operator is multiplied by a finite number. Received: {factor}")
    return factor


def received(value: Any) -> str:
    """What stands in the place of an operator or a number, of tensors with axes their shape."""
    kind, has_axes = type(value).__name__, hasattr(value, "shape") and shape_text(value) != "()"
    return f"{kind} of shape {shape_text(value)}" if has_axes else f"{shortened(repr(value))} of type {kind}"


def all_in_precision(operators: Iterable[Operator]) -> list[Operator] | None:
    """The same operators, each widened; `None` if one of them stays as it is."""
    wide: list[Any] = [operator.widened() for operator in operators]
    return None if any(operator.rounds() for operator in wide) else wide


def check_dtypes(*operators: Operator) -> None:
    """Raise a ValueError unless operators compute in the same dtype."""
    if len({operator.dtype for operator in operators}) > 1:
        raise ValueError(
            f"Operators are combined if they compute in the same dtype. Make the layers with one dtype policy. Received: "
            f"{', '.join(f'{operator!r} in {operator.dtype}' for operator in operators)}"
        )
