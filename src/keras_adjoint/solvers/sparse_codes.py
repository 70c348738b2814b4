"""Sparse codes: argmin ½‖y − D z‖² + weight·‖z‖₁, to convergence, with the derivatives of the solution.

Where z is not zero its sign does not change, so near a solution it is that of the equations D_Sᵀ (D_S z − y) + weight·sign = 0
of the columns S in use. For a cotangent g, v = (D_Sᵀ D_S)⁻¹ g_S, and what z depends on gets the derivative of
⟨D v, y − D z⟩ − ⟨weight·sign, v⟩ at fixed v and z.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import keras
from keras import ops

from keras_adjoint.ops import Tensor
from keras_adjoint.ops.precision import epsilon
from keras_adjoint.solvers.implicit import Implicit, derivative, differentiated, opaque
from keras_adjoint.solvers.loops import loop_for
from keras_adjoint.solvers.proximal import proximal
from keras_adjoint.solvers.proximal_gradient import proximal_gradient
from keras_adjoint.solvers.samples import maxima
from keras_adjoint.solvers.scaling import compiled, largest
from keras_adjoint.solvers.system import Problem, dot

ROUNDING = 16  # units by which the largest correlation may be off


@dataclass(frozen=True, eq=False)
class Lasso:
    """The problem for a dictionary, which is given with every call.

    Attributes:
        problem: That of D.
        nonnegative: Whether codes below zero are left out.
        tolerance: Of a step's change, relative to ‖Dᵀ y‖.
        max_steps: The most steps.
    """

    problem: Problem
    nonnegative: bool
    tolerance: float
    max_steps: int

    def lambda_max(self, operands: Sequence[Tensor], y: Tensor) -> Tensor:
        """The largest number of Dᵀ y, a column: at this weight and above all codes are zero."""
        with self.problem.at(operands) as system:
            return self._peak(system.adjoint(y))

    def _peak(self, correlation: Tensor) -> Tensor:
        return maxima(ops.relu(correlation) if self.nonnegative else ops.abs(correlation))

    def objective(self, operands: Sequence[Tensor], y: Tensor, weight: Tensor, codes: Tensor) -> Tensor:
        """½‖y − D z‖² + weight·‖z‖₁ of each sample, differentiable at fixed codes as well."""
        with self.problem.at(operands) as system:
            missed = y - system.forward(codes)
        return (dot(missed, missed) / 2 + weight * ops.sum(ops.abs(codes), axis=-1, keepdims=True))[:, 0]

    def codes(self, operands: Sequence[Tensor], y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(codes, steps, which samples converged), for rows y and a column of weights."""
        count = len(operands)

        def run(*given: Tensor) -> Tensor:
            return self._search(given[:count], given[count], given[count + 1])

        key = ("codes", self.problem.flags, self.nonnegative, self.tolerance, self.max_steps)
        made = compiled(self.problem, key, run)
        found = opaque(lambda given: made(*given), [*operands, y, weight])
        size = self.problem.operator.in_space.size
        found = ops.reshape(found, (*ops.shape(y)[:1], size + 2))  # loops of TensorFlow forget the size of the batch
        marks = ops.stop_gradient(found[:, size:])
        codes = self._solution(operands, y, weight, found[:, :size])
        is_finite = ops.all(ops.isfinite(y), axis=-1, keepdims=True) & ops.isfinite(weight)
        codes = ops.where(is_finite, codes, float("nan"))
        return codes, ops.cast(marks[:, 0], "int32"), (marks[:, 1] > 0) & is_finite[:, 0]

    def _search(self, operands: Sequence[Tensor], y: Tensor, weight: Tensor) -> Tensor:
        """The codes, the steps and the status side by side. D is divided by its bound, so that a step has length 1."""
        shrink = proximal("soft_nonnegative" if self.nonnegative else "soft")
        loop = loop_for([y], self.max_steps, unrolled=False)
        with self.problem.at(operands) as system:
            bound = ops.convert_to_tensor(self.problem.operator.bounded(), y.dtype)
            bound = ops.where(bound > 0, bound, 1.0)
            system, size = system.divided(bound), largest(y)
            y, threshold = y / size, weight / size / bound
            first = system.adjoint(y)

            def step(v: Tensor) -> Tensor:
                return shrink(v + system.adjoint(y - system.forward(v)), threshold)

            limit = self.tolerance * ops.sqrt(dot(first, first))
            found = proximal_gradient(step, ops.zeros_like(first), limit, loop)
        # At the largest weight itself, rounding is not to leave a code.
        rounding = ROUNDING * epsilon(keras.backend.standardize_dtype(y.dtype))
        none = threshold >= self._peak(first) * (1 - rounding)
        codes = ops.where(none, 0.0, found.x * size / bound)
        marks = [ops.cast(found.steps, y.dtype), ops.cast(found.converged, y.dtype)]
        return ops.concatenate([codes, *marks], axis=1)

    def _solution(self, operands: Sequence[Tensor], y: Tensor, weight: Tensor, found: Tensor) -> Tensor:
        """The codes that were found, with derivatives of every order."""
        masked = replace(self.problem, has_mask=True)
        implicit = Implicit(masked, True, self.tolerance, self.max_steps)

        def gradient(given: list[Tensor], g: Tensor) -> list[Tensor]:
            *operands, y, weight, found = given
            signs = ops.stop_gradient(ops.sign(found))
            codes, used = self._solution(operands, y, weight, found), ops.abs(signs)
            v = implicit.inverse([*operands, used], g)

            def potential(changing: list[Tensor]) -> Tensor:
                *operands, y, weight = changing
                with self.problem.at(operands) as system:
                    total = dot(system.forward(v), y - system.forward(codes)) - weight * dot(signs, v)
                return ops.sum(total)

            return [*derivative(potential, [*operands, y, weight]), ops.zeros_like(found)]

        return differentiated(lambda given: given[-1], gradient, [*operands, y, weight, found])
