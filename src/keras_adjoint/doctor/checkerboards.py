"""Checkerboards: a stride that does not divide the kernel of a transposed convolution.

Output position p collects the taps t with t·dilation ≡ p modulo the stride. Where the stride does not divide the kernel,
some positions collect more taps than their neighbours, in the pattern of a checkerboard (Odena, Dumoulin and Olah 2016,
"Deconvolution and Checkerboard Artifacts").
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

NOTICEABLE = 1.1  # times as many taps as at a neighbour


@dataclass(frozen=True)
class Coverage:
    """The fewest and the most taps that an output position collects, away from the edges."""

    least: int
    most: int

    @property
    def is_even(self) -> bool:
        return self.least == self.most

    @property
    def ratio(self) -> float | None:
        """How many times more taps some positions collect than others; `None` if others collect none."""
        return self.most / self.least if self.least else None

    def __str__(self) -> str:
        if self.ratio is None:
            return f"some output positions collect taps, at most {self.most}, and others none, so that they hold the bias alone"
        if self.ratio < NOTICEABLE:
            return f"an output position collects between {self.least} and {self.most} taps, nearly as many as its neighbours"
        return (
            f"an output position collects between {self.least} and {self.most} taps, some {self.ratio:.3g} times as many as "
            f"their neighbours"
        )

    def figures(self) -> dict[str, Any]:
        return {"least_taps": self.least, "most_taps": self.most, "ratio": self.ratio}


def coverage(taps: Sequence[int], strides: Sequence[int], dilation: Sequence[int]) -> Coverage:
    """The `Coverage` of a kernel; one number per axis in each argument."""
    counts = [taps_by_phase(*axis) for axis in zip(taps, strides, dilation, strict=True)]
    return Coverage(*(math.prod(each) for each in zip(*counts, strict=True)))


def taps_by_phase(taps: int, stride: int, dilation: int) -> tuple[int, int]:
    """(fewest, most) taps that reach one of `stride` neighbouring output positions.

    Only every step-th position is reached at all, where the step is what stride and dilation have in common; among these
    the taps go round in turn.
    """
    step = math.gcd(stride, dilation)
    reached = stride // step
    return (taps // reached if step == 1 else 0), -(-taps // reached)


def even_taps(taps: Sequence[int], strides: Sequence[int]) -> tuple[int, ...]:
    """The smallest kernel that is no smaller than `taps` and that the strides divide."""
    return tuple(-(-count // stride) * stride for count, stride in zip(taps, strides, strict=True))
