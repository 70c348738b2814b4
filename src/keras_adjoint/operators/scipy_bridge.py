"""SciPy on the host: an operator as a `scipy.sparse.linalg.LinearOperator`, and its singular values by ARPACK or LAPACK."""

import math
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_adjoint.errors import KerasAdjointError, one_of
from keras_adjoint.operators.linear_map import LinearMap
from keras_adjoint.operators.matrix import matrix_of
from keras_adjoint.operators.on_host import on_host
from keras_adjoint.operators.optional import imported

Array = NDArray[Any]

DENSE_SIDE = 1024  # up to which the matrix is decomposed as it is
DENSE_NUMBERS = 2**23  # up to which it is, if all of its singular values are asked for
RESIDUAL = 1e-2  # of a singular value: how far Aᵀ u may be from σ v


def to_scipy(operator: LinearMap) -> Any:
    """See `Operator.to_scipy`."""
    linalg = imported("scipy.sparse.linalg", "`to_scipy`")
    dtype = operator.precision

    def rows_times(part: LinearMap, x: Array) -> Array:
        """What an operator gives for the columns of a matrix, as columns."""
        if np.iscomplexobj(x):
            return rows_times(part, x.real) + 1j * rows_times(part, x.imag)
        if not x.shape[1]:  # TensorFlow's convolutions take no empty batch
            return np.zeros((part.shape[0], 0), dtype)
        rows = ops.convert_to_tensor(np.ascontiguousarray(x.T).astype(dtype))
        return on_host(part.apply_to_rows(rows), "What SciPy or PyLops asks of an operator").T

    def one(part: LinearMap, x: Array) -> Array:
        return rows_times(part, x.reshape(-1, 1))[:, 0]

    linear = linalg.LinearOperator(
        operator.shape,
        matvec=lambda x: one(operator, x),
        rmatvec=lambda y: one(operator.T, y),
        matmat=lambda x: rows_times(operator, x),
        rmatmat=lambda y: rows_times(operator.T, y),
        dtype=np.dtype(dtype),
    )
    linear.keras_operator = operator  # by which `from_scipy` knows it
    return linear


def singular_values(operator: LinearMap, count: int, which: str, vectors: bool) -> Any:
    """See `Operator.singular_values`."""
    side = min(operator.shape)
    one_of("which", which, ("largest", "smallest"))
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or not 0 < count <= side:
        raise ValueError(
            f"The number of singular values is an integer from 1 to {side}, the smaller side of the matrix. Received: {count!r}"
        )
    dense = side <= DENSE_SIDE and math.prod(operator.shape) <= DENSE_SIDE * 2**15
    if count == side and not dense and math.prod(operator.shape) > DENSE_NUMBERS:
        raise KerasAdjointError(
            f"All singular values, which `condition` needs, are taken from the matrix, and that has more than {DENSE_NUMBERS} "
            f"numbers. Take a smaller `size`; `norm` and `bound` give the largest one at every size. Received: {operator!r}, "
            f"of shape {operator.shape}"
        )
    u, s, v = _decomposed(operator) if dense or count == side else _iterated(operator, count, which)
    order = np.argsort(s)[::-1][:count] if which == "largest" else np.argsort(s)[:count]
    if not vectors:
        return s[order]
    spaces = (operator.out_space, u.T[order]), (operator.in_space, v[order])
    left, right = (space.pack([ops.convert_to_numpy(leaf) for leaf in space.split(rows)]) for space, rows in spaces)
    return left, s[order], right


def _decomposed(operator: LinearMap) -> tuple[Array, Array, Array]:
    matrix = matrix_of(operator, math.prod(operator.shape)).astype("float64")
    _check_finite(operator, matrix)
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    return u, s, v


def _check_finite(operator: LinearMap, numbers: Array) -> None:
    if not np.isfinite(numbers).all():
        raise KerasAdjointError(
            f"An operator with NaN or infinity has no singular values. Look at the weights of the layers it is made of. "
            f"Received: {operator!r}"
        )


def _iterated(operator: LinearMap, count: int, which: str) -> tuple[Array, Array, Array]:
    if which == "smallest":
        raise KerasAdjointError(
            f"The smallest singular values of an operator do not converge in reasonable time without its matrix. Take a "
            f"smaller `size`, at which the smaller side of the matrix has at most {DENSE_SIDE} numbers; `norm` and `bound` "
            f"give the largest one at every size. Received: {operator!r}, of shape {operator.shape}"
        )
    linalg, linear = imported("scipy.sparse.linalg", "`singular_values`"), to_scipy(operator)
    (rows, columns), side = operator.shape, min(operator.shape)
    start = np.random.default_rng(0).standard_normal(side).astype(linear.dtype)
    image = linear.matvec(start) if columns == side else linear.rmatvec(start)
    _check_finite(operator, image)
    if not image.any():  # almost surely of zero alone, whose singular vectors are any
        return np.eye(rows, count), np.zeros(count, linear.dtype), np.eye(count, columns)
    try:
        u, s, v = linalg.svds(linear, k=count, which="LM", v0=start)
    except linalg.ArpackError as error:
        raise KerasAdjointError(
            f"The {count} largest singular values did not converge. Ask for fewer. Received: {error}"
        ) from error
    # ARPACK iterates on AᵀA, in which small singular values are lost in the rounding of the largest.
    residuals = np.linalg.norm(linear.rmatmat(u) - v.T * s, axis=0)
    resolved = int(np.sum(residuals <= RESIDUAL * s))
    if resolved < count:
        raise KerasAdjointError(
            f"Of the {count} largest singular values, {resolved} can be told from rounding. Ask for fewer. Received: "
            f"count={count}, {operator!r}, of shape {operator.shape}"
        )
    return u, s, v
