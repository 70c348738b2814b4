"""Operators made of operators: products, sums, multiples and the identity. Each knows its adjoint by that of its parts."""

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
from keras import ops

from keras_adjoint.errors import SizeError
from keras_adjoint.operators.operator import Operator
from keras_adjoint.operators.space import Space
from keras_adjoint.ops import Shape, Tensor


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
        if (a.in_space.shapes, a.out_space.shapes) != (b.in_space.shapes, b.out_space.shapes):
            raise SizeError(f"The terms of a sum take and give the same shapes. Received: {a!r} and {b!r}")
        return cls([term for each in (a, b) for term in (each.terms if isinstance(each, Sum) else (each,))])

    def apply(self, leaves: list[Tensor]) -> list[Tensor]:
        found = [term.apply(leaves) for term in self.terms]
        return [reduce(ops.add, parts) for parts in zip(*found, strict=True)]

    def transposed(self) -> Operator:
        return Sum([term.T for term in self.terms])

    def describe(self) -> str:
        return " + ".join(term.describe() for term in self.terms)


class Scaled(Operator):
    """c A for a real number c, which may be a tensor or a variable."""

    def __init__(self, operator: Operator, factor: Any) -> None:
        super().__init__(operator.in_space, operator.out_space, operator.dtype)
        self.operator, self.factor = operator, factor

    @classmethod
    def of(cls, operator: Operator, factor: Any) -> Operator:
        """c A.

        Raises:
            ValueError: If c is not one real number.
        """
        shape = getattr(factor, "shape", ())
        is_number = isinstance(factor, (int, float, np.generic, np.ndarray)) or hasattr(factor, "dtype")
        if not is_number or tuple(shape) != () or isinstance(factor, bool) or isinstance(factor, np.complexfloating):
            raise ValueError(
                f"An operator is multiplied by one real number, or by another operator with `@`. "
                f"Received: {factor!r} of type {type(factor).__name__}"
            )
        if isinstance(factor, (int, float, np.generic, np.ndarray)):
            factor = float(factor)
            if isinstance(operator, Scaled) and isinstance(operator.factor, float):
                operator, factor = operator.operator, operator.factor * factor
        return operator if isinstance(factor, float) and factor == 1 else cls(operator, factor)

    def apply(self, leaves: list[Tensor]) -> list[Tensor]:
        factor = self.factor if isinstance(self.factor, float) else ops.cast(self.factor, self.dtype)
        return [ops.multiply(leaf, factor) for leaf in self.operator.apply(leaves)]

    def transposed(self) -> Operator:
        return Scaled(self.operator.T, self.factor)

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

    Example:

    >>> (2 * ka.identity((3,))).to_matrix().diagonal().tolist()
    [2.0, 2.0, 2.0]
    """
    space = Space.of(shape)
    return Identity(space, space, dtype)


def check_dtypes(*operators: Operator) -> None:
    """Raise a ValueError unless operators compute in the same dtype."""
    if len({operator.dtype for operator in operators}) > 1:
        raise ValueError(
            f"Operators are combined if they compute in the same dtype. Make the layers with one dtype policy. Received: "
            f"{', '.join(f'{operator!r} in {operator.dtype}' for operator in operators)}"
        )
