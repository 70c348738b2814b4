"""Total variation: discrete gradients, their adjoint, and the proximal operator by its dual problem.

D x holds, at every position and for each of some axes, the difference to the next position, which is 0 at the end. The
isotropic total variation is the sum of the lengths |D x| over the positions, each channel by itself, and

    argmin ½‖z − x‖² + t·Σ|D z| = x − Dᵀ q,    where q minimises ½‖x − Dᵀ q‖² with |q| ≤ t everywhere

(Chambolle 2004), which is found by accelerated projected gradients (Beck and Teboulle 2009). ‖D‖² < 4 for each axis.
"""

from dataclasses import dataclass
from typing import Any

from keras import ops

from keras_adjoint.ops import Tensor
from keras_adjoint.solvers.momentum import following
from keras_adjoint.solvers.samples import maxima

INNER_STEPS = 20


def spatial_axes(rank: int, data_format: str) -> tuple[int, ...]:
    """The axes of a batch that are no channels; of rows of numbers the one that they are on."""
    if rank <= 2:
        return tuple(range(1, rank))
    return tuple(range(1, rank - 1) if data_format == "channels_last" else range(2, rank))


@dataclass(frozen=True)
class Differences:
    """D, on batches whose differences are taken along some axes."""

    axes: tuple[int, ...]

    @property
    def norm_squared(self) -> float:
        """A number that is not below ‖D‖²."""
        return 4.0 * max(1, len(self.axes))

    def forward(self, x: Tensor) -> Tensor:
        """D x, with one more axis at the end for the axes."""
        return ops.stack([_difference(x, axis) for axis in self.axes], axis=-1)

    def adjoint(self, q: Tensor) -> Tensor:
        """Dᵀ q."""
        parts = [_adjoint_difference(q[..., number], axis) for number, axis in enumerate(self.axes)]
        return sum(parts[1:], parts[0])

    def value(self, x: Tensor) -> Tensor:
        """The total variation of each sample."""
        return ops.sum(ops.sqrt(ops.sum(ops.square(self.forward(x)), axis=-1)), axis=tuple(range(1, len(x.shape))))

    def prox(self, x: Tensor, t: Tensor, steps: int = INNER_STEPS) -> Tensor:
        """argmin ½‖z − x‖² + t·Σ|D z|, by a fixed number of steps."""

        def step(_: Any, state: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
            q, ahead, momentum = state
            moved = within(ahead + self.forward(x - self.adjoint(ahead)) / self.norm_squared, t)
            momentum, factor = following(momentum)
            return moved, moved + factor * (moved - q), momentum

        q = ops.zeros_like(self.forward(x))
        q, *_ = ops.fori_loop(0, steps, step, (q, q, ops.ones((), q.dtype)))
        return x - self.adjoint(q)


def within(q: Tensor, t: Tensor) -> Tensor:
    """The nearest vectors, along the last axis, of a length of at most t."""
    # Relative to the largest number, which no square of is too small or too large.
    largest = maxima(ops.abs(q))
    largest = ops.stop_gradient(ops.where(largest > t, largest, t))  # PyTorch takes a `maximum` of float64 in float32
    largest = ops.where(largest > 0, largest, 1.0)
    squares, limit = ops.sum(ops.square(q / largest), axis=-1, keepdims=True), t / largest
    is_longer = squares > limit * limit
    return ops.where(is_longer, q * (limit / ops.sqrt(ops.where(is_longer, squares, 1.0))), q)


def _difference(x: Tensor, axis: int) -> Tensor:
    ahead, here = _cut(x, axis, slice(1, None)), _cut(x, axis, slice(None, -1))
    return ops.pad(ahead - here, _pads(x, axis, 0, 1))


def _adjoint_difference(q: Tensor, axis: int) -> Tensor:
    q = _cut(q, axis, slice(None, -1))
    return ops.pad(q, _pads(q, axis, 1, 0)) - ops.pad(q, _pads(q, axis, 0, 1))


def _cut(x: Tensor, axis: int, part: slice) -> Tensor:
    return x[(*(slice(None) for _ in range(axis)), part)]


def _pads(x: Tensor, axis: int, before: int, after: int) -> list[tuple[int, int]]:
    return [(before, after) if each == axis else (0, 0) for each in range(len(x.shape))]
