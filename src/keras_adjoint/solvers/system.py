"""A least-squares problem as one linear map: weights and a ridge become a part of the inner product.

    ‖W^½ (A x − y)‖² + ridge·‖x‖² = ‖B x − z‖²_D    with    B x = (A x, x),  z = (y, 0),  ‖r‖²_D = Σ dᵢ rᵢ²,  d = (w, ridge).

In the inner product of D the adjoint of B is B* r = Bᵀ D r, and the normal equations are B*B x = B* z. No square root of the
weights is taken, so they may be zero and have derivatives there. Samples are rows: each has its own norms.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import keras
from keras import ops

from keras_adjoint.operators.linear_map import LinearMap, replacing_scalars, scalars_of, variables_of
from keras_adjoint.ops import Tensor

Rows = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class System:
    """A linear map of rows, its adjoint, and the inner products that belong to it, as columns of one number per row.

    `precondition` is a symmetric positive definite map close to a multiple of the inverse of the adjoint times the map.
    """

    forward: Rows
    adjoint: Rows
    dot_in: Callable[[Tensor, Tensor], Tensor]
    dot_out: Callable[[Tensor, Tensor], Tensor]
    precondition: Rows | None = None

    @property
    def swapped(self) -> "System":
        """The adjoint as a system of its own."""
        return System(self.adjoint, self.forward, self.dot_out, self.dot_in)

    def divided(self, scale: Tensor) -> "System":
        """The map divided by one number for each row."""
        return replace(self, forward=lambda x: self.forward(x) / scale, adjoint=lambda r: self.adjoint(r) / scale)

    def normal(self, x: Tensor) -> Tensor:
        """B*B x."""
        return self.adjoint(self.forward(x))


def dot(a: Tensor, b: Tensor) -> Tensor:
    """⟨a, b⟩ of each pair of rows."""
    return ops.sum(a * b, axis=-1, keepdims=True)


@dataclass(frozen=True, eq=False)
class Problem:
    """What is known of a problem before any numbers are: the rest comes as operands, by which it can be differentiated.

    Attributes:
        operator: A.
        has_ridge: Whether B has the rows of the ridge; then it has full column rank.
        has_weights: Whether an operand says the weights of the outputs.
        has_mask: Whether an operand says with ones and zeros which numbers of x are free. B takes the others for zero.
        preconditioner: An operator close to (B*B)⁻¹, or `None`.
    """

    operator: LinearMap
    has_ridge: bool = False
    has_weights: bool = False
    has_mask: bool = False
    preconditioner: LinearMap | None = None

    @property
    def flags(self) -> tuple[Any, ...]:
        """What the operands are, for the caches of compiled functions."""
        return self.has_ridge, self.has_weights, self.has_mask, id(self.preconditioner)

    def parts(self) -> list[LinearMap]:
        """The operators whose variables and scalars are operands."""
        return [self.operator] if self.preconditioner is None else [self.operator, self.preconditioner]

    def variables(self) -> list[keras.Variable]:
        """Their variables, each once."""
        return variables_of(self.parts())

    def scalars(self) -> list[Tensor]:
        """Their scalars, each once."""
        return scalars_of(self.parts())

    def operands(
        self, ridge: Tensor | None = None, weights: Tensor | None = None, mask: Tensor | None = None
    ) -> list[Tensor]:
        """Everything that the map depends on: the operator's variables and scalars, d, and the mask."""
        found = [
            ops.copy(each) for each in (*self.variables(), *self.scalars())
        ]  # TensorFlow's variables are no tensors
        if self.has_ridge or self.has_weights:
            found.append(self._metric(ridge, weights))
        return found if mask is None else [*found, mask]

    def _metric(self, ridge: Tensor | None, weights: Tensor | None) -> Tensor:
        """d, as rows of one or of all samples."""
        outputs, inputs = self.operator.shape
        dtype = self.operator.precision
        parts = [ops.ones((1, outputs), dtype) if weights is None else ops.cast(weights, dtype)]
        if self.has_ridge:
            one = ops.ones((ops.shape(parts[0])[0], inputs), dtype)
            parts.append(one * ops.cast(ridge, dtype))
        return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=1)

    def rows(self, y: Tensor) -> Tensor:
        """z, for rows y."""
        if not self.has_ridge:
            return y
        return ops.concatenate([y, ops.zeros((ops.shape(y)[0], self.operator.in_space.size), y.dtype)], axis=1)

    @contextmanager
    def at(self, operands: Sequence[Tensor]) -> Iterator[System]:
        """The system for operands, within this context."""
        left = list(operands)
        mask = left.pop() if self.has_mask else None
        metric = left.pop() if self.has_ridge or self.has_weights else None
        variables, scalars = self.variables(), self.scalars()
        values, numbers = left[: len(variables)], left[len(variables) :]
        outputs = self.operator.out_space.size

        def forward(x: Tensor) -> Tensor:
            x = x if mask is None else x * mask
            y = self.operator.apply_to_rows(x)
            return ops.concatenate([y, x], axis=1) if self.has_ridge else y

        def adjoint(r: Tensor) -> Tensor:
            r = r if metric is None else r * metric
            x = self.operator.T.apply_to_rows(r[:, :outputs])
            x = x + r[:, outputs:] if self.has_ridge else x
            return x if mask is None else x * mask

        def dot_out(a: Tensor, b: Tensor) -> Tensor:
            return dot(a, b if metric is None else b * metric)

        mapping = list(zip(variables, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping), replacing_scalars(scalars, numbers):
            made = self.preconditioner
            yield System(forward, adjoint, dot, dot_out, None if made is None else made.apply_to_rows)
