"""Conjugate gradients for least squares, of many samples at once, each with its own steps.

`least_squares` is CGLS (Hestenes and Stiefel 1952; Björck 1996, section 7.4): it keeps the residual r = z − B x, and so does
not lose what squaring B would. `normal_equations` solves B*B x = b where no z is known. Both start from zero, so that without
full column rank they find the solution of smallest norm.
"""

from collections.abc import Callable
from dataclasses import dataclass

from keras import ops

from keras_adjoint.ops import Tensor
from keras_adjoint.solvers.loops import Loop
from keras_adjoint.solvers.system import System

RESTARTS = 4  # at most: the true residual may be larger than the recurrence says


@dataclass(frozen=True)
class Result:
    """What a solver found, in rows of one sample each.

    Attributes:
        x: The solution.
        steps: How many steps the sample took.
        converged: Whether its gradient is below the limit.
    """

    x: Tensor
    steps: Tensor
    converged: Tensor


def least_squares(system: System, z: Tensor, limit: Tensor, loop: Loop) -> Result:
    """argmin ‖B x − z‖ with ‖B*(z − B x)‖ ≤ limit.

    Args:
        system: B.
        z: Rows.
        limit: A column.
        loop: How many steps there may be, and how they are run.
    """
    return _restarted(system, z, limit, loop, lambda r: r, lambda x: z - system.forward(x), system.adjoint)


def normal_equations(system: System, b: Tensor, limit: Tensor, loop: Loop) -> Result:
    """x with B*B x = b, for b that B* can give, to ‖b − B*B x‖ ≤ limit."""
    return _restarted(system, b, limit, loop, system.adjoint, lambda x: b - system.normal(x), lambda r: r)


def _restarted(
    system: System,
    right: Tensor,
    limit: Tensor,
    loop: Loop,
    change_of: Callable[[Tensor], Tensor],
    residual_of: Callable[[Tensor], Tensor],
    gradient_of: Callable[[Tensor], Tensor],
) -> Result:
    """Conjugate gradients, begun anew from where they ended as long as the residual is above the limit and falls.

    Args:
        system: B.
        right: The residual at zero.
        limit: Of ‖gradient‖, a column.
        loop: See `Loop`.
        change_of: What B p adds to the residual, with a minus.
        residual_of: The residual at x, by its definition.
        gradient_of: B*(z − B x) from the residual.
    """
    precondition = system.precondition or (lambda s: s)

    def length(s: Tensor, product: Tensor | None = None) -> Tensor:
        """‖s‖; without a preconditioner its square is the `product` of s with what it leads to."""
        known = product if system.precondition is None else None
        return ops.sqrt(system.dot_in(s, s) if known is None else known)

    def step(state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        k, steps, active, x, r, p, gamma = state
        q = system.forward(p)
        delta = system.dot_out(q, q)
        alpha = gamma / ops.where(delta > 0, delta, 1.0)
        moved, left = x + alpha * p, r - alpha * change_of(q)
        s = gradient_of(left)
        towards = precondition(s)
        following = system.dot_in(s, towards)
        # What is not finite ends a sample at its last finite x, and so does a map that is not positive definite.
        moves = active & (delta > 0) & (following >= 0) & ops.isfinite(following) & ops.isfinite(alpha)
        beta = following / ops.where(gamma > 0, gamma, 1.0)
        return (
            k + 1,
            steps + ops.cast(moves, "int32"),
            moves & (length(s, following) > limit),
            ops.where(moves, moved, x),
            ops.where(moves, left, r),
            ops.where(moves, towards + beta * p, p),
            ops.where(moves, following, gamma),
        )

    def first(k: Tensor, steps: Tensor, x: Tensor, r: Tensor) -> tuple[Tensor, ...]:
        s = gradient_of(r)
        p = precondition(s)
        gamma = system.dot_in(s, p)
        return k, steps, (length(s, gamma) > limit) & (gamma > 0) & ops.isfinite(gamma), x, r, p, gamma

    def converges(x: Tensor) -> Tensor:
        return length(gradient_of(residual_of(x))) <= limit

    none = ops.zeros_like(limit, dtype="int32")
    zero = ops.zeros_like(gradient_of(right))
    begin = ops.convert_to_tensor(0, "int32")
    if loop.unrolled:
        _, steps, _, x, *_ = loop.run(step, first(begin, none, zero, right))
        return Result(x, steps, converges(x))

    def again(state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        done, k, before, x = state
        k, steps, _, x, *_ = loop.run(step, first(k, before, x, residual_of(x)))
        return done | converges(x) | (steps == before), k, steps, x  # or moves no more

    *_, steps, x = loop.rounds(RESTARTS, again, (limit < 0, begin, none, zero))  # none is done
    return Result(x, steps, converges(x))
