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
from keras_adjoint.solvers.samples import maxima
from keras_adjoint.solvers.system import Problem, System

LARGEST = {"float32": 1e30, "float64": 1e300}  # numbers by which, and by whose inverse, can be divided
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
    size = largest(z)
    z = z / size
    first = system.adjoint(z)
    scale = largest(first)
    first = first / scale
    limit = _limit(system, first, first if compared is None else compared / size / scale, tolerance)
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
    size = largest(b)
    b = b / size
    scale = largest(system.forward(b))
    found = normal_equations(system.divided(scale), b, _limit(system, b, b, tolerance), loop)
    return replace(found, x=found.x * size / scale / scale)


def _limit(system: System, first: Tensor, compared: Tensor, tolerance: float) -> Tensor:
    rounding = ROUNDING * epsilon(keras.backend.standardize_dtype(first.dtype))
    least = _length(system, first)
    wanted = _length(system, compared)
    wanted = tolerance * ops.where(ops.isfinite(wanted), wanted, least)  # B* z may be too large where z is not
    limit = ops.where(wanted > 0, wanted, rounding * least)
    return ops.where(ops.isfinite(limit), limit, float("nan"))  # which nothing is below


def _length(system: System, rows: Tensor) -> Tensor:
    return ops.stop_gradient(ops.sqrt(system.dot_in(rows, rows)))


def largest(rows: Tensor) -> Tensor:
    """The largest absolute value of each row, by which it can be divided; 1 for rows that are not finite, or zero."""
    found = ops.stop_gradient(maxima(ops.abs(rows)))
    most = LARGEST[keras.backend.standardize_dtype(found.dtype)]
    return ops.where(ops.isfinite(found) & (found > 0), ops.clip(found, 1 / most, most), ops.ones_like(found))


def compiled(problem: Problem, key: Hashable, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as the backend runs it soonest, made once for each operator and key."""
    functions = problem.operator.functions
    if key not in functions:
        functions[key] = current().compiled(function)
    return functions[key]
