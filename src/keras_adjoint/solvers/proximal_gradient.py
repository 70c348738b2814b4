"""Proximal gradients to convergence, of many samples at once, each with its own steps.

x ↦ T(x) = prox(x − step·∇f(x), step·weight), with the momentum of FISTA (Beck and Teboulle 2009), which ends where it points
uphill (O'Donoghue and Candès 2015), or without any (ISTA).
"""

from collections.abc import Callable

from keras import ops

from keras_adjoint.ops import Tensor
from keras_adjoint.solvers.conjugate import Result
from keras_adjoint.solvers.loops import Loop
from keras_adjoint.solvers.momentum import following
from keras_adjoint.solvers.system import dot


def proximal_gradient(
    step: Callable[[Tensor], Tensor], start: Tensor, limit: Tensor, loop: Loop, *, accelerated: bool = True
) -> Result:
    """The fixed point of a step of proximal gradients.

    A sample has converged where ‖T(v) − v‖ ≤ limit, for the last v from which a step was taken; since T lengthens no
    difference, that bounds ‖T(x) − x‖ as well.

    Args:
        step: T, of rows, for a step of at most 1/‖A‖².
        start: Rows.
        limit: A column.
        loop: How many steps there may be, and how they are run.
        accelerated: Whether there is momentum. Without it no step raises the objective.
    """

    def once(state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        k, steps, active, x, before, t, missed = state
        t_next, factor = following(t) if accelerated else (t, ops.zeros_like(t))
        v = x + factor * (x - before)
        moved = step(v)
        change = moved - v
        length = ops.sqrt(dot(change, change))
        # What is not finite ends a sample at its last finite x.
        moves = active & ops.isfinite(length)
        uphill = dot(-change, moved - x) > 0
        return (
            k + 1,
            steps + ops.cast(moves, "int32"),
            moves & (length > limit),
            ops.where(moves, moved, x),
            ops.where(moves, x, before),
            ops.where(moves, ops.where(uphill, ops.ones_like(t), t_next), t),
            ops.where(active, length, missed),
        )

    none, one = ops.zeros_like(limit, dtype="int32"), ops.ones_like(limit)
    begin = (ops.convert_to_tensor(0, "int32"), none, ops.isfinite(limit), start, start, one, one * float("inf"))
    _, steps, _, x, *_, missed = loop.run(once, begin)
    return Result(x, steps, missed <= limit)
