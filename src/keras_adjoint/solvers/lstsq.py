"""`lstsq` and `nnls`: least squares with an operator, batched, on the device, differentiable."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_adjoint.errors import one_of
from keras_adjoint.operators.operator import Operator
from keras_adjoint.ops import Tensor
from keras_adjoint.ops.backend import current
from keras_adjoint.solvers import arguments
from keras_adjoint.solvers.samples import named
from keras_adjoint.solvers.solve import Method, solve

_solve = current().untraced(solve)


class Solution(NamedTuple):
    """What `lstsq` and `nnls` give, with a value for each sample of the batch.

    Attributes:
        x: The solution, in the structure of what the operator takes.
        steps: How many steps each sample took, integers of shape `(batch,)`.
        residual_norm: ‖A x − y‖, with the weights if there are any, of shape `(batch,)`.
        converged: Whether the gradient is below the tolerance, booleans of shape `(batch,)`.
    """

    x: Any
    steps: Tensor
    residual_norm: Tensor
    converged: Tensor

    def __repr__(self) -> str:
        shapes = keras.tree.map_structure(lambda x: tuple(x.shape), self.x)
        parts = {"steps": self.steps, "residual_norm": self.residual_norm, "converged": self.converged}
        if current().is_concrete([self.converged]):
            parts = {name: np.array2string(ops.convert_to_numpy(each), threshold=10) for name, each in parts.items()}
        return f"Solution(x of shape {shapes}, {', '.join(f'{name}={value}' for name, value in parts.items())})"


def lstsq(
    A: Operator,
    y: Any,
    *,
    ridge: Any = 0.0,
    weights: Any = None,
    x0: Any = None,
    lower: Any = None,
    upper: Any = None,
    method: str = "cgls",
    tolerance: float | None = None,
    max_steps: int | None = None,
    preconditioner: Any = None,
    callback: Callable[[int, Any], object] | None = None,
    gradient: str = "implicit",
) -> Solution:
    """The x that minimises ‖A x − y‖² + ridge·‖x‖², for every sample of a batch.

    A sample has converged where ‖Aᵀ(y − A x) − ridge·x‖ ≤ tolerance·‖Aᵀ y‖, with its own steps, and is left alone from then
    on. The solution is differentiable by y, the kernels of A, the ridge and the weights. If several x are equally good, which
    takes a `ridge` of 0, it is the one closest to `x0`, without `x0` the smallest one.

    Args:
        A: An operator, see `keras_adjoint.operator`.
        y: A batch of what A gives.
        ridge: A number that is not negative, or a scalar tensor or variable that is positive.
        weights: Of the squares of A x − y: a number for each number of A x, of one sample or of a batch, or one for all.
        x0: Where to begin, a batch of what A takes. By default zero.
        lower: The smallest x may be, one number, or one for each of x.
        upper: The largest x may be. With either of them the method is accelerated projected gradients.
        method: "cgls", conjugate gradients (Hestenes and Stiefel 1952), or "lsmr" (Fong and Saunders 2011), by which the
            gradient falls in every step.
        tolerance: By default 1e-5, of operators in float64 1e-10.
        max_steps: By default 1000.
        preconditioner: A symmetric positive definite operator close to (AᵀA + ridge)⁻¹, for "cgls". Where A does not have full
            column rank it needs a ridge, since it would change which of several solutions is found.
        callback: A function of (number of the step, x so far), called after every step outside of compiled functions. A true
            value ends the iteration, without a warning about what has not converged.
        gradient: "implicit", by solving once more with the same operator, or "unrolled", by differentiating all steps, which
            takes memory for each of `max_steps`. That is the derivative of the steps: where few of them reach the solution,
            as of an orthogonal operator, it may be far from that of the solution.

    Returns:
        A `Solution`. Where Keras computes at once and a sample does not converge, a warning names it.

    Raises:
        SizeError: If `y` or `x0` is no batch of what A gives or takes.
        ValueError: If an argument makes no sense.

    Example:

    >>> dense = keras.layers.Dense(3)
    >>> dense.build((None, 2))
    >>> A = ka.operator(dense)
    >>> x = np.array([[1.0, -2.0]], "float32")
    >>> solution = ka.lstsq(A, A @ x)
    >>> np.allclose(keras.ops.convert_to_numpy(solution.x), x, atol=1e-4)
    True
    """
    arguments.check_operator(A, "lstsq")
    arguments.check_numbers("y", y)
    arguments.check_numbers("x0", x0)
    options = Method(
        name=one_of("method", method, arguments.METHODS),
        tolerance=arguments.tolerance_for(tolerance, A.precision),
        max_steps=arguments.steps_from(max_steps),
        gradient=one_of("gradient", gradient, arguments.GRADIENTS),
    )
    strength = arguments.ridge_from(ridge, A.precision)
    *found, ended = _solve(
        A,
        y,
        options,
        ridge=strength,
        weights=arguments.weights_from(weights, A),
        x0=x0,
        limits=arguments.limits_from(lower, upper, A),
        preconditioner=arguments.preconditioner_for(preconditioner, A, options.name, strength is not None),
        callback=arguments.callback_from(callback),
    )
    return reported(Solution(*found), options, A, ended=ended, preconditioned=preconditioner is not None)


def nnls(A: Operator, y: Any, **options: Any) -> Solution:
    """The x without negative numbers that minimises ‖A x − y‖² + ridge·‖x‖².

    Args:
        A: An operator.
        y: A batch of what A gives.
        **options: Those of `lstsq`; `lower` is 0.

    Returns:
        A `Solution`. It has converged where the gradient, without the parts that point below zero, is below the tolerance.

    Raises:
        SizeError: See `lstsq`.
        ValueError: Likewise.

    Example:

    >>> solution = ka.nnls(ka.identity((2,)), np.array([[3.0, -1.0]], "float32"))
    >>> keras.ops.convert_to_numpy(solution.x).tolist()
    [[3.0, 0.0]]
    """
    if "lower" in options:
        raise ValueError(f"`nnls` has a lower limit of 0; `lstsq` takes others. Received: lower={options['lower']!r}")
    return lstsq(A, y, lower=0.0, **options)


def reported(solution: Solution, method: Method, operator: Operator, *, ended: bool, preconditioned: bool) -> Solution:
    """The solution, after a warning that names the samples that have none, or did not converge, if that is known now.

    A callback that ended the steps did so on purpose.
    """
    if not current().is_concrete([solution.converged]):
        return solution
    norms = ops.stop_gradient(solution.residual_norm)  # of which JAX knows numbers while it differentiates
    converged, norms = (np.asarray(ops.convert_to_numpy(each)) for each in (solution.converged, norms))
    missing, failed = ~converged & ~np.isfinite(norms), ~converged & np.isfinite(norms)
    if missing.any():
        warnings.warn(
            f"`lstsq`: y, `x0` or what A makes of them is not finite in sample {named(missing)}, which has no solution. Other "
            "samples are not touched by that.",
            stacklevel=3,
        )
    if failed.any() and not ended:
        warnings.warn(_unconverged(failed, solution, method, operator, preconditioned), stacklevel=3)
    if operator.dtype != operator.precision and not np.all(~converged | _is_finite(solution.x)):
        warnings.warn(
            f"`lstsq`: the solution of sample {named(converged & ~_is_finite(solution.x))} has numbers that are too large for "
            f"{operator.dtype}, in which A gives its results. Divide y by a number, or take a layer in float32.",
            stacklevel=3,
        )
    return solution


def _is_finite(x: Any) -> Any:
    """Which samples are finite."""
    leaves = [np.asarray(ops.convert_to_numpy(ops.isfinite(leaf))) for leaf in keras.tree.flatten(x)]
    return np.all([leaf.reshape(len(leaf), -1).all(axis=1) for leaf in leaves], axis=0)


def _unconverged(failed: Any, solution: Solution, method: Method, operator: Operator, preconditioned: bool) -> str:
    samples, steps = named(failed), np.asarray(ops.convert_to_numpy(solution.steps))[failed]
    if current().held_dtype(operator.precision) != operator.precision:
        help = (
            "The layer is said to be of float64, and JAX computes in float32: set the environment variable JAX_ENABLE_X64=1, "
            "or pass a larger `tolerance`."
        )
    elif steps.max() < method.max_steps and preconditioned:
        help = "Either the `preconditioner` is not symmetric and positive definite, or rounding stands in the way."
    elif steps.max() < method.max_steps and operator.precision == "float64":
        help = (
            "More steps do not help, since rounding stands in the way: pass a larger `tolerance`. On PyTorch, Keras computes "
            "`Dense` and some other layers in float32 where they are said to be of float64."
        )
    elif steps.max() < method.max_steps:
        help = "More steps do not help, since rounding stands in the way: compute in float64, or pass a larger `tolerance`."
    else:
        help = "Pass more `max_steps`, a larger `tolerance`, a `ridge`, or a `preconditioner`."
    return (
        f"`lstsq` did not reach the tolerance of {method.tolerance:g} in sample {samples}, after {steps.max()} steps; their x "
        f"is the last one, see `converged` and `residual_norm`. {help}"
    )
