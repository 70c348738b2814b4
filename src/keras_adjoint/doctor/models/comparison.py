"""How far a rearranged kernel is from computing the adjoint.

Layers around the two kernels may have strides, paddings and sizes that do not fit each other. What the arrangement alone
does shows where everything fits: in convolutions at stride 1 that keep their size. There the adjoint of one is another
one, with the kernel flipped, its channels swapped, and its zeros on the other side, so that plain convolutions are all
it takes: A reads its own kernel that way or as it is, and B whatever was found.
"""

from dataclasses import dataclass

import numpy as np
from keras import ops

from keras_adjoint.doctor.models.arrangements import TURNED, rearranged
from keras_adjoint.doctor.models.kernels import FORWARD
from keras_adjoint.ops.dot_test import evaluate, random_probe
from keras_adjoint.testing.check import check_adjoint

SMALLEST_SIZE = 16
DTYPE = "float32"


@dataclass(frozen=True)
class Comparison:
    """What B computes in the place of the adjoint of A.

    Attributes:
        residual: |⟨A x, y⟩ − ⟨x, B y⟩| / (‖A x‖ ‖y‖).
        tolerance: What rounding explains of it.
        relative: ‖B y − Aᵀ y‖ / ‖Aᵀ y‖.
    """

    residual: float
    tolerance: float
    relative: float

    def __str__(self):
        return (
            f"its residual is {self.residual:.1e}, where rounding explains {self.tolerance:.1e}, and what it returns is "
            f"{self.relative:.0%} of the adjoint's size away from the adjoint"
        )

    def figures(self):
        return {"residual": self.residual, "tolerance": self.tolerance, "relative_error": self.relative}


def compare(first, second):
    """The `Comparison` of the second kernel with the adjoint of the first one's operator."""
    ours = first.read().astype(DTYPE)
    theirs = second.read().astype(DTYPE)
    behind = first.role != FORWARD  # whether the first one's zeros lie as those of a transposed convolution
    forward = plain(ours if first.role == FORWARD else rearranged(ours, TURNED, first.groups), behind)
    adjoint = plain(rearranged(ours, TURNED, first.groups) if first.role == FORWARD else ours, not behind)
    found = plain(theirs if second.role == FORWARD else rearranged(theirs, TURNED, second.groups), not behind)
    channels = ours.shape[-2] * first.groups if first.role == FORWARD else ours.shape[-1]

    def backward(y):
        x = found(y)
        return ops.tile(x, (*(1 for _ in x.shape[1:]), channels // x.shape[-1]))

    sizes = [max(SMALLEST_SIZE, 2 * taps) for taps in ours.shape[:-2]]
    report = check_adjoint(forward, backward, input_shape=(1, *sizes, channels))
    y = random_probe(report.output_shape, DTYPE, np.random.default_rng(0))
    wanted, found_y = evaluate(adjoint, y, DTYPE), evaluate(backward, y, DTYPE)
    relative = float(np.linalg.norm(found_y - wanted) / np.linalg.norm(wanted))
    return Comparison(report.residual, report.tolerance, relative)


def plain(kernel, behind):
    """The convolution with a kernel at stride 1 that keeps its size, the odd zero in front or behind."""
    pads = [((taps - 1) // 2, taps - 1 - (taps - 1) // 2) for taps in kernel.shape[:-2]]
    pads = [pair[::-1] if behind else pair for pair in pads]

    def convolve(x):
        if not pads:
            return ops.matmul(x, ops.convert_to_tensor(kernel, x.dtype))
        x = ops.pad(x, [(0, 0), *pads, (0, 0)])
        return ops.conv(x, ops.convert_to_tensor(kernel, x.dtype), padding="valid", data_format="channels_last")

    return convolve
