"""The largest norm of a convolution's symbol, from a grid that is made closer where the norm is large.

Every frequency is nearest to one point of the grid, and belongs to its cell. With the factor c of the grid (see `symbol`),
‖F(ω)‖² at the point whose cell holds the maximum is at least max ‖F‖² / c. If that cell is one of those that are divided, into
halves along every axis, the same holds for one of the new points and the smaller factor of their distance. So max ‖F‖² is at
most the largest of

    ‖F(ω)‖² · factor of its level

over the points whose cells were not divided. At every level, the cells with the largest norms are.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from keras import ops

from keras_adjoint.operators.symbol import Grid
from keras_adjoint.ops import Tensor

DIVIDED = (80, 32, 16)  # cells at each level


@dataclass(frozen=True)
class Peak:
    """Where the symbol is largest.

    Attributes:
        squared: A number that is not below ‖F‖² anywhere.
        deciding: The frequency from which that number is taken, of shape `(axes,)`.
        highest: The frequency with the largest norm that was found, of shape `(axes,)`.
    """

    squared: Tensor
    deciding: Tensor
    highest: Tensor


def peak_of(grid: Grid, norms: Tensor, norms_at: Callable[[Tensor], Tensor]) -> Peak:
    """The largest norm of a symbol.

    Args:
        grid: The grid to begin with.
        norms: ‖F‖² at its points.
        norms_at: ‖F‖² at other points, of shape `(points, axes)`.
    """
    points = ops.convert_to_tensor(grid.values, norms.dtype)
    squared, places = [], []
    levels = DIVIDED if grid.is_coarse else ()
    for level, most in enumerate(levels):
        count = min(most, points.shape[0])
        values, order = ops.top_k(norms, min(count + 1, points.shape[0]))
        if points.shape[0] > count:
            squared.append(values[count] * grid.factor(level))
            places.append(points[order[count]])
        halves = ops.convert_to_tensor(_halves(grid, level), norms.dtype)
        points = ops.reshape(ops.take(points, order[:count], axis=0)[:, None] + halves, (-1, len(grid.axes)))
        norms = norms_at(points)
    highest = points[ops.argmax(norms, axis=0)]
    squared.append(ops.max(norms) * grid.factor(len(levels)))
    places.append(highest)
    decides = ops.argmax(ops.stack(squared), axis=0)
    return Peak(ops.stack(squared)[decides], ops.stack(places)[decides], highest)


def _halves(grid: Grid, level: int) -> np.ndarray:
    """From a point to the new points of its cell: a quarter of its width to either side, along every axis that is coarse."""
    quarters = [np.pi / len(axis.values) / 2 ** (level + 1) if axis.is_coarse else 0.0 for axis in grid.axes]
    return np.array(list(product(*((-quarter, quarter) if quarter else (0.0,) for quarter in quarters))))
