"""The adjoint of the solution map y ↦ M⁺ Aᵀ y of a least-squares problem, with M = AᵀA + ridge: g ↦ A M⁺ g."""

from typing import Any

import numpy as np
from keras import ops

from keras_adjoint.operators.operator import Operator
from keras_adjoint.ops import Tensor
from keras_adjoint.ops.backend import current
from keras_adjoint.solvers.implicit import Implicit
from keras_adjoint.solvers.samples import finite_rows, warn_of_missing
from keras_adjoint.solvers.system import Problem


def _transposed_solution(operator: Operator, g: Any, ridge: Tensor | None, tolerance: float, max_steps: int) -> Any:
    """A M⁺ g, differentiable as the solution is; NaN where g is not finite, which a warning names.

    Args:
        operator: A.
        g: A batch of what A takes.
        ridge: A scalar tensor, or `None` for zero.
        tolerance: Of M x = g, relative to ‖g‖.
        max_steps: The most steps.
    """
    space = operator.in_space
    rows = space.join(space.leaves(g, operator.precision, repr(operator.T)))
    has_solution = finite_rows(rows)
    rows = ops.where(has_solution, rows, 0.0)
    if current().is_concrete([has_solution]):
        warn_of_missing(
            "The adjoint of `LeastSquares`", ~np.asarray(ops.convert_to_numpy(has_solution)), "what it takes"
        )
    problem = Problem(operator.widened(), has_ridge=ridge is not None)
    operands = problem.operands(ridge)
    found = Implicit(problem, ridge is not None, tolerance, max_steps).inverse(operands, rows)
    with problem.at(operands) as system:
        given = system.forward(found)[:, : operator.out_space.size]
    leaves = operator.out_space.split(ops.where(has_solution, given, float("nan")))
    return operator.out_space.pack([ops.cast(leaf, operator.dtype) for leaf in leaves])


transposed_solution = current().untraced(_transposed_solution)
