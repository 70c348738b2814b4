"""Kernels that hold the same numbers.

Chance does not make two kernels equal, but initialisers may. So a kernel says nothing if it has fewer than `TELLING`
different numbers, as zeros, ones, identities and small fixed filters have, and two say nothing if their initialisers
give the same numbers again from their seeds. An initialiser object without a seed that was given to several layers
draws the same numbers for all of them, and the file does not tell; but it tells whether the model was ever trained.
"""

from collections import defaultdict
from dataclasses import dataclass

import keras
import numpy as np

from keras_adjoint.doctor.models.arrangements import arrangement_between, meaning
from keras_adjoint.doctor.models.kernels import Kernel
from keras_adjoint.keras_internals import own_variables

TELLING = 8
CONSTANT = (keras.initializers.Zeros, keras.initializers.Ones)


@dataclass(frozen=True, eq=False)
class Twins:
    """Two kernels of the same numbers."""

    first: Kernel
    second: Kernel
    arrangement: tuple  # kinds of `transpose_kernel` that lead from the first to the second

    @property
    def meaning(self):
        return meaning(self.first, self.second, self.arrangement)


def find_twins(kernels):
    """Every kernel whose numbers an earlier one holds, with that one."""
    alike = defaultdict(list)
    for kernel in kernels:
        alike[fingerprint(kernel.read())].append(kernel)
    for group in alike.values():
        if len(group) > 1 and tells(group[0].read()):
            yield from twins_among(group)


def twins_among(group):
    for number, second in enumerate(group):
        for first in group[:number]:
            arrangement = None if first.is_constant else arrangement_between(first, second)
            if arrangement is not None:
                if not (is_seeded(first) and is_seeded(second)):
                    yield Twins(first, second, arrangement)
                break


def fingerprint(array):
    """The same for all arrays of the same numbers, in whatever order they are."""
    words = np.ascontiguousarray(array).view(f"u{array.itemsize}").reshape(-1)
    return array.size, array.dtype.str, int(words.sum(dtype="uint64")), int(np.bitwise_xor.reduce(words))


def tells(array):
    """Whether an array has numbers enough for two of its kind not to be equal by chance or by design."""
    some = array.reshape(-1)[:10_000]
    return len(np.unique(some)) >= TELLING or len(np.unique(array)) >= TELLING


def is_seeded(kernel):
    """Whether the kernel is what its initialiser makes of its seed."""
    initializer = getattr(kernel.owner, f"{kernel.name}_initializer", None)
    if not isinstance(getattr(initializer, "seed", None), int):
        return False
    fresh = keras.ops.convert_to_numpy(initializer(tuple(kernel.values.shape), dtype=kernel.values.dtype))
    return np.array_equal(fresh, keras.ops.convert_to_numpy(kernel.values))


def trained(layers):
    """Whether biases and the like have moved from the zeros and ones that they begin with; `None` if there are none."""
    moved = [
        bool(np.any(keras.ops.convert_to_numpy(variable) != start))
        for _, layer in layers
        if not hasattr(layer, "unit_forget_bias")  # which begins with other numbers than its initialiser gives
        for variable in own_variables(layer)
        for start in constant_start(layer, variable)
    ]
    return any(moved) if moved else None


def constant_start(layer, variable):
    """The constant that a variable began with, or nothing."""
    initializer = getattr(layer, f"{variable.name}_initializer", None)
    if isinstance(initializer, CONSTANT):
        yield float(isinstance(initializer, keras.initializers.Ones))
