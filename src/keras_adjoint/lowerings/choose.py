"""Which lowering computes an adjoint convolution: a table that can be read, in order of preference."""

from collections.abc import Callable
from dataclasses import dataclass

from keras_adjoint.geometry import Axis
from keras_adjoint.lowerings import native, stuffed, subpixel
from keras_adjoint.lowerings.exporting import may_share


@dataclass(frozen=True)
class Convolution:
    """The forward whose adjoint is wanted: one `Axis` per spatial axis, and the number of groups."""

    axes: tuple[Axis, ...]
    groups: int = 1


@dataclass(frozen=True)
class Lowering:
    """One way to compute Aᵀ y: `apply(y, kernel, convolution)`, for convolutions that it `fits`."""

    name: str
    fits: Callable
    apply: Callable


LOWERINGS = (
    #        name        can it do this convolution?   how
    Lowering("subpixel", subpixel.fits, subpixel.apply),
    Lowering("stuffed", stuffed.fits, stuffed.apply),
)

# In a file that is exported, the operator that every format knows comes first.
EXPORTED = (Lowering("native", native.fits, native.apply), *LOWERINGS)


def choose(convolution, table=LOWERINGS):
    """The first lowering of the table that fits; the last one fits everything."""
    return next(lowering for lowering in table if lowering.fits(convolution))


def adjoint_convolution(y, kernel, convolution):
    """Aᵀ y, where A is the convolution with `kernel`.

    Args:
        y: Tensor of shape `(batch, *outputs, filters)`.
        kernel: The forward's kernel, of shape `(*taps, channels / groups, filters)`.
        convolution: The forward's geometry.

    Returns:
        A tensor of shape `(batch, *sizes, channels)`.
    """
    table = EXPORTED if may_share(kernel) else LOWERINGS
    return choose(convolution, table).apply(y, kernel, convolution)
