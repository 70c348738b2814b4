"""Problems of any scale: numbers of 1e-20 or 1e20 have squares that float32 does not hold."""

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any

import keras
from keras import ops

from keras_adjoint.ops import Tensor
from keras_adjoint.ops.backend import current
from keras_adjoint.ops.precision import epsilon
from keras_adjoint.solvers.conjugate import Result, normal_equations
from keras_adjoint.solvers.loops import Loop
from keras_adjoint.solvers.system import Problem, System, dot

_SMALLEST, _LARGEST = 1e-30, 1e30
ROUNDING = 16  # units by which a gradient that should be zero may differ from that


def solve_least_squares(
    solver: Callable[..., Result],
    system: System,
    z: Tensor,
    loop: Loop,
    tolerance: float,
    compared: Tensor | None = None,
    **points: Tensor,
) -> Result:
    """argmin ‖B x − z‖ by a solver, which is given a map and a right side of size 1.

    Args:
        solver: A function of (system, right side, limit of the gradient, loop).
        system: B.
        z: Rows.
        loop: See `Loop`.
        tolerance: How large the gradient may be, relative to `compared`; where that is zero, rounding of the first one may be
            left.
        compared: Rows; by default the first gradient, B* z.
        **points: Further x that the solver is given, by their names. What comes to be `lower` or `upper` stays exactly that.
    """
    size = _largest(z)
    z = z / size
    first = system.adjoint(z)
    scale = _largest(first)
    first = first / scale
    limit = _limit(first, first if compared is None else compared / size / scale, tolerance)
    unit = size / scale  # of x
    if loop.watch is not None:
        loop.watch.unit = unit
    scaled = {name: point / unit for name, point in points.items()}
    found = solver(system.divided(scale), z, limit, loop, **scaled)
    x = found.x * unit
    for name in scaled.keys() & {"lower", "upper"}:  # which rounding may have missed
        x = ops.where(found.x == scaled[name], points[name], x)
    return replace(found, x=x)


def solve_normal_equations(system: System, b: Tensor, loop: Loop, tolerance: float) -> Result:
    """x with B*B x = b, likewise."""
    size = _largest(b)
    b = b / size
    scale = _largest(system.forward(b))
    found = normal_equations(system.divided(scale), b, _limit(b, b, tolerance), loop)
    return replace(found, x=found.x * size / scale / scale)


def _limit(first: Tensor, compared: Tensor, tolerance: float) -> Tensor:
    rounding = ROUNDING * epsilon(keras.backend.standardize_dtype(first.dtype))
    wanted = tolerance * _length(compared)
    return ops.where(wanted > 0, wanted, rounding * _length(first))


def _length(rows: Tensor) -> Tensor:
    return ops.stop_gradient(ops.sqrt(dot(rows, rows)))


def _largest(rows: Tensor) -> Tensor:
    """The largest absolute value of each row, by which it can be divided; 1 for rows that are not finite, or zero."""
    found = ops.stop_gradient(ops.max(ops.abs(rows), axis=-1, keepdims=True, initial=0.0))
    return ops.where(ops.isfinite(found) & (found > 0), ops.clip(found, _SMALLEST, _LARGEST), ops.ones_like(found))


def compiled(problem: Problem, key: Hashable, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as the backend runs it soonest, made once for each operator and key."""
    functions = problem.operator.functions
    if key not in functions:
        functions[key] = current().compiled(function)
    return functions[key]
