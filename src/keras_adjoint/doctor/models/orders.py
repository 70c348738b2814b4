"""Which order of axes leads from one kernel to another, and what that makes of the second: a copy, an adjoint, or neither."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from keras_adjoint.doctor.models.kernels import Kernel
from keras_adjoint.doctor.orders import (
    ADJOINT,
    ADJOINT_ORDER,
    ALL,
    BACKWARD,
    COPY,
    FORWARD,
    LAYOUTS,
    UNCHANGED,
    WRONG,
    Meaning,
    Order,
)
from keras_adjoint.kernels.layouts import transpose_kernel
from keras_adjoint.ops.dot_test import evaluate, random_probe
from keras_adjoint.testing.check import check_adjoint


def meanings(first: Kernel, second: Kernel) -> dict[Order, Meaning]:
    """What the values of `first` mean in the place of `second`, by order; every other order is `WRONG`."""
    if first.role is None or second.role is None:
        return {UNCHANGED: COPY, ("swap_channels",): COPY}
    return (
        {UNCHANGED: COPY, ADJOINT_ORDER: ADJOINT}
        if first.role == second.role
        else {UNCHANGED: ADJOINT, ADJOINT_ORDER: COPY}
    )


def meaning(first: Kernel, second: Kernel, order: Order) -> Meaning:
    """`COPY`, `ADJOINT` or `WRONG`, for an order that leads from `first` to `second`."""
    found = meanings(first, second).get(order, WRONG)
    # Transposed layers have no groups, so that the kernel of a grouped convolution is another operator in them.
    return WRONG if found == ADJOINT and first.groups > 1 and second.role == BACKWARD else found


def has_channels_of_adjoint(first: Kernel, second: Kernel, order: Order) -> bool:
    """Whether `second` takes as many channels as `first` makes and makes as many as `first` takes."""
    *_, inputs, filters = first.read().shape
    return inputs * first.groups == filters or ("swap_channels" in order) == (first.role == second.role)


def order_between(first: Kernel, second: Kernel) -> Order | None:
    """The kinds of `transpose_kernel` that lead from one kernel to the other; `None` if none do.

    Several orders may give a symmetric kernel. Copies and adjoints are tried first.
    """
    good = list(meanings(first, second))
    unknown = first.role is None or second.role is None
    source, target = first.read(), second.read()
    for kinds in good if unknown else [*good, *(kinds for kinds in ALL if kinds not in good)]:
        candidate = rearranged(source, kinds, first.groups)
        if candidate is not None and candidate.shape == target.shape and np.array_equal(candidate, target):
            return kinds
    return None


def rearranged(kernel: np.ndarray, kinds: Order, groups: int = 1) -> np.ndarray | None:
    """A kernel in another order; `None` where it has axes without names."""
    if kinds and (kernel.ndim not in LAYOUTS or kernel.shape[-1] % groups):
        return None
    for kind in kinds:
        kernel = transpose_kernel(kernel, kind, layout=LAYOUTS[kernel.ndim], groups=groups)
    return kernel


# --- how far an order is from the adjoint's
#
# Layers around the two kernels may have strides, paddings and sizes that do not fit each other. What the order alone does
# shows where everything fits: in convolutions at stride 1 that keep their size. There the adjoint of one is another one,
# with the kernel flipped, its channels swapped, and its zeros on the other side, so that plain convolutions are enough:
# A reads its own kernel in that order or unchanged, and B whatever was found.

SMALLEST_SIZE = 16
DTYPE = "float32"


@dataclass(frozen=True)
class Deviation:
    """What B computes instead of the adjoint of A.

    Attributes:
        residual: |⟨A x, y⟩ − ⟨x, B y⟩| / (‖A x‖ ‖y‖).
        tolerance: What rounding explains of it.
        relative: ‖B y − Aᵀ y‖ / ‖Aᵀ y‖.
    """

    residual: float
    tolerance: float
    relative: float

    def __str__(self) -> str:
        return (
            f"its residual is {self.residual:.1e}, where rounding explains {self.tolerance:.1e}, and what it returns is "
            f"{self.relative:.0%} of the adjoint's size away from the adjoint"
        )

    def figures(self) -> dict[str, float]:
        return {"residual": self.residual, "tolerance": self.tolerance, "relative_error": self.relative}


def deviation(first: Kernel, second: Kernel) -> Deviation:
    """How far the second kernel is from the adjoint of the first one's operator."""
    ours = first.read().astype(DTYPE)
    theirs = second.read().astype(DTYPE)
    after = first.role != FORWARD  # whether the first one's zeros lie as those of a transposed convolution
    forward = Plain(ours if first.role == FORWARD else rearranged(ours, ADJOINT_ORDER, first.groups), after)
    adjoint = Plain(rearranged(ours, ADJOINT_ORDER, first.groups) if first.role == FORWARD else ours, not after)
    found = Plain(theirs if second.role == FORWARD else rearranged(theirs, ADJOINT_ORDER, second.groups), not after)
    channels = ours.shape[-2] * first.groups if first.role == FORWARD else ours.shape[-1]

    def backward(y: Any) -> Any:
        x = found(y)
        return ops.tile(x, (*(1 for _ in x.shape[1:]), channels // x.shape[-1]))

    sizes = [max(SMALLEST_SIZE, 2 * taps) for taps in ours.shape[:-2]]
    report = check_adjoint(forward, backward, input_shape=(1, *sizes, channels))
    y = random_probe(report.output_shape, DTYPE, np.random.default_rng(0))
    wanted, found_y = evaluate(adjoint, y, DTYPE), evaluate(backward, y, DTYPE)
    relative = float(np.linalg.norm(found_y - wanted) / np.linalg.norm(wanted))
    return Deviation(report.residual, report.tolerance, relative)


class Plain:
    """The convolution with a kernel at stride 1 that keeps its size, the odd zero in front of the input or after it."""

    def __init__(self, kernel: np.ndarray | None, after: bool) -> None:
        assert kernel is not None  # kernels with a role have named axes
        pads = [((taps - 1) // 2, taps - 1 - (taps - 1) // 2) for taps in kernel.shape[:-2]]
        self.kernel = kernel
        self.pads = [pair[::-1] if after else pair for pair in pads]

    def __call__(self, x: Any) -> Any:
        kernel = ops.convert_to_tensor(self.kernel, x.dtype)
        if not self.pads:
            return ops.matmul(x, kernel)
        x = ops.pad(x, [(0, 0), *self.pads, (0, 0)])
        return ops.conv(x, kernel, padding="valid", data_format="channels_last")
