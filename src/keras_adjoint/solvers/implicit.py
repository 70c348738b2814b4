"""Derivatives of least-squares solutions without those of the steps that found them, of every order.

With M = B*B, the solution is x = M⁺ B* z. For a change of the operator,

    dx = M⁺ (dB* (z − B x) − B* dB x) + (I − M⁺M) dB* B M⁺ x,

where the last term, by which the row space of B turns, is zero if B has full column rank (Golub and Pereyra 1973, equation
4.12). So for a cotangent g of x and v = M⁺ g, what x depends on gets the derivative of

    φ = ⟨B v, z − B x⟩ + ⟨B (M⁺ x), B (g − M v)⟩

at fixed v, x and g: one solve more, and a second one without full column rank. v is given by a symmetric map,

    u = M⁺ b,   dM⁺ = −M⁺ dM M⁺ + M⁺M⁺ dM (I − M M⁺) + (I − M⁺M) dM M⁺M⁺,

whose derivative is made of itself again, and so are those of every order.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from keras_adjoint.ops import Tensor
from keras_adjoint.ops.backend import current
from keras_adjoint.ops.precision import epsilon
from keras_adjoint.solvers.conjugate import least_squares
from keras_adjoint.solvers.loops import loop_for
from keras_adjoint.solvers.samples import named
from keras_adjoint.solvers.scaling import ROUNDING, compiled, solve_least_squares, solve_normal_equations
from keras_adjoint.solvers.system import Problem, System

Function = Callable[[list[Tensor]], Tensor]


@dataclass(frozen=True)
class Implicit:
    """The solution map of a problem and its symmetric part M⁺.

    Attributes:
        problem: The problem.
        full_rank: Whether B is known to have full column rank.
        tolerance: Of the solves for derivatives, as of the one for x.
        max_steps: Likewise.
    """

    problem: Problem
    full_rank: bool
    tolerance: float
    max_steps: int

    def solution(self, operands: Sequence[Tensor], z: Tensor, found: Tensor) -> Tensor:
        """M⁺ B* z, which a solver found to be `found`."""

        def gradient(given: list[Tensor], g: Tensor) -> list[Tensor]:
            *operands, z, found = given
            x = self.solution(operands, z, found)
            v = self.inverse(operands, g)
            turned = None if self.full_rank else self.inverse(operands, x, in_range=True)

            def potential(changing: list[Tensor]) -> Tensor:
                *operands, z = changing
                with self.problem.at(operands) as system:
                    total = system.dot_out(system.forward(v), z - system.forward(x))
                    return ops.sum(total + _turning(system, turned, null))

            null = None if turned is None else self._null(operands, g, v)
            return [*derivative(potential, [*operands, z]), ops.zeros_like(found)]

        return differentiated(lambda given: given[-1], gradient, [*operands, z, found])

    def inverse(self, operands: Sequence[Tensor], b: Tensor, *, in_range: bool = False) -> Tensor:
        """M⁺ b; `in_range` promises that B* can give b, which its derivative is simpler for."""
        b = b * operands[-1] if self.problem.has_mask else b

        def gradient(given: list[Tensor], g: Tensor) -> list[Tensor]:
            *operands, b = given
            u, v = self.inverse(operands, b, in_range=in_range), self.inverse(operands, g)
            turns = not self.full_rank
            turned_u = self.inverse(operands, u, in_range=True) if turns else None
            turned_v = self.inverse(operands, v, in_range=True) if turns and not in_range else None
            null_g = self._null(operands, g, v) if turns else None
            null_b = self._null(operands, b, u) if turned_v is not None else None

            def potential(changing: list[Tensor]) -> Tensor:
                with self.problem.at(changing) as system:
                    total = -system.dot_out(system.forward(v), system.forward(u))
                    total = total + _turning(system, turned_u, null_g)
                    return ops.sum(total + _turning(system, turned_v, null_b))

            return [*derivative(potential, operands), v]

        def value(given: list[Tensor]) -> Tensor:
            *operands, b = given
            key = ("inverse", self.full_rank, self.problem.flags, self.tolerance, self.max_steps)
            found = compiled(self.problem, key, lambda *now: self._solve(now[:-1], now[-1]))(*operands, b)
            self._report(found[:, -1])
            return found[:, :-1]

        return differentiated(value, gradient, [*operands, b])

    def _null(self, operands: Sequence[Tensor], g: Tensor, v: Tensor) -> Tensor:
        """g − M M⁺ g, the part of g that B does not see."""
        with self.problem.at(operands) as system:
            return g - system.normal(v)

    def _solve(self, operands: Sequence[Tensor], b: Tensor) -> Tensor:
        """M⁺ b without derivatives, and whether it converged.

        Without full column rank M⁺ = B⁺ (B*)⁺. Conjugate gradients for M would diverge by what B* cannot give of b, if only by
        rounding.
        """
        loop = loop_for([b], self.max_steps, unrolled=False)
        # Steps that look for what rounding has taken may diverge, and no gradient is more accurate than that.
        tolerance = max(self.tolerance, ROUNDING * epsilon(keras.backend.standardize_dtype(b.dtype)))
        with self.problem.at(operands) as system:
            if self.full_rank:
                found = solve_normal_equations(system, b, loop, tolerance)
                converged = found.converged
            else:
                back = solve_least_squares(least_squares, system.swapped, b, loop, tolerance)
                found = solve_least_squares(least_squares, system, back.x, loop, tolerance)
                converged = back.converged & found.converged
            return ops.concatenate([found.x, ops.cast(converged, found.x.dtype)], axis=1)

    def _report(self, converged: Tensor) -> None:
        advice = "Pass a `ridge`, a larger `tolerance`, or more `max_steps`."
        report_gradient("`lstsq`: the equations of the gradient", converged, self.tolerance, self.max_steps, advice)


def report_gradient(equations: str, converged: Tensor, tolerance: float, max_steps: int, advice: str) -> None:
    """Warn of a gradient that is not known to the tolerance, if that is known now."""
    if not current().is_concrete([converged]):
        return
    failed = np.asarray(ops.convert_to_numpy(converged)) == 0
    if failed.any():
        warnings.warn(
            f"{equations} were not solved to the tolerance of {tolerance:g} in {max_steps} steps in sample "
            f"{named(failed)}, so the gradient is not accurate. {advice}",
            stacklevel=3,
        )


def _turning(system: System, turned: Tensor | None, null: Tensor | None) -> Tensor | float:
    """⟨B t, B n⟩, by which the row space turns."""
    return 0.0 if turned is None else system.dot_out(system.forward(turned), system.forward(null))


def derivative(function: Function, at: Sequence[Tensor]) -> list[Tensor]:
    """The gradient of a scalar function by those of its operands that are floats, as the last one is, and zeros for others."""
    floats = [_is_float(each) for each in at]

    def of_floats(changing: list[Tensor]) -> list[Tensor]:
        left = list(changing)
        return [function([left.pop(0) if is_float else each for each, is_float in zip(at, floats, strict=True)])]

    changing = [each for each, is_float in zip(at, floats, strict=True) if is_float]
    found = list(current().vjp(of_floats, changing, [ops.ones((), at[-1].dtype)]))
    return [found.pop(0) if is_float else ops.zeros_like(each) for each, is_float in zip(at, floats, strict=True)]


def differentiated(
    value: Function, gradient: Callable[[list[Tensor], Tensor], list[Tensor]], operands: Sequence[Tensor]
) -> Tensor:
    """`value(operands)` with a derivative of its own by the floats among the operands."""
    floats = [_is_float(each) for each in operands]

    def merged(changing: Sequence[Tensor]) -> list[Tensor]:
        left = list(changing)
        return [left.pop(0) if is_float else each for each, is_float in zip(operands, floats, strict=True)]

    def of_floats(changing: Sequence[Tensor], g: Tensor) -> list[Tensor]:
        found = gradient(merged(changing), g)
        return [each for each, is_float in zip(found, floats, strict=True) if is_float]

    changing = [each for each, is_float in zip(operands, floats, strict=True) if is_float]
    return current().custom_gradient(lambda changing: value(merged(changing)), of_floats, changing)


def opaque(function: Function, operands: Sequence[Tensor]) -> Tensor:
    """`function(operands)`, which has no derivative."""
    return differentiated(function, lambda given, _: [ops.zeros_like(each) for each in given], operands)


def _is_float(tensor: Tensor) -> bool:
    return "float" in keras.backend.standardize_dtype(tensor.dtype)
