"""Proximal operators, in a table: prox(x, t) is the z that minimises ½‖z − x‖² + t·R(z), for every sample of a batch."""

from collections.abc import Callable
from dataclasses import dataclass

from keras import ops

from keras_adjoint.errors import one_of
from keras_adjoint.ops import Tensor
from keras_adjoint.solvers.total_variation import INNER_STEPS, Differences, spatial_axes

Prox = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Details:
    """What some of the penalties are further determined by.

    Attributes:
        lower: The smallest number in the box.
        upper: The largest one.
        data_format: Where the channels are, along which there is no variation.
        inner_steps: Steps of the iteration by which the total variation is lowered.
    """

    lower: float = 0.0
    upper: float = 1.0
    data_format: str = "channels_last"
    inner_steps: int = INNER_STEPS

    def differences(self, x: Tensor) -> Differences:
        """The discrete gradient of batches like x."""
        return Differences(spatial_axes(len(x.shape), self.data_format))


@dataclass(frozen=True)
class Proximal:
    """A penalty R and its proximal operator.

    Attributes:
        name: What options call it.
        prox: (x, t, details) ↦ z, for a scalar t that is not negative, or one that broadcasts to x.
        penalty: (x, details) ↦ R(x), one number for each sample.
        takes: The options of `unroll` that determine it. A weight does not where R is 0 or infinite.
    """

    name: str
    prox: Callable[[Tensor, Tensor, Details], Tensor]
    penalty: Callable[[Tensor, Details], Tensor]
    takes: tuple[str, ...]

    @property
    def is_scaled(self) -> bool:
        """Whether t makes a difference."""
        return "weight" in self.takes


def soft(x: Tensor, t: Tensor, details: Details) -> Tensor:
    """Every number closer to zero by t, but not beyond it."""
    return ops.relu(x - t) - ops.relu(-x - t)


def soft_nonnegative(x: Tensor, t: Tensor, details: Details) -> Tensor:
    """Every number smaller by t, but not below zero."""
    return ops.relu(x - t)


def nonnegative(x: Tensor, t: Tensor, details: Details) -> Tensor:
    """Zero for negative numbers."""
    return ops.relu(x)


def box(x: Tensor, t: Tensor, details: Details) -> Tensor:
    """The nearest numbers between the limits."""
    lower, upper = (ops.convert_to_tensor(limit, x.dtype) for limit in (details.lower, details.upper))
    return ops.clip(x, lower, upper)


def total_variation(x: Tensor, t: Tensor, details: Details) -> Tensor:
    """Smoother, with edges that stay."""
    return details.differences(x).prox(x, t, details.inner_steps)


def _sum(x: Tensor) -> Tensor:
    return ops.sum(x, axis=tuple(range(1, len(x.shape))))


def _infinite_outside(x: Tensor, lower: float, upper: float) -> Tensor:
    outside = _sum(ops.cast((x < lower) | (x > upper), x.dtype)) > 0
    return ops.where(outside, ops.cast(float("inf"), x.dtype), ops.cast(0.0, x.dtype))


def _infinite_below_zero(x: Tensor) -> Tensor:
    return _infinite_outside(x, 0.0, _INFINITE)


_INFINITE = float("inf")
_WEIGHTED, _LIMITED, _SPATIAL = ("weight",), ("lower", "upper"), ("data_format", "inner_steps")
PROXIMALS = {
    each.name: each
    for each in (
        #        name                prox              R(x)                                               takes
        Proximal("soft", soft, lambda x, _: _sum(ops.abs(x)), _WEIGHTED),
        Proximal("soft_nonnegative", soft_nonnegative, lambda x, _: _sum(x) + _infinite_below_zero(x), _WEIGHTED),
        Proximal("nonnegative", nonnegative, lambda x, _: _infinite_below_zero(x), ()),
        Proximal("box", box, lambda x, at: _infinite_outside(x, at.lower, at.upper), _LIMITED),
        Proximal("tv", total_variation, lambda x, at: at.differences(x).value(x), (*_WEIGHTED, *_SPATIAL)),
    )
}


def proximal(name: str, details: Details | None = None) -> Prox:
    """The proximal operator of this name as a function of (x, t).

    Raises:
        ValueError: If there is none.
    """
    found = PROXIMALS[one_of("prox", name, PROXIMALS)]
    at = Details() if details is None else details
    return lambda x, t: found.prox(x, t, at)
