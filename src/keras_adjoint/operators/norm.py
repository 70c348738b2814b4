"""The norm of an operator, its largest singular value, by Lanczos bidiagonalisation from a random start.

Golub and Kahan's recurrence (1965) makes of a unit vector v₁ orthonormal vectors in which A is bidiagonal:

    αⱼ uⱼ = A vⱼ − βⱼ₋₁ uⱼ₋₁,    βⱼ vⱼ₊₁ = Aᵀ uⱼ − αⱼ vⱼ.

The largest eigenvalue θ² of the tridiagonal T, of αⱼ² + βⱼ₋₁² and αⱼ βⱼ, approaches that of AᵀA from below.

When is it near enough? T belongs to polynomials pⱼ that are orthonormal by the weights that v₁ has on the eigenvectors of
AᵀA. So the weight on an eigenvalue λ is at most 1 / Σⱼ pⱼ(λ)², which falls the faster, the farther λ lies above θ². A random
start has a smaller weight than π δ² / 2n on the top eigenvector with a probability of at most δ. The iteration ends when
Σⱼ pⱼ(λ)² at λ = (1 + tolerance)² θ² is larger than 2n / π δ², so that with that probability at most the norm is above
(1 + tolerance) θ (Hochstenbach 2013). It ends after the steps that are enough for every operator anyway (Kuczyński and
Woźniakowski 1992).

Of a large convolution, the top singular vector is nearly a plane wave, and the norm nearly that of the symbol. The start is the
sum of that wave and of the random vector, both of length 1. A coefficient of the random vector is close to zero more often
than to any other number, so a weight of the sum, whose length is at most 2, is smaller than π δ² / 8n with a probability of at
most δ. The iteration also ends when (1 + tolerance) θ reaches the bound by the symbol.
"""

import math
import weakref
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_adjoint.operators.linear_map import LinearMap
from keras_adjoint.ops import Tensor
from keras_adjoint.ops.backend import current

FAILURE = 1e-3  # probability over the random start
STEPS_BETWEEN_TESTS = 8
STEPS_WITH_BOUND = 4
_TINY = 1e-30

_COMPILED: weakref.WeakKeyDictionary[LinearMap, dict[Any, Callable[..., Any]]] = weakref.WeakKeyDictionary()


def norm_of(operator: LinearMap, tolerance: float, seed: int) -> Tensor:
    """See `Operator.norm`."""
    narrow = operator if operator.in_space.size <= operator.out_space.size else operator.T
    size = narrow.in_space.size
    start = np.random.default_rng(seed).standard_normal((1, size))
    start = ops.convert_to_tensor(start / np.linalg.norm(start), operator.precision)
    variables = operator.variables()
    values = [ops.stop_gradient(ops.convert_to_tensor(variable)) for variable in variables]
    if size == 1:
        top = start
    else:
        functions = _COMPILED.setdefault(narrow, {})
        if tolerance not in functions:
            functions[tolerance] = current().compiled(_Lanczos(narrow, variables, tolerance).top_vector)
        top = ops.stop_gradient(functions[tolerance](values, start))
    # ‖A v‖ is never above the norm, and its derivative at the top singular vector is uᵀ dA v.
    return ops.sqrt(ops.sum(ops.square(narrow.apply_to_rows(top))))


def most_steps(size: int, tolerance: float) -> int:
    """How many steps are enough for every operator on `size` numbers, with a probability of 1 − `FAILURE`.

    With the relative error ε of θ², the probability of failure is at most 1.648 √n exp(−√ε (2k − 1)) after k steps.
    """
    error = 1 - 1 / (1 + tolerance) ** 2
    steps = (math.log(1.648 * math.sqrt(size) / FAILURE) / math.sqrt(error) + 1) / 2
    return min(size, math.ceil(steps))


