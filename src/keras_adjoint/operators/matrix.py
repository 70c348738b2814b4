"""The matrix of an operator, by its unit vectors."""

from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_adjoint.errors import SizeError
from keras_adjoint.operators.linear_map import LinearMap
from keras_adjoint.operators.on_host import on_host

AT_ONCE = 2**24  # numbers of the results that are in memory together


def matrix_of(linear: LinearMap, most_numbers: int) -> NDArray[Any]:
    """See `Operator.to_matrix`."""
    rows, columns = linear.shape
    if rows * columns > most_numbers:
        raise SizeError(
            f"The matrix would have {rows} × {columns} = {rows * columns} numbers, more than `most_numbers`. Apply the "
            f"operator instead (`A @ x`), or raise the limit. Received: most_numbers={most_numbers}, {linear!r}"
        )
    wide = rows < columns  # the fewer unit vectors, the sooner
    narrow, count = (linear.T, rows) if wide else (linear, columns)
    found = np.empty((count, narrow.out_space.size), linear.precision)
    step = max(1, AT_ONCE // max(rows, columns))
    for start in range(0, count, step):
        units = np.eye(min(step, count - start), count, start, dtype=linear.precision)
        rows = narrow.apply_to_rows(ops.convert_to_tensor(units))
        found[start : start + step] = on_host(
            rows, "The matrix of an operator, which its singular values are taken from,"
        )
    return found if wide else found.T
