"""Solving a least-squares problem: the method finds x without derivatives, and x gets those of the solution."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from keras import ops

from keras_adjoint.errors import SizeError
from keras_adjoint.operators.operator import Operator
from keras_adjoint.operators.space import Space
from keras_adjoint.ops import Tensor
from keras_adjoint.ops.backend import current
from keras_adjoint.solvers.conjugate import Result, least_squares
from keras_adjoint.solvers.implicit import Implicit, opaque
from keras_adjoint.solvers.loops import Loop, Watch, loop_for
from keras_adjoint.solvers.lsmr import lsmr
from keras_adjoint.solvers.projected import projected
from keras_adjoint.solvers.samples import finite_rows
from keras_adjoint.solvers.scaling import compiled, largest, solve_least_squares
from keras_adjoint.solvers.system import Problem

METHODS: dict[str, Callable[..., Result]] = {"cgls": least_squares, "lsmr": lsmr}


@dataclass(frozen=True)
class Method:
    """How a problem is solved, see `lstsq`."""

    name: str
    tolerance: float
    max_steps: int
    gradient: str


def solve(
    operator: Operator,
    y: Any,
    method: Method,
    *,
    ridge: Tensor | None = None,
    weights: Tensor | None = None,
    x0: Any = None,
    limits: tuple[Tensor | None, Tensor | None] = (None, None),
    preconditioner: Operator | None = None,
    callback: Callable[[int, Any], object] | None = None,
) -> tuple[Any, Tensor, Tensor, Tensor, bool]:
    """(x, steps, residual norms, which samples converged, whether the callback ended the steps), from checked arguments."""
    problem = Problem(
        operator.widened(),
        ridge is not None,
        weights is not None,
        preconditioner=None if preconditioner is None else preconditioner.widened(),
    )
    heaviest = None if weights is None else largest(weights)
    if heaviest is not None:  # multiples of them and the ridge have the same x, and the squares of 1e20 overflow
        weights, ridge = weights / heaviest, None if ridge is None else ridge / heaviest
    operands = problem.operands(ridge, weights)
    right = rows_of(operator.out_space, y, operator)
    start = None if x0 is None else rows_of(operator.in_space, x0, operator)
    _check_batches(right, start, {"weights": weights, "lower": limits[0], "upper": limits[1]})
    if weights is not None:  # what is not there may be anything
        right = ops.where((weights == 0) & ops.logical_not(ops.isfinite(right)), 0.0, right)
    has_solution = finite_rows(right) if start is None else finite_rows(right) & finite_rows(start)
    # Zeros in place of the others: what is not finite times a gradient of zero is not zero, and kernels are shared.
    right = ops.where(has_solution, right, 0.0)
    start = None if start is None else ops.where(has_solution, start, 0.0)
    z = problem.rows(right)
    _check_preconditioner(problem, operands, z)
    has_limits, watch = any(limit is not None for limit in limits), None
    if callback is not None:
        watch = Watch(callback, lambda rows: packed(operator, rows if start is None or has_limits else rows + start))
    run = _between_limits if has_limits else _anywhere
    x, steps, converged = run(problem, operands, z, start, limits, method, watch)
    with problem.at(operands) as system:
        outputs = operator.out_space.size
        missed = (z - system.forward(x))[:, :outputs]
        unit = largest(missed)  # the squares of 1e20, and of 1e-23, are no numbers of float32
        squares = ops.square(missed / unit)
        squares = squares * operands[-1][:, :outputs] if weights is not None else squares
        norm = ops.sum(squares, axis=-1)
        norm = ops.where(norm > 0, ops.sqrt(ops.where(norm > 0, norm, 1.0)), norm) * unit[:, 0]
        norm = norm if heaviest is None else norm * ops.sqrt(heaviest[:, 0])
    found, none = has_solution[:, 0], float("nan")
    x, norm = ops.where(has_solution, x, none), ops.where(found, norm, none)
    ended = watch is not None and watch.is_over
    return packed(operator, x), ops.where(found, steps, 0), norm, converged & found, ended


def _check_preconditioner(problem: Problem, operands: list[Tensor], z: Tensor) -> None:
    """Raise unless ⟨s, P s⟩ > 0 for the first gradient s of each sample, as far as numbers are known."""
    with problem.at(operands) as system:
        if system.precondition is None or not current().is_concrete([z]):
            return
        s = system.adjoint(z)
        found = system.dot_in(s, system.precondition(s))
        if not current().is_concrete([found]):
            return
        first = ops.convert_to_numpy(system.dot_in(s, s))
    numbers = np.asarray(ops.convert_to_numpy(found))
    wrong = np.flatnonzero((numbers <= 0) & (first > 0))
    if len(wrong):
        raise ValueError(
            f"`preconditioner` is symmetric and positive definite, so that ⟨s, P s⟩ > 0 for every s but zero. Received: one "
            f"with ⟨s, P s⟩ = {numbers[wrong[0], 0]:.3g} for the first gradient s of sample {wrong[0]}"
        )


def _check_batches(z: Tensor, start: Tensor | None, others: dict[str, Tensor | None]) -> None:
    """Raise unless x0 has as many samples as y, and weights and limits as many or one."""
    batch = z.shape[0]
    if not isinstance(batch, int):
        return
    if start is not None and start.shape[0] not in (batch, None):
        raise SizeError(
            f"`x0` has a sample for each of y. Received: x0 with {start.shape[0]} samples, and y with {batch} samples"
        )
    for name, rows in others.items():
        if rows is not None and rows.shape[0] not in (1, batch, None):
            raise ValueError(
                f"`{name}` is that of one sample, or of each sample of y. Received: {name} of {rows.shape[0]} samples, and y "
                f"with {batch} samples"
            )


Limits = tuple[Tensor | None, Tensor | None]
Found = tuple[Tensor, Tensor, Tensor]


def _anywhere(
    problem: Problem,
    operands: list[Tensor],
    z: Tensor,
    start: Tensor | None,
    limits: Limits,
    method: Method,
    watch: Watch | None,
) -> Found:
    """The solution x₀ + B⁺ (z − B x₀), which is the one closest to x₀."""
    with problem.at(operands) as system:
        compared = ops.stop_gradient(system.adjoint(z))
        left = z if start is None else z - system.forward(start)

    def search(operands: list[Tensor], left: Tensor, compared: Tensor, loop: Loop) -> Result:
        with problem.at(operands) as system:
            return solve_least_squares(METHODS[method.name], system, left, loop, method.tolerance, compared)

    x, steps, converged = _searched(problem, search, operands, [left, compared], method, watch)
    if method.gradient == "implicit":
        x = _implicit(problem, method).solution(operands, left, x)
    return x if start is None else start + x, steps, converged


def _between_limits(
    problem: Problem,
    operands: list[Tensor],
    z: Tensor,
    start: Tensor | None,
    limits: Limits,
    method: Method,
    watch: Watch | None,
) -> Found:
    """The solution between limits. Its derivative is that of the problem in which what is at a limit stays there."""
    zeros = ops.zeros((ops.shape(z)[0], problem.operator.in_space.size), z.dtype)
    infinite = float("inf")
    lower, upper = (
        zeros + (sign * infinite if one is None else one) for sign, one in zip((-1, 1), limits, strict=True)
    )
    start = zeros if start is None else start

    def search(operands: list[Tensor], z: Tensor, start: Tensor, lower: Tensor, upper: Tensor, loop: Loop) -> Result:
        points = {"start": start, "lower": lower, "upper": upper}
        with problem.at(operands) as system:
            return solve_least_squares(projected, system, z, loop, method.tolerance, **points)

    x, steps, converged = _searched(problem, search, operands, [z, start, lower, upper], method, watch)
    if method.gradient == "implicit":
        x = ops.stop_gradient(x)
        free = (x > lower) & (x < upper)
        held = ops.where(free, x, ops.where(x < upper, lower, upper))
        with problem.at(operands) as system:
            left = z - system.forward(held)
        masked = replace(problem, has_mask=True)
        of_free = _implicit(masked, method).solution([*operands, ops.cast(free, x.dtype)], left, ops.zeros_like(x))
        x = held + of_free
    return x, steps, converged


def _implicit(problem: Problem, method: Method) -> Implicit:
    return Implicit(problem, problem.has_ridge, method.tolerance, method.max_steps)


def _searched(
    problem: Problem,
    search: Callable[..., Result],
    operands: list[Tensor],
    points: list[Tensor],
    method: Method,
    watch: Watch | None,
) -> Found:
    """(x, steps, which converged), found compiled and without derivatives, or by steps that are differentiated."""
    unrolled = method.gradient == "unrolled"
    count = len(operands)

    def run(*given: Tensor) -> Tensor:
        loop = loop_for(list(given[-1:]), method.max_steps, unrolled=unrolled, watch=watch)
        found = search(list(given[:count]), *given[count:], loop)
        marks = [ops.cast(each, found.x.dtype) for each in (found.steps, found.converged)]
        return ops.concatenate([found.x, *marks], axis=1)

    if unrolled:
        found = run(*operands, *points)
    else:
        key = (search.__qualname__, problem.flags, method)
        made = run if watch is not None else compiled(problem, key, run)
        found = opaque(lambda given: made(*given), [*operands, *points])
    inputs = problem.operator.in_space.size
    found = ops.reshape(
        found, (*ops.shape(points[0])[:1], inputs + 2)
    )  # loops of TensorFlow forget the size of the batch
    marks = ops.stop_gradient(found[:, inputs:])
    return found[:, :inputs], ops.cast(marks[:, 0], "int32"), marks[:, 1] > 0


def rows_of(space: Space, tensors: Any, operator: Operator) -> Tensor:
    return space.join(space.leaves(tensors, operator.precision, repr(operator)))


def packed(operator: Operator, rows: Tensor) -> Any:
    return operator.in_space.pack([ops.cast(leaf, operator.dtype) for leaf in operator.in_space.split(rows)])