class _Lanczos:
    """The iteration, as a function of the values of the operator's variables and the start."""

    def __init__(self, operator: LinearMap, variables: list[keras.Variable], tolerance: float) -> None:
        self.operator, self.variables, self.tolerance = operator, variables, tolerance
        size = operator.in_space.size
        self.steps = most_steps(size, tolerance)
        self.needed = 2 * size / (math.pi * FAILURE**2)

    def top_vector(self, values: list[Tensor], start: Tensor) -> Tensor:
        """The unit vector that A makes longest, of those that the iteration meets."""
        with keras.StatelessScope(state_mapping=list(zip(self.variables, values, strict=True))):
            near = self.operator.near_maximum()
            bound = None if near is None else near[1]
            start = start if near is None else _unit(_unit(near[0])[0] + start)[0]
            count, alphas, betas = self._coefficients(start, bound)
            _, weights = self._top(alphas, betas)
            return self._combination(start, count, alphas, betas, weights)

    def _coefficients(self, start: Tensor, bound: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """(steps taken, α, β), with zeros for steps that were not taken."""
        between = STEPS_BETWEEN_TESTS if bound is None else STEPS_WITH_BOUND

        def step(j: Tensor, done: Tensor, v: Tensor, u: Tensor, alphas: Tensor, betas: Tensor) -> tuple[Tensor, ...]:
            before = ops.where(j > 0, ops.take(betas, ops.maximum(j - 1, 0)), 0.0)
            u, alpha = _unit(self.operator.apply_to_rows(v) - before * u)
            v, beta = _unit(self.operator.T.apply_to_rows(u) - alpha * v)
            here = ops.cast(ops.arange(self.steps) == j, v.dtype)
            alphas, betas = alphas + here * alpha, betas + here * beta
            due = ((j + 1) % between == 0) | (beta <= _TINY)
            done = ops.cond(due, lambda: self._is_near(j + 1, alphas, betas, bound), lambda: done)
            return j + 1, done, v, u, alphas, betas

        zeros = ops.zeros((self.steps,), start.dtype)
        u = ops.zeros((1, self.operator.out_space.size), start.dtype)
        state = (ops.convert_to_tensor(0), ops.convert_to_tensor(False), start, u, zeros, zeros)
        j, _, _, _, alphas, betas = ops.while_loop(
            lambda j, done, *_: (j < self.steps) & ops.logical_not(done), step, state
        )
        return j, alphas, betas

    def _tridiagonal(self, alphas: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
        """(diagonal of T, what is beside it); the last of these leads to a vector that does not belong to T."""
        before = ops.concatenate([ops.zeros_like(betas[:1]), betas[:-1]])
        return ops.square(alphas) + ops.where(alphas > 0, ops.square(before), 0.0), alphas * betas

    def _top(self, alphas: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
        """(θ², the eigenvector of T that it belongs to)."""
        diagonal, off = self._tridiagonal(alphas, betas)
        off = off[:-1] * ops.cast(alphas[1:] > 0, off.dtype)
        values, vectors = ops.eigh(ops.diag(diagonal) + ops.diag(off, 1) + ops.diag(off, -1))
        return values[-1], vectors[:, -1]

    def _is_near(self, count: Tensor, alphas: Tensor, betas: Tensor, bound: Tensor | None) -> Tensor:
        """Whether the start can have no weight as small as a larger norm would ask for, see above."""
        needed = self.needed if bound is None else 4 * self.needed
        scale = ops.maximum(self._top(alphas, betas)[0], _TINY)
        diagonal, off = (each / scale for each in self._tridiagonal(alphas, betas))
        point = (1 + self.tolerance) ** 2

        def term(j: Tensor, p: Tensor, last: Tensor, total: Tensor) -> tuple[Tensor, ...]:
            coupling = ops.where(j > 0, ops.take(off, ops.maximum(j - 1, 0)), 0.0)
            following = ((point - ops.take(diagonal, j)) * p - coupling * last) / ops.maximum(ops.take(off, j), _TINY)
            return j + 1, following, p, total + ops.square(p)

        def goes_on(j: Tensor, p: Tensor, last: Tensor, total: Tensor) -> Tensor:
            return (j < count) & (total < needed)

        one = ops.ones((), alphas.dtype)
        *_, total = ops.while_loop(goes_on, term, (ops.convert_to_tensor(0), one, 0 * one, 0 * one))
        is_invariant = ops.take(off, count - 1) <= _TINY  # nothing is left to be found
        is_known = total >= needed
        if bound is not None:
            is_known = ops.logical_or(is_known, (1 + self.tolerance) * ops.sqrt(scale) >= bound)
        return ops.logical_or(is_known, is_invariant)

    def _combination(self, start: Tensor, count: Tensor, alphas: Tensor, betas: Tensor, weights: Tensor) -> Tensor:
        """Σ wⱼ vⱼ of the same vectors, made again: all together they may not fit into memory."""

        def step(j: Tensor, v: Tensor, u: Tensor, total: Tensor) -> tuple[Tensor, ...]:
            total = total + ops.take(weights, j) * v
            before = ops.where(j > 0, ops.take(betas, ops.maximum(j - 1, 0)), 0.0)
            alpha, beta = ops.take(alphas, j), ops.take(betas, j)
            u = (self.operator.apply_to_rows(v) - before * u) / ops.maximum(alpha, _TINY)
            v = (self.operator.T.apply_to_rows(u) - alpha * v) / ops.maximum(beta, _TINY)
            return j + 1, v, u, total

        u = ops.zeros((1, self.operator.out_space.size), start.dtype)
        state = (ops.convert_to_tensor(0), start, u, ops.zeros_like(start))
        *_, total = ops.while_loop(lambda j, *_: j < count, step, state)
        return _unit(total)[0]


def _unit(x: Tensor) -> tuple[Tensor, Tensor]:
    length = ops.sqrt(ops.sum(ops.square(x)))
    return x / ops.maximum(length, _TINY), length
