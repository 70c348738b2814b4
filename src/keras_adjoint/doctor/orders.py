"""The words in which the doctor speaks of kernels: how they are read, and in which order their axes are.

A kernel of shape (*taps, I, O) can be flipped along its taps, have its spatial axes in reverse order (H and W swapped),
and have its channels swapped. A matrix is a kernel without taps, and swapping its channels is its transpose.
"""

from itertools import combinations
from typing import Literal, TypeAlias

Role = Literal["forward", "backward"]

FORWARD: Role = "forward"  # shape (*taps, I, O), from I channels per group to O
BACKWARD: Role = "backward"  # the same shape, from O channels to I: what a transposed convolution does

Order: TypeAlias = tuple[str, ...]  # kinds of `transpose_kernel`, one after the other
Meaning = Literal["copy", "adjoint", "wrong"]

LAYOUTS = {2: "IO", 3: "WIO", 4: "HWIO", 5: "DHWIO"}

COPY: Meaning = "copy"  # the same operator once more
ADJOINT: Meaning = "adjoint"  # the kernel of the adjoint, for the layer that holds it
WRONG: Meaning = "wrong"  # neither, although the values are the same

KINDS = ("flip", "swap_spatial", "swap_channels")
ALL: list[Order] = [kinds for count in range(len(KINDS) + 1) for kinds in combinations(KINDS, count)]
WORDS = {"flip": "flipped", "swap_spatial": "H and W swapped", "swap_channels": "channels swapped"}

UNCHANGED: Order = ()
ADJOINT_ORDER: Order = ("flip", "swap_channels")  # what a plain convolution needs in order to compute the adjoint


def in_words(kinds: Order, axes: int = 4) -> str:
    """An order of a kernel with so many axes as people say it."""
    if axes == 2 and kinds:
        return "transposed"
    return " and ".join(WORDS[kind] for kind in kinds) or "unchanged"
