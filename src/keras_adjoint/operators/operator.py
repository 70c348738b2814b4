"""`Operator`: a linear map that is combined as matrices are, with its norms; products, sums, multiples and the identity."""

import math
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_adjoint.errors import SizeError, one_of
from keras_adjoint.operators.bridges import to_deepinv, to_lineax, to_pylops
from keras_adjoint.operators.linear_map import LinearMap, current_scalar
from keras_adjoint.operators.matrix import matrix_of
from keras_adjoint.operators.norm import norm_of
from keras_adjoint.operators.scipy_bridge import singular_values, to_scipy
from keras_adjoint.operators.space import Space
from keras_adjoint.ops import Shape, Tensor
from keras_adjoint.ops.precision import float_dtype

MOST_NUMBERS = 2**27  # of a matrix: half a gigabyte in float32
ABOVE = 1 + 1e-6  # what rounding may have taken off a bound that was computed in a few steps


class Operator(LinearMap):
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

    # --- the algebra

    def __call__(self, x: Any) -> Any:
        """A x, for a batch x."""
        found = self.apply(self.in_space.leaves(x, self.dtype, repr(self)))
        return self.out_space.pack(found)

    def __matmul__(self, other: Any) -> Any:
        return Composition.of(self, other) if isinstance(other, Operator) else self(other)

    def __add__(self, other: Any) -> "Operator":
        return Sum.of(self, other) if isinstance(other, Operator) else NotImplemented

    def __sub__(self, other: Any) -> "Operator":
        return self + -1 * other if isinstance(other, Operator) else NotImplemented

    def __mul__(self, factor: Any) -> "Operator":
        return Scaled.of(self, factor)

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> "Operator":
        if isinstance(divisor, (int, float, np.generic, np.ndarray)) and not np.all(divisor):
            raise ValueError(f"An operator is divided by a number that is not zero. Received: {self!r} / {divisor!r}")
        return self * (1 / divisor)

    def __neg__(self) -> "Operator":
        return self * -1

    def gram(self, side: str = "inputs") -> "Operator":
        """AᵀA, which is symmetric and takes what A takes; or AAᵀ for `side="outputs"`.

        Raises:
            ValueError: If `side` is neither.
        """
        one_of("side", side, ("inputs", "outputs"))
        return Composition.of(self.T, self) if side == "inputs" else Composition.of(self, self.T)

    # --- spectra

    def norm(self, *, tolerance: float = 1e-3, seed: int = 0) -> Tensor:
        """The largest singular value of A, estimated from below by Lanczos bidiagonalisation.

        The random start is the same for the same seed. With a probability of at most 0.001 over it, the norm is more than
        1 + `tolerance` times as large as the result.

        Args:
            tolerance: The relative error, above 1e-6.
            seed: Seed of the start.

        Returns:
            A scalar tensor, in float32 or float64, which is differentiable by the kernels. Of layers that compute in half
            precision it is the norm in float32, of the kernels as they are stored.

        Raises:
            ValueError: If the tolerance is not between 1e-6 and 1, or the seed no integer.

        Example:

        >>> round(float((3 * ka.identity((2,))).norm()), 4)
        3.0
        """
        if not isinstance(tolerance, (int, float, np.floating)) or not 1e-6 < tolerance < 1:
            raise ValueError(f"`tolerance` is a relative error between 1e-6 and 1. Received: tolerance={tolerance!r}")
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
            raise ValueError(f"`seed` is an integer that is not negative. Received: seed={seed!r}")
        return norm_of(self.widened(), float(tolerance), seed)

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

        >>> round(float((3 * ka.identity((2,))).bound()), 4)
        3.0
        """
        return ops.convert_to_tensor(self.bounded(), self.precision)

    def singular_values(self, count: int = 1, *, which: str = "largest", vectors: bool = False) -> Any:
        """Singular values on the host, by LAPACK where the matrix is small and otherwise by SciPy's ARPACK.

        They are as exact as the rounding of the largest one: from a float32 matrix, zero may come out as a millionth of that.

        Args:
            count: How many.
            which: "largest", from the largest down, or "smallest", from the smallest up.
            vectors: Whether to return the singular vectors as well.

        Returns:
            A NumPy array; with `vectors` (left vectors as a batch of what A gives, values, right ones as a batch of what it
            takes).

        Raises:
            KerasAdjointError: If they do not converge, or cannot be told from rounding. The smallest ones of large operators
                cannot.
            ValueError: If an argument makes no sense.

        Example:

        >>> (3 * ka.identity((2,))).singular_values(2).tolist()
        [3.0, 3.0]
        """
        return singular_values(self.widened(), count, which, vectors)

    def condition(self) -> float:
        """The largest singular value over the smallest one; infinite where that is zero up to rounding.

        Raises:
            KerasAdjointError: If the operator is too large, see `singular_values`.

        Example:

        >>> ka.identity((2,)).condition()
        1.0
        """
        values = self.singular_values(min(self.shape), which="largest")
        lost = values[-1] <= max(self.shape) * float(np.finfo(self.precision).eps) * values[0]
        return float("inf") if lost else float(values[0] / values[-1])

    # --- as other things

    def to_scipy(self) -> Any:
        """A `scipy.sparse.linalg.LinearOperator` of `A.shape`, between vectors of all numbers of a sample.

        Returns:
            The operator, in float32 or float64, with its adjoint as `rmatvec`, and many columns at once as `matmat`.

        Example:

        >>> ka.identity((2,)).to_scipy().matvec(np.array([1.0, 2.0])).tolist()
        [1.0, 2.0]
        """
        return to_scipy(self)

    def to_pylops(self) -> Any:
        """A `pylops.LinearOperator` of `A.shape`, on NumPy arrays of one sample without a batch axis.

        Returns:
            The operator, in float32 or float64. Its `dims` and `dimsd` are `in_shape` and `out_shape`; where there are several
            tensors, all numbers of a sample in a row.

        Raises:
            KerasAdjointError: If PyLops is not installed.

        Example:

        >>> linear = ka.identity((2, 3)).to_pylops()
        >>> (linear @ np.ones((2, 3))).shape, linear.shape
        ((2, 3), (6, 6))
        """
        return to_pylops(self)

    def to_lineax(self) -> Any:
        """A `lineax.FunctionLinearOperator` between JAX arrays of one sample without a batch axis, or structures of arrays.

        Returns:
            The operator, in A's dtype. As everything in JAX, it has the kernels as they are now; they are leaves of it, by
            which JAX can differentiate. `jax.vmap` of its `mv` computes batches, and its `T` is the adjoint of this package.

        Raises:
            KerasAdjointError: If Keras does not run on JAX, or lineax is not installed.

        Example:

        >>> linear = ka.identity((2, 3)).to_lineax()  # doctest: +SKIP
        >>> linear.mv(jax.numpy.ones((2, 3))).shape  # doctest: +SKIP
        (2, 3)
        """
        return to_lineax(self)

    def to_deepinv(self, *, data_format: str | None = None) -> Any:
        """A `deepinv.physics.LinearPhysics`, on batches of PyTorch tensors with the channels behind the batch axis.

        Args:
            data_format: Where A has its own channels, "channels_last" or "channels_first". By default where its layers have
                them, and otherwise where `keras.config.image_data_format()` says.

        Returns:
            The physics, which is differentiable by the image and by the kernels. Several tensors are a `TensorList`.

        Raises:
            KerasAdjointError: If Keras does not run on PyTorch, DeepInverse is not installed, or the layers of A have their
                channels in different places.

        Example:

        >>> physics = ka.identity((9, 8, 3)).to_deepinv()  # doctest: +SKIP
        >>> physics.A_dagger(torch.ones((1, 3, 9, 8))).shape  # doctest: +SKIP
        (1, 3, 9, 8)
        """
        return to_deepinv(self, data_format)

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
            ValueError: If `most_numbers` is no number.

        Example:

        >>> ka.identity((2,)).to_matrix().tolist()
        [[1.0, 0.0], [0.0, 1.0]]
        """
        if isinstance(most_numbers, bool) or not isinstance(most_numbers, (int, float, np.number)):
            raise ValueError(f"`most_numbers` is a number. Received: most_numbers={most_numbers!r}")
        return matrix_of(self, most_numbers)


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
        """c A.

        Raises:
            ValueError: If c is not one real number.
        """
        shape = getattr(factor, "shape", ())
        is_number = isinstance(factor, (int, float, np.generic, np.ndarray)) or hasattr(factor, "dtype")
        if not is_number or tuple(shape) or isinstance(factor, (bool, np.complexfloating)):
            raise ValueError(
                f"An operator is multiplied by one real number, or by another operator with `@`. "
                f"Received: {factor!r} of type {type(factor).__name__}"
            )
        if isinstance(factor, (int, float, np.generic, np.ndarray)):
            try:
                factor = float(factor)
            except OverflowError:  # of an integer
                factor = math.inf
            if not math.isfinite(factor):
                raise ValueError(f"An operator is multiplied by a finite number. Received: {factor}")
            if isinstance(operator, Scaled) and isinstance(operator.factor, float):
                return cls.of(operator.operator, operator.factor * factor)
        return operator if isinstance(factor, float) and factor == 1 else cls(operator, factor)

    def apply(self, leaves: list[Tensor]) -> list[Tensor]:
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
