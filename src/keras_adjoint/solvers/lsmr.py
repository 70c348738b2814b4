"""LSMR (Fong and Saunders 2011): ‖B*(z − B x)‖ falls in every step, of many samples at once, each with its own steps."""

from keras import ops

from keras_adjoint.ops import Tensor
from keras_adjoint.solvers.conjugate import Result
from keras_adjoint.solvers.loops import Loop
from keras_adjoint.solvers.system import System


def lsmr(system: System, z: Tensor, limit: Tensor, loop: Loop) -> Result:
    """argmin ‖B x − z‖ with ‖B*(z − B x)‖ ≤ limit, from x = 0. The names are the paper's."""

    def step(state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        k, steps, active, x, u, v, h, hbar, alpha, alphabar, rho, rhobar, cbar, sbar, zetabar = state
        u_next, beta = _unit(system.forward(v) - alpha * u, system.dot_out)
        v_next, alpha_next = _unit(system.adjoint(u_next) - beta * v, system.dot_in)
        rho_next, c, s = _rotation(alphabar, beta)
        theta = s * alpha_next
        rhobar_next, cbar_next, sbar_next = _rotation(cbar * rho_next, theta)
        zeta = cbar_next * zetabar
        hbar_next = h - sbar * rho_next * rho_next / _divisor(rho * rhobar) * hbar
        moved = x + zeta / _divisor(rho_next * rhobar_next) * hbar_next
        h_next = v_next - theta / _divisor(rho_next) * h
        zetabar_next = -sbar_next * zetabar
        moves = active & ops.isfinite(zetabar_next) & (rho_next * rhobar_next > 0)
        following: tuple[Tensor, ...] = (
            moved,
            u_next,
            v_next,
            h_next,
            hbar_next,
            alpha_next,
            c * alpha_next,
            rho_next,
            rhobar_next,
        )
        following += (cbar_next, sbar_next, zetabar_next)
        kept = (x, u, v, h, hbar, alpha, alphabar, rho, rhobar, cbar, sbar, zetabar)
        return (
            k + 1,
            steps + ops.cast(moves, "int32"),
            moves & (ops.abs(zetabar_next) > limit),
            *(ops.where(moves, new, old) for new, old in zip(following, kept, strict=True)),
        )

    u, beta = _unit(z, system.dot_out)
    v, alpha = _unit(system.adjoint(u), system.dot_in)
    one, zero = ops.ones_like(limit), ops.zeros_like(limit)
    zetabar = alpha * beta
    none, x = ops.zeros_like(limit, dtype="int32"), ops.zeros_like(v)
    active = (zetabar > limit) & ops.isfinite(zetabar)
    start = (ops.convert_to_tensor(0, "int32"), none, active, x, u, v, v, x, alpha, alpha, one, one, one, zero, zetabar)
    _, steps, _, x, *_ = loop.run(step, start)
    gradient = system.adjoint(z - system.forward(x))
    return Result(x, steps, ops.sqrt(system.dot_in(gradient, gradient)) <= limit)


def _unit(x: Tensor, dot: object) -> tuple[Tensor, Tensor]:
    """(x / ‖x‖, ‖x‖), differentiable at zero."""
    squared = dot(x, x)  # type: ignore[operator]
    length = ops.sqrt(_divisor(squared))
    return x / length, ops.where(squared > 0, length, 0.0)


def _divisor(number: Tensor) -> Tensor:
    return ops.where(number == 0, ops.ones_like(number), number)


def _rotation(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(r, c, s) with c a + s b = r and s a − c b = 0."""
    r = ops.sqrt(_divisor(a * a + b * b))
    is_zero = (a == 0) & (b == 0)
    return ops.where(is_zero, 0.0, r), ops.where(is_zero, 1.0, a / r), ops.where(is_zero, 0.0, b / r)
