"""Which rearrangement leads from one kernel to another, and what that makes of the second: a copy, an adjoint, or neither.

A kernel of shape (*taps, I, O) can be flipped along its taps, have its spatial axes in reverse order (H and W swapped),
and have its channels swapped. A matrix is a kernel without taps, and swapping its channels is its transpose.
"""

from itertools import combinations

import numpy as np

from keras_adjoint.doctor.models.kernels import BACKWARD
from keras_adjoint.kernels.layouts import transpose_kernel

LAYOUTS = {2: "IO", 3: "WIO", 4: "HWIO", 5: "DHWIO"}

COPY = "copy"  # the same operator once more
ADJOINT = "adjoint"  # the kernel of the adjoint, for the layer that holds it
WRONG = "wrong"  # neither, although the values are the same

KINDS = ("flip", "swap_spatial", "swap_channels")
ALL = [kinds for count in range(len(KINDS) + 1) for kinds in combinations(KINDS, count)]
WORDS = {"flip": "flipped", "swap_spatial": "H and W swapped", "swap_channels": "channels swapped"}

AS_IT_IS = ()
TURNED = ("flip", "swap_channels")  # what a plain convolution needs in order to compute the adjoint


def meanings(first, second):
    """What the values of `first` mean in the place of `second`, by arrangement; every other arrangement is `WRONG`."""
    if first.role is None or second.role is None:
        return {AS_IT_IS: COPY, ("swap_channels",): COPY}
    return {AS_IT_IS: COPY, TURNED: ADJOINT} if first.role == second.role else {AS_IT_IS: ADJOINT, TURNED: COPY}


def meaning(first, second, arrangement):
    """`COPY`, `ADJOINT` or `WRONG`, for an arrangement that leads from `first` to `second`."""
    found = meanings(first, second).get(arrangement, WRONG)
    # Transposed layers have no groups, so that the kernel of a grouped convolution is another operator in them.
    return WRONG if found == ADJOINT and first.groups > 1 and second.role == BACKWARD else found


def goes_back(first, second, arrangement):
    """Whether `second` takes what `first` makes and makes what `first` takes, as an adjoint does."""
    *_, inputs, filters = first.read().shape
    return inputs * first.groups == filters or ("swap_channels" in arrangement) == (first.role == second.role)


def arrangement_between(first, second):
    """The kinds of `transpose_kernel` that lead from one kernel to the other; `None` if none do.

    A symmetric kernel is reached in several ways. Those that mean something good are tried first.
    """
    good = list(meanings(first, second))
    unknown = first.role is None or second.role is None
    source, target = first.read(), second.read()
    for kinds in good if unknown else [*good, *(kinds for kinds in ALL if kinds not in good)]:
        candidate = rearranged(source, kinds, first.groups)
        if candidate is not None and candidate.shape == target.shape and np.array_equal(candidate, target):
            return kinds
    return None


def rearranged(kernel, kinds, groups=1):
    """A kernel after rearrangements; `None` where it has axes without names."""
    layout = LAYOUTS.get(kernel.ndim)
    if kinds and (layout is None or kernel.shape[-1] % groups):
        return None
    for kind in kinds:
        kernel = transpose_kernel(kernel, kind, layout=layout, groups=groups)
    return kernel


def in_words(kinds, axes=4):
    """An arrangement of a kernel with so many axes as people say it."""
    if axes == 2 and kinds:
        return "transposed"
    return " and ".join(WORDS[kind] for kind in kinds) or "as it is"
