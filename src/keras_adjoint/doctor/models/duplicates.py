"""Kernels that hold the same values.

Chance does not make two kernels equal, but initializers may. So a kernel proves nothing if it has fewer than
`MIN_DISTINCT` different numbers, as zeros, ones, identities and small fixed filters have, and two prove nothing if their
initializers give the same numbers again from their seeds. An initializer object without a seed that was given to several
layers draws the same numbers for all of them, and the file does not tell; but it tells whether the model was ever trained.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import keras
import numpy as np

from keras_adjoint.doctor.models.kernels import Kernel
from keras_adjoint.doctor.models.orders import meaning, order_between
from keras_adjoint.doctor.orders import Meaning, Order
from keras_adjoint.keras_internals import own_variables

MIN_DISTINCT = 8
CONSTANT = (keras.initializers.Zeros, keras.initializers.Ones)


@dataclass(frozen=True, eq=False)
class Duplicate:
    """A kernel that holds the values of an earlier one.

    Attributes:
        first: The earlier kernel.
        second: The duplicate.
        order: The kinds of `transpose_kernel` that lead from the first to the second.
    """

    first: Kernel
    second: Kernel
    order: Order

    @property
    def meaning(self) -> Meaning:
        return meaning(self.first, self.second, self.order)


def find_duplicates(kernels: Iterable[Kernel]) -> Iterator[Duplicate]:
    """Every kernel whose values an earlier one holds, with that one."""
    alike: defaultdict[tuple[int, str, int, int], list[Kernel]] = defaultdict(list)
    for kernel in kernels:
        alike[fingerprint(kernel.read())].append(kernel)
    for group in alike.values():
        if len(group) > 1 and is_distinctive(group[0].read()):
            yield from duplicates_among(group)


def duplicates_among(group: list[Kernel]) -> Iterator[Duplicate]:
    for number, second in enumerate(group):
        for first in group[:number]:
            order = None if first.is_constant else order_between(first, second)
            if order is not None:
                if not (is_seeded(first) and is_seeded(second)):
                    yield Duplicate(first, second, order)
                break


def fingerprint(array: np.ndarray) -> tuple[int, str, int, int]:
    """The same for all arrays of the same numbers, in whatever order they are."""
    words = np.ascontiguousarray(array).view(f"u{array.itemsize}").reshape(-1)
    return array.size, array.dtype.str, int(words.sum(dtype="uint64")), int(np.bitwise_xor.reduce(words))


def is_distinctive(array: np.ndarray) -> bool:
    """Whether an array has numbers enough for two of its kind not to be equal by chance or by design."""
    some = array.reshape(-1)[:10_000]
    return len(np.unique(some)) >= MIN_DISTINCT or len(np.unique(array)) >= MIN_DISTINCT


def is_seeded(kernel: Kernel) -> bool:
    """Whether the kernel is what its initializer makes of its seed."""
    initializer = getattr(kernel.owner, f"{kernel.name}_initializer", None)
    if initializer is None or not isinstance(getattr(initializer, "seed", None), int):
        return False
    fresh = keras.ops.convert_to_numpy(initializer(tuple(kernel.values.shape), dtype=kernel.values.dtype))
    return np.array_equal(fresh, keras.ops.convert_to_numpy(kernel.values))


def was_trained(layers: Iterable[tuple[str, keras.layers.Layer]]) -> bool | None:
    """Whether biases and the like have moved from the zeros and ones that they begin with; `None` if there are none."""
    moved = [
        bool(np.any(keras.ops.convert_to_numpy(variable) != start))
        for _, layer in layers
        if not hasattr(layer, "unit_forget_bias")  # which begins with other numbers than its initializer gives
        for variable in own_variables(layer)
        for start in constant_start(layer, variable)
    ]
    return any(moved) if moved else None


def constant_start(layer: keras.layers.Layer, variable: keras.Variable) -> Iterator[float]:
    """The constant that a variable began with, or nothing."""
    initializer = getattr(layer, f"{variable.name}_initializer", None)
    if isinstance(initializer, CONSTANT):
        yield float(isinstance(initializer, keras.initializers.Ones))
