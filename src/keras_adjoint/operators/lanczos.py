"""The iteration of Golub and Kahan, on the device: the vector that an operator makes longest. `norm` says what it rests on."""

from typing import Any

import keras
from keras import ops

from keras_adjoint.operators.linear_map import LinearMap, replacing_scalars
from keras_adjoint.ops import Tensor
from keras_adjoint.ops.precision import epsilon

STEPS_BETWEEN_TESTS = 8
STEPS_WITH_BOUND = 4
MOST_NUMBERS = 2**25  # of all vectors together, if they are kept
STARTS = 8  # at most
NOISE = 32  # units that a β may be off, relative to the norm
_SMALLEST, _LARGEST = 1e-30, 1e30  # of what is divided by: the reciprocal of a larger number may be taken for zero


class Lanczos:
    """The iteration, as a function of the values of the operator's variables and scalars, and the start.

    Where β is not larger than rounding, the vectors so far belong to a subspace that A does not leave, and a new random vector
    begins another one. Vectors that fit into memory are kept, and every new one is made orthogonal to them, which rounding does
    not undo (Simon and Zha 2000). Otherwise they are computed twice, and a new start is a new iteration.

    Args:
        operator: The operator, which takes no more numbers than it gives.
        tolerance: The relative error of the norm.
        steps: The most that are taken.
        needed: What Σⱼ pⱼ(λ)² has to reach.
    """

    def __init__(self, operator: LinearMap, tolerance: float, steps: int, needed: float) -> None:
        self.operator, self.tolerance, self.steps, self.needed = operator, tolerance, steps, needed
        self.variables, self.scalars = operator.variables(), operator.scalars()
        self.keeps = steps * operator.in_space.size <= MOST_NUMBERS
        self.noise = NOISE * epsilon(operator.precision)

    def top_vector(self, values: list[Tensor], start: Tensor) -> tuple[Tensor, Tensor]:
        """(the unit vector that A makes longest, of those that the iteration meets; θ)."""
        count = len(self.variables)
        mapping = list(zip(self.variables, values[:count], strict=True))
        with keras.StatelessScope(state_mapping=mapping), replacing_scalars(self.scalars, values[count:]):
            near = self.operator.near_maximum()
            bound = None if near is None else near[1]
            first = start if near is None else unit(unit(near[0])[0] + start)[0]
            if self.keeps:
                return self._run(first, bound)[:2]

            def again(count: Tensor, best: Tensor, longest: Tensor, vector: Tensor, done: Tensor) -> tuple[Tensor, ...]:
                vector, theta, done = self._run(vector, bound)
                best = ops.where(theta > longest, vector, best)
                return count + 1, best, ops.maximum(theta, longest), unit(another(start, count))[0], done

            zero, no = ops.convert_to_tensor(0, "int32"), ops.convert_to_tensor(False, "bool")
            state = (zero, first, ops.zeros((), start.dtype), first, no)
            found = ops.while_loop(lambda *now: (now[0] < STARTS) & ops.logical_not(now[-1]), again, state)
            return found[1], found[2]

    def _run(self, start: Tensor, bound: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """(the vector, θ, whether the norm is known to be near)."""
        count, done, alphas, betas, basis = self._coefficients(start, bound)
        theta, weights = self._top(count, alphas, betas)
        vector = weights[None] @ basis if self.keeps else self._combination(start, count, alphas, betas, weights)
        return unit(vector)[0], theta, done

    def _coefficients(self, start: Tensor, bound: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """(steps taken, whether the norm is near, α, β, v if they are kept), with zeros for steps that were not taken.

        β is zero where a new start follows.
        """
        between = STEPS_BETWEEN_TESTS if bound is None else STEPS_WITH_BOUND

        def step(
            j: Tensor, ended: Tensor, done: Tensor, v: Tensor, u: Tensor, alphas: Tensor, betas: Tensor, basis: Tensor
        ) -> tuple[Tensor, ...]:
            here = ops.cast(ops.arange(self.steps, dtype="int32") == j, v.dtype)
            basis = basis + here[:, None] * v if self.keeps else basis
            before = before_place(j, betas)
            u, alpha = unit(self.operator.apply_to_rows(v) - before * u)
            v, beta = unit(self._orthogonal(self.operator.T.apply_to_rows(u) - alpha * v, basis))
            largest = ops.maximum(ops.maximum(ops.max(alphas), ops.max(betas)), alpha)
            ends = ops.minimum(alpha, beta) <= self.noise * largest
            beta = ops.where(ends, 0.0, beta)
            if self.keeps:
                v = ops.cond(ends, lambda: unit(self._orthogonal(unit(another(start, j))[0], basis))[0], lambda: v)
            alphas, betas = alphas + here * alpha, betas + here * beta
            due = ((j + 1) % between == 0) | ends
            done = ops.cond(due, lambda: self._is_near(j + 1, alphas, betas, bound), lambda: done)
            return j + 1, ended + ops.cast(ends, ended.dtype), done, v, u, alphas, betas, basis

        def goes_on(j: Tensor, ended: Tensor, done: Tensor, *_: Tensor) -> Tensor:
            return (j < self.steps) & (ended < (STARTS if self.keeps else 1)) & ops.logical_not(done)

        zeros, zero = ops.zeros((self.steps,), start.dtype), ops.convert_to_tensor(0, "int32")
        u = ops.zeros((1, self.operator.out_space.size), start.dtype)
        basis = ops.zeros((self.steps if self.keeps else 0, start.shape[-1]), start.dtype)
        state: Any = (zero, zero, ops.convert_to_tensor(False, "bool"), start, u, zeros, zeros, basis)
        j, ended, done, _, _, alphas, betas, basis = ops.while_loop(goes_on, step, state)
        return j, done | (ended == 0), alphas, betas, basis

    def _orthogonal(self, v: Tensor, basis: Tensor) -> Tensor:
        """`v` without its parts along the vectors that are kept; the second time takes off what rounding left."""
        for _ in range(2 if self.keeps else 0):
            v = v - (v @ ops.transpose(basis)) @ basis
        return v

    def _tridiagonal(self, count: Tensor, alphas: Tensor, betas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(s, diagonal of T / s², what is beside it); the last of these leads to a vector that does not belong to T."""
        scale = within_limits(ops.maximum(ops.max(alphas), ops.max(betas)))
        alphas, betas = (ops.where(ops.isfinite(each), each / scale, 0.0) for each in (alphas, betas))
        before = ops.concatenate([ops.zeros_like(betas[:1]), betas[:-1]])
        is_taken = ops.cast(ops.arange(self.steps, dtype="int32") < count, alphas.dtype)
        return scale, (ops.square(alphas) + ops.square(before)) * is_taken, alphas * betas

    def _top(self, count: Tensor, alphas: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
        """(θ, the eigenvector of T that it belongs to)."""
        scale, diagonal, off = self._tridiagonal(count, alphas, betas)
        off = off[:-1] * ops.cast(ops.arange(1, self.steps, dtype="int32") < count, off.dtype)
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
            coupling = before_place(j, off)
            ends = ops.take(off, j) <= 0  # or is so small that it is not known
            divisor = ops.where(ends, self.noise, ops.take(off, j))
            following = ((point - ops.take(diagonal, j)) * p - coupling * last) / within_limits(divisor)
            total = total + ops.square(following)
            starts_anew = ends & (total < needed)
            return (
                j + 1,
                ops.where(starts_anew, 1.0, following),
                ops.where(starts_anew, 0.0, p),
                ops.where(starts_anew, 1.0, total),
            )

        def goes_on(j: Tensor, p: Tensor, last: Tensor, total: Tensor) -> Tensor:
            return (j < count) & (total < needed)

        one = ops.ones((), alphas.dtype)
        *_, total = ops.while_loop(goes_on, term, (ops.convert_to_tensor(0, "int32"), one, 0 * one, one))
        is_known = total >= needed
        return is_known if bound is None else ops.logical_or(is_known, (1 + self.tolerance) * theta >= bound)

    def _combination(self, start: Tensor, count: Tensor, alphas: Tensor, betas: Tensor, weights: Tensor) -> Tensor:
        """Σ wⱼ vⱼ of the same vectors, made again."""

        def step(j: Tensor, v: Tensor, u: Tensor, total: Tensor) -> tuple[Tensor, ...]:
            total = total + ops.take(weights, j) * v
            before = before_place(j, betas)
            alpha, beta = ops.take(alphas, j), ops.take(betas, j)
            u = (self.operator.apply_to_rows(v) - before * u) / within_limits(alpha)
            v = (self.operator.T.apply_to_rows(u) - alpha * v) / within_limits(beta)
            return j + 1, v, u, total

        u = ops.zeros((1, self.operator.out_space.size), start.dtype)
        state = (ops.convert_to_tensor(0, "int32"), start, u, ops.zeros_like(start))
        *_, total = ops.while_loop(lambda j, *_: j < count, step, state)
        return total


def another(start: Tensor, number: Tensor) -> Tensor:
    """A further vector from a random one, as random: sines of large multiples of normal numbers are not correlated."""
    normal = start * start.shape[-1] ** 0.5
    return ops.sin(50 * ops.cast(number + 2, start.dtype) * normal)


def before_place(j: Tensor, numbers: Tensor) -> Tensor:
    """The number in front of place j; zero in front of the first."""
    is_first = j == 0
    return ops.where(is_first, 0.0, ops.take(numbers, ops.where(is_first, j, j - 1)))


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
