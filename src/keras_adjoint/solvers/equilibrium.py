"""Fixed points x = T(x, p) with the derivatives that they have by p, whatever the steps that found them, of every order.

With J = ∂T/∂x at the fixed point,

    dx = (I − J)⁻¹ ∂T/∂p dp,

so a cotangent g of x becomes one of p by w = (I − Jᵀ)⁻¹ g, as the derivative of ⟨w, T(x, p)⟩ at fixed w and x. The equation is
solved by conjugate gradients for its least squares, which need Jᵀ v and J v alone, and end in a bounded number of steps also
where I − J is singular. The derivative of its solution is made of such solutions again.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from keras import ops

from keras_adjoint.ops import Tensor
from keras_adjoint.ops.backend import current
from keras_adjoint.solvers.conjugate import least_squares
from keras_adjoint.solvers.implicit import derivative, differentiated, opaque, report_gradient
from keras_adjoint.solvers.loops import loop_for
from keras_adjoint.solvers.proximal_gradient import proximal_gradient
from keras_adjoint.solvers.scaling import solve_least_squares
from keras_adjoint.solvers.system import System, dot


@dataclass(frozen=True, eq=False)
class Equilibrium:
    """The fixed points of a step of rows.

    Attributes:
        step: (operands, x) ↦ T(x), where operands are everything that it depends on beside x.
        accelerated: Whether steps are taken with momentum.
        tolerance: ‖T(x) − x‖ relative to ‖T(0)‖, and that of the equation of the gradient.
        max_steps: The most steps, for either.
        functions: Those that were compiled.
    """

    step: Callable[[Sequence[Tensor], Tensor], Tensor]
    accelerated: bool
    tolerance: float
    max_steps: int
    functions: dict[Hashable, Callable[..., Any]] = field(default_factory=dict)

    def find(self, operands: Sequence[Tensor], start: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(x, steps, ‖T(x) − x‖, which samples converged), the first of which is differentiable by the operands."""

        def run(*given: Tensor) -> Tensor:
            *operands, start = given
            first = self.step(operands, ops.zeros_like(start))
            limit = self.tolerance * ops.sqrt(dot(first, first))
            loop = loop_for([start], self.max_steps, unrolled=False)
            found = proximal_gradient(
                lambda x: self.step(operands, x), start, limit, loop, accelerated=self.accelerated
            )
            marks = [ops.cast(each, start.dtype) for each in (found.steps, found.converged)]
            return ops.concatenate([found.x, *marks], axis=1)

        made = self._compiled(("find", len(operands)), run)
        found = opaque(lambda given: made(*given), [*operands, start])
        found = ops.reshape(found, (*ops.shape(start)[:1], start.shape[1] + 2))  # loops of TensorFlow forget the batch
        x, steps, converged = found[:, :-2], ops.cast(found[:, -2], "int32"), found[:, -1] > 0
        change = ops.stop_gradient(self.step(operands, x) - x)
        return self.implicit(operands, x), steps, ops.sqrt(dot(change, change))[:, 0], converged

    def implicit(self, operands: Sequence[Tensor], x: Tensor) -> Tensor:
        """x, which was found for the operands, with the derivative that it has by them."""

        def gradient(given: list[Tensor], g: Tensor) -> list[Tensor]:
            *operands, found = given
            x = self.implicit(operands, found)
            w = self.solve(operands, x, g, transposed=True)
            return [
                *derivative(lambda changing: ops.sum(w * self.step(changing, x)), operands),
                ops.zeros_like(found),
            ]

        return differentiated(lambda given: given[-1], gradient, [*operands, x])

    def solve(self, operands: Sequence[Tensor], x: Tensor, b: Tensor, *, transposed: bool) -> Tensor:
        """(I − J)⁻¹ b, or (I − Jᵀ)⁻¹ b."""

        def value(given: list[Tensor]) -> Tensor:
            made = self._compiled(("solve", transposed, len(given)), lambda *now: self._solve(list(now), transposed))
            found = made(*given)
            self._report(found[:, -1])
            return found[:, :-1]

        def gradient(given: list[Tensor], h: Tensor) -> list[Tensor]:
            *operands, x, b = given
            u = self.solve(operands, x, b, transposed=transposed)
            v = self.solve(operands, x, h, transposed=not transposed)
            left, right = (u, v) if transposed else (v, u)

            def potential(changing: list[Tensor]) -> Tensor:
                *operands, x = changing
                return ops.sum(self._pulled(operands, x, left) * right)

            return [*derivative(potential, [*operands, x]), v]

        return differentiated(value, gradient, [*operands, x, b])

    def _pulled(self, operands: Sequence[Tensor], x: Tensor, v: Tensor) -> Tensor:
        """Jᵀ v."""
        (found,) = current().vjp(lambda at: [self.step(operands, at[0])], [x], [v])
        return found

    def _pushed(self, operands: Sequence[Tensor], x: Tensor, v: Tensor) -> Tensor:
        """J v, as the transpose of w ↦ Jᵀ w."""
        (found,) = current().vjp(lambda at: [self._pulled(operands, x, at[0])], [ops.zeros_like(v)], [v])
        return found

    def _solve(self, given: list[Tensor], transposed: bool) -> Tensor:
        *operands, x, b = given

        def without(product: Callable[..., Tensor]) -> Callable[[Tensor], Tensor]:
            return lambda v: v - product(operands, x, v)

        pair = without(self._pulled), without(self._pushed)
        system = System(*(pair if transposed else pair[::-1]), dot, dot)
        loop = loop_for([b], self.max_steps, unrolled=False)
        found = solve_least_squares(least_squares, system, b, loop, self.tolerance)
        return ops.concatenate([found.x, ops.cast(found.converged, found.x.dtype)], axis=1)

    def _compiled(self, key: Hashable, function: Callable[..., Any]) -> Callable[..., Any]:
        if key not in self.functions:
            self.functions[key] = current().compiled(function)
        return self.functions[key]

    def _report(self, converged: Tensor) -> None:
        equations = "`unroll`: the equations of the gradient of a fixed point"
        advice = "Pass a larger `tolerance`, or more `max_steps`."
        report_gradient(equations, converged, self.tolerance, self.max_steps, advice)
