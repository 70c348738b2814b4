"""The iteration of Golub and Kahan, on the device: the vector that an operator makes longest. `norm` says what it rests on."""

from typing import Any

import keras
from keras import ops

from keras_adjoint.operators.linear_map import LinearMap
from keras_adjoint.ops import Tensor
from keras_adjoint.ops.precision import epsilon

STEPS_BETWEEN_TESTS = 8
STEPS_WITH_BOUND = 4
MOST_NUMBERS = 2**25  # of all vectors together, if they are kept
RESTARTS = 4
_SMALLEST, _LARGEST = 1e-30, 1e30  # of what is divided by: the reciprocal of a larger number may be taken for zero


class Lanczos:
    """The iteration, as a function of the values of the operator's variables and the start.

    Vectors that fit into memory are kept, and every new one is made orthogonal to them, which rounding does not undo (Simon and
    Zha 2000). Otherwise they are computed twice, and if the second time differs, the iteration begins again with the result.

    Args:
        operator: The operator, which takes no more numbers than it gives.
        tolerance: The relative error of the norm.
        steps: The most that are taken.
        needed: What Σⱼ pⱼ(λ)² has to reach.
    """

    def __init__(self, operator: LinearMap, tolerance: float, steps: int, needed: float) -> None:
        self.operator, self.tolerance, self.steps, self.needed = operator, tolerance, steps, needed
        self.variables = operator.variables()
        self.keeps = steps * operator.in_space.size <= MOST_NUMBERS
        self.noise = epsilon(operator.precision) * 4 * operator.in_space.size**0.5

    def top_vector(self, values: list[Tensor], start: Tensor) -> Tensor:
        """The unit vector that A makes longest, of those that the iteration meets."""
        with keras.StatelessScope(state_mapping=list(zip(self.variables, values, strict=True))):
            near = self.operator.near_maximum()
            bound = None if near is None else near[1]
            start = start if near is None else unit(unit(near[0])[0] + start)[0]
            if self.keeps:
                return self._run(start, bound)[0]

            def again(count: Tensor, vector: Tensor, is_close: Tensor) -> tuple[Tensor, ...]:
                vector, longest = self._run(vector, bound)
                return (
                    count + 1,
                    vector,
                    length_of(self.operator.apply_to_rows(vector)) >= (1 - self.tolerance) * longest,
                )

            state = (ops.convert_to_tensor(0), start, ops.convert_to_tensor(False))
            return ops.while_loop(
                lambda count, vector, is_close: (count < RESTARTS) & ops.logical_not(is_close), again, state
            )[1]

    def _run(self, start: Tensor, bound: Tensor | None) -> tuple[Tensor, Tensor]:
        """(the vector, θ)."""
        count, alphas, betas, basis = self._coefficients(start, bound)
        theta, weights = self._top(count, alphas, betas)
        vector = weights[None] @ basis if self.keeps else self._combination(start, count, alphas, betas, weights)
        return unit(vector)[0], theta

    def _coefficients(self, start: Tensor, bound: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(steps taken, α, β, v if they are kept), with zeros for steps that were not taken."""
        between = STEPS_BETWEEN_TESTS if bound is None else STEPS_WITH_BOUND

        def step(
            j: Tensor, done: Tensor, v: Tensor, u: Tensor, alphas: Tensor, betas: Tensor, basis: Tensor
        ) -> tuple[Tensor, ...]:
            here = ops.cast(ops.arange(self.steps) == j, v.dtype)
            basis = basis + here[:, None] * v if self.keeps else basis
            before = ops.where(j > 0, ops.take(betas, ops.maximum(j - 1, 0)), 0.0)
            u, alpha = unit(self.operator.apply_to_rows(v) - before * u)
            v = self.operator.T.apply_to_rows(u) - alpha * v
            for _ in range(2 if self.keeps else 0):
                v = v - (v @ ops.transpose(basis)) @ basis
            v, beta = unit(v)
            alphas, betas = alphas + here * alpha, betas + here * beta
            ends = ops.minimum(alpha, beta) <= self.noise * ops.maximum(ops.max(alphas), ops.max(betas))
            due = ((j + 1) % between == 0) | ends
            done = ops.cond(due, lambda: ends | self._is_near(j + 1, alphas, betas, bound), lambda: done)
            return j + 1, done, v, u, alphas, betas, basis

        zeros = ops.zeros((self.steps,), start.dtype)
        u = ops.zeros((1, self.operator.out_space.size), start.dtype)
        basis = ops.zeros((self.steps if self.keeps else 0, start.shape[-1]), start.dtype)
        state: Any = (ops.convert_to_tensor(0), ops.convert_to_tensor(False), start, u, zeros, zeros, basis)
        j, _, _, _, alphas, betas, basis = ops.while_loop(
            lambda j, done, *_: (j < self.steps) & ops.logical_not(done), step, state
        )
        return j, alphas, betas, basis

    def _tridiagonal(self, count: Tensor, alphas: Tensor, betas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(s, diagonal of T / s², what is beside it); the last of these leads to a vector that does not belong to T."""
        scale = within_limits(ops.maximum(ops.max(alphas), ops.max(betas)))
        alphas, betas = (ops.where(ops.isfinite(each), each / scale, 0.0) for each in (alphas, betas))
        before = ops.concatenate([ops.zeros_like(betas[:1]), betas[:-1]])
        is_taken = ops.cast(ops.arange(self.steps) < count, alphas.dtype)
        return scale, (ops.square(alphas) + ops.square(before)) * is_taken, alphas * betas

    def _top(self, count: Tensor, alphas: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
        """(θ, the eigenvector of T that it belongs to)."""
        scale, diagonal, off = self._tridiagonal(count, alphas, betas)
        off = off[:-1] * ops.cast(ops.arange(1, self.steps) < count, off.dtype)
        values, vectors = ops.eigh(ops.diag(diagonal) + ops.diag(off, 1) + ops.diag(off, -1))
        return scale * ops.sqrt(ops.relu(values[-1])), vectors[:, -1]

    def _is_near(self, count: Tensor, alphas: Tensor, betas: Tensor, bound: Tensor | None) -> Tensor:
        """Whether the start can have no weight as small as a larger norm would ask for."""
        needed = self.needed if bound is None else 4 * self.needed
        theta, _ = self._top(count, alphas, betas)
        scale, diagonal, off = self._tridiagonal(count, alphas, betas)
        relative = ops.square(scale / within_limits(theta))
        diagonal, off = diagonal * relative, off * relative
        point = (1 + self.tolerance) ** 2

        def term(j: Tensor, p: Tensor, last: Tensor, total: Tensor) -> tuple[Tensor, ...]:
            coupling = ops.where(j > 0, ops.take(off, ops.maximum(j - 1, 0)), 0.0)
            following = ((point - ops.take(diagonal, j)) * p - coupling * last) / within_limits(ops.take(off, j))
            return j + 1, following, p, total + ops.square(p)

        def goes_on(j: Tensor, p: Tensor, last: Tensor, total: Tensor) -> Tensor:
            return (j < count) & (total < needed)

        one = ops.ones((), alphas.dtype)
        *_, total = ops.while_loop(goes_on, term, (ops.convert_to_tensor(0), one, 0 * one, 0 * one))
        is_known = total >= needed
        return is_known if bound is None else ops.logical_or(is_known, (1 + self.tolerance) * theta >= bound)

    def _combination(self, start: Tensor, count: Tensor, alphas: Tensor, betas: Tensor, weights: Tensor) -> Tensor:
        """Σ wⱼ vⱼ of the same vectors, made again."""

        def step(j: Tensor, v: Tensor, u: Tensor, total: Tensor) -> tuple[Tensor, ...]:
            total = total + ops.take(weights, j) * v
            before = ops.where(j > 0, ops.take(betas, ops.maximum(j - 1, 0)), 0.0)
            alpha, beta = ops.take(alphas, j), ops.take(betas, j)
            u = (self.operator.apply_to_rows(v) - before * u) / within_limits(alpha)
            v = (self.operator.T.apply_to_rows(u) - alpha * v) / within_limits(beta)
            return j + 1, v, u, total

        u = ops.zeros((1, self.operator.out_space.size), start.dtype)
        state = (ops.convert_to_tensor(0), start, u, ops.zeros_like(start))
        *_, total = ops.while_loop(lambda j, *_: j < count, step, state)
        return total


def within_limits(number: Tensor) -> Tensor:
    """A number that is not negative, if it can be divided by."""
    return ops.clip(number, _SMALLEST, _LARGEST)


def length_of(x: Tensor) -> Tensor:
    """‖x‖, differentiable, where the squares may overflow or vanish."""
    relative, scale = _scaled(x)
    squared = ops.sum(ops.square(relative))
    is_zero = squared == 0  # where the derivative is zero
    return ops.where(is_zero, squared, scale * ops.sqrt(ops.where(is_zero, 1.0, squared)))


def unit(x: Tensor) -> tuple[Tensor, Tensor]:
    """(x / ‖x‖, ‖x‖)."""
    length = length_of(x)
    relative, scale = _scaled(x)
    return relative / within_limits(length / scale), length


def _scaled(x: Tensor) -> tuple[Tensor, Tensor]:
    """(x / s, s), where s is the largest of the absolute values, within the limits."""
    scale = within_limits(ops.stop_gradient(ops.max(ops.abs(x))))
    # A compiler may compute x a second time, and another rounding of zero be divided by the smallest scale.
    return ops.clip(x / scale, -1e9, 1e9), scale
