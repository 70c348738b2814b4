"""Least squares between limits, by accelerated projected gradients, of many samples at once, each with its own steps.

Beck and Teboulle (2009) with the restart of O'Donoghue and Candès (2015): where the momentum points uphill, it ends. The length
1/L of a step needs no norm: L begins at the curvature along the first gradient, and grows where a step shows a larger one.
"""

from keras import ops

from keras_adjoint.ops import Tensor
from keras_adjoint.solvers.conjugate import Result
from keras_adjoint.solvers.loops import Loop
from keras_adjoint.solvers.system import System, dot


def projected(
    system: System, z: Tensor, limit: Tensor, loop: Loop, *, start: Tensor, lower: Tensor, upper: Tensor
) -> Result:
    """argmin ‖B x − z‖ with lower ≤ x ≤ upper.

    It has converged where the gradient, without the parts that point out of the limits, is below `limit`.
    """

    def downhill(x: Tensor) -> Tensor:
        return system.adjoint(z - system.forward(x))

    def length(x: Tensor, s: Tensor) -> Tensor:
        """‖the part of s that x can follow‖."""
        free = inside(x, s, lower, upper)
        return ops.sqrt(dot(free, free))

    def step(state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        k, steps, active, x, before, s, s_before, t, curvature = state
        t_next = (1 + ops.sqrt(1 + 4 * t * t)) / 2
        momentum = (t - 1) / t_next
        v, s_v = x + momentum * (x - before), s + momentum * (s - s_before)
        moved = ops.clip(v + s_v / curvature, lower, upper)
        s_moved = downhill(moved)
        change = moved - v
        found = dot(change, s_v - s_moved) / _divisor(dot(change, change))
        fits = found <= curvature * (1 + 1e-3)
        uphill = dot(-change, moved - x) > 0
        is_finite = ops.isfinite(dot(s_moved, s_moved))
        moves = active & fits & is_finite
        curvature = ops.where(
            active & ops.logical_not(fits) & ops.isfinite(found),
            ops.where(found > 2 * curvature, found, 2 * curvature),
            curvature,
        )
        still = active & is_finite & ops.logical_not(moves & (length(moved, s_moved) <= limit))
        return (
            k + 1,
            steps + ops.cast(active, "int32"),
            still,
            ops.where(moves, moved, x),
            ops.where(moves, x, before),
            ops.where(moves, s_moved, s),
            ops.where(moves, s, s_before),
            ops.where(moves, ops.where(uphill, 1.0, t_next), t),
            curvature,
        )

    x = ops.clip(start, lower, upper)
    s = downhill(x)
    free = inside(x, s, lower, upper)
    q = system.forward(free)
    curvature = system.dot_out(q, q) / _divisor(dot(free, free))
    curvature = ops.where(curvature > 0, curvature, 1.0)
    active = (length(x, s) > limit) & ops.isfinite(dot(s, s))
    none, one = ops.zeros_like(limit, dtype="int32"), ops.ones_like(limit)
    found = loop.run(step, (ops.convert_to_tensor(0, "int32"), none, active, x, x, s, s, one, curvature))
    _, steps, _, x, *_ = found
    return Result(x, steps, length(x, downhill(x)) <= limit)


def inside(x: Tensor, s: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """s without the parts that lead out of the limits."""
    leads_out = ((x <= lower) & (s < 0)) | ((x >= upper) & (s > 0))
    return ops.where(leads_out, 0.0, s)


def _divisor(number: Tensor) -> Tensor:
    return ops.where(number > 0, number, 1.0)
