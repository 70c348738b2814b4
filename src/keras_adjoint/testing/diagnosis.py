"""What is probably wrong with an operator that fails the adjoint test: each known mistake is corrected and tested again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, product

import keras
import numpy as np

from keras_adjoint.keras_internals import stored_kernel
from keras_adjoint.layers.kernel import read_kernel
from keras_adjoint.layers.tied import Tied
from keras_adjoint.ops import Shape
from keras_adjoint.ops.dot_test import evaluate, random_probe, residual_of
from keras_adjoint.testing.pairs import Array, Operator, Pair

FARTHEST_SHIFT = 3
LARGEST_MATRIX = 4_000_000  # entries


@dataclass(frozen=True)
class Evidence:
    """A failed test: random x and y, A x and B y, and the residual that would pass."""

    pair: Pair
    x: Array
    y: Array
    forward_x: Array
    backward_y: Array
    dtype: str
    tolerance: float

    def passes(self, backward_y: Array | None, x: Array | None = None, forward_x: Array | None = None) -> bool:
        """Whether a corrected B y would pass."""
        if backward_y is None or backward_y.shape != self.x.shape:
            return False
        if x is None or forward_x is None:
            x, forward_x = self.x, self.forward_x
        return bool(residual_of(forward_x, self.y, x, backward_y) <= self.tolerance)

    @property
    def spatial_axes(self) -> tuple[int, ...]:
        """Axes of x and y that a kernel moves along: the last axis holds channels, unless a layer says otherwise."""
        layer = self.pair.forward_layer or self.pair.backward_layer
        first = 2 if getattr(layer, "data_format", None) == "channels_first" else 1
        return tuple(range(first, first + self.x.ndim - 2))


def diagnose(
    pair: Pair, shape: Shape, output_shape: Shape, dtype: str, tolerance: float, generator: np.random.Generator
) -> str:
    """One line that names the likely mistake."""
    x, y = random_probe(shape, dtype, generator), random_probe(output_shape, dtype, generator)
    backward_y = pair.backward(y)
    if backward_y.shape != x.shape:
        return f"wrong size: B returns {backward_y.shape} where x has {x.shape}"
    evidence = Evidence(pair, x, y, pair.forward(x), backward_y, dtype, tolerance)
    for mistake in MISTAKES:
        found = mistake(evidence)
        if found:
            return found
    return "no known mistake explains it: B uses another kernel (a stale copy?) or another operator"


def quantised(evidence: Evidence) -> str | None:
    """An int8 layer rounds its inputs, and its adjoint, which reads the dequantised kernel, does not."""
    for layer in (evidence.pair.forward_layer, evidence.pair.backward_layer):
        owner = layer.source if isinstance(layer, Tied) else layer
        mode = getattr(owner, "quantization_mode", None)
        if owner is not None and mode is not None:
            return f"quantised: `{owner.name}` rounds to {mode}, so it is linear only up to that"
    return None


def not_linear(evidence: Evidence) -> str | None:
    """An activation breaks additivity, a bias moves zero."""
    for name, operator, x in (("A", evidence.pair.forward, evidence.x), ("B", evidence.pair.backward, evidence.y)):
        zero, once, twice = operator(np.zeros_like(x)), operator(x), operator(-x)
        scale = np.abs(once).max() or 1.0
        if np.abs(once + twice - 2 * zero).max() > 1e3 * evidence.tolerance * scale:
            return f"activation left in: {name} is not linear"
        if np.abs(zero).max() > 1e3 * evidence.tolerance * scale:
            return f"bias left in: {name} does not map zero to zero"
    return None


def scaled(evidence: Evidence) -> str | None:
    """B = c Aᵀ."""
    wanted, found = np.vdot(evidence.forward_x, evidence.y), np.vdot(evidence.x, evidence.backward_y)
    if found == 0:
        return "scaled by a constant: B returns zero"
    factor = found / wanted
    generator = np.random.default_rng(1)
    x, y = (random_probe(array.shape, evidence.dtype, generator) for array in (evidence.x, evidence.y))
    if residual_of(evidence.pair.forward(x), y, x, evidence.pair.backward(y) / factor) <= evidence.tolerance / abs(
        factor
    ):
        return f"scaled by a constant: B is {factor:.4g} times the adjoint"
    return None


def shifted(evidence: Evidence) -> str | None:
    """B = shift · Aᵀ. Zeros around x keep what B lost at the edges out of the comparison."""
    axes = [axis for axis in evidence.spatial_axes if evidence.x.shape[axis] > 2 * FARTHEST_SHIFT]
    inner = np.zeros_like(evidence.x)
    core = tuple(
        slice(FARTHEST_SHIFT, -FARTHEST_SHIFT) if axis in axes else slice(None) for axis in range(evidence.x.ndim)
    )
    inner[core] = evidence.x[core]
    forward_x = evidence.pair.forward(inner)
    steps = range(-FARTHEST_SHIFT, FARTHEST_SHIFT + 1)
    for shift in sorted(product(steps, repeat=len(axes)), key=lambda shift: sum(map(abs, shift))):
        moved = np.roll(evidence.backward_y, [-step for step in shift], axes)
        if any(shift) and evidence.passes(moved, inner, forward_x):
            along = ", ".join(f"{step:+d} along axis {axis}" for step, axis in zip(shift, axes, strict=True) if step)
            return f"shifted by pixels: {along}"
    return None


def kernel_of(layer: keras.layers.Layer) -> keras.Variable | None:
    """The variable of the one kernel that a layer reads; `None` if there is none to exchange."""
    return stored_kernel(layer.source if isinstance(layer, Tied) else layer)


def _with_kernel(evidence: Evidence, variable: keras.Variable, value: Array) -> Array:
    """B y with another value in a kernel variable, which itself stays as it is."""
    value = keras.ops.convert_to_tensor(value, variable.dtype)
    with keras.StatelessScope(state_mapping=[(variable, value)]):
        return evaluate(evidence.pair.backward_layer, evidence.y, evidence.dtype)


REARRANGEMENTS: dict[str, Callable[[Array], Array | None]] = {
    "H and W swapped": lambda k: np.swapaxes(k, 0, 1) if k.ndim == 4 and k.shape[0] == k.shape[1] else None,
    "kernel flipped": lambda k: np.flip(k, tuple(range(k.ndim - 2))) if k.ndim > 2 else None,
    "channels swapped": lambda k: np.swapaxes(k, -1, -2) if k.shape[-1] == k.shape[-2] else None,
}
COMBINATIONS = list(chain.from_iterable(combinations(REARRANGEMENTS, n) for n in (1, 2, 3)))


def rearranged(kernel: Array, names: Sequence[str]) -> Array | None:
    """A kernel after rearrangements, or `None` where its shape does not allow one of them."""
    result: Array | None = kernel
    for name in names:
        result = None if result is None else REARRANGEMENTS[name](result)
    return result


def kernel_rearranged(evidence: Evidence) -> str | None:
    """B is a layer whose kernel, rearranged, gives Aᵀ."""
    variable = kernel_of(evidence.pair.backward_layer) if evidence.pair.backward_layer is not None else None
    if variable is None:
        return None
    kernel = keras.ops.convert_to_numpy(variable)
    for names in COMBINATIONS:
        candidate = rearranged(kernel, names)
        if candidate is not None and evidence.passes(_with_kernel(evidence, variable, candidate)):
            return f"{' and '.join(names)}: B's kernel is arranged for another operator"
    return None


def kernel_stale(evidence: Evidence) -> str | None:
    """B is a layer that gives Aᵀ with A's present kernel."""
    if evidence.pair.forward_layer is None or evidence.pair.backward_layer is None:
        return None
    variable, source = kernel_of(evidence.pair.backward_layer), evidence.pair.forward_layer
    if variable is None or kernel_of(source) is None or kernel_of(source) is variable:
        return None
    present = keras.ops.convert_to_numpy(read_kernel(source))
    for names in [(), *COMBINATIONS]:
        candidate = rearranged(present, names)
        if candidate is None or candidate.shape != tuple(variable.shape):
            continue
        if evidence.passes(_with_kernel(evidence, variable, candidate)):
            return "stale kernel: B holds a copy of an earlier kernel of A"
    return None


def matrix_rearranged(evidence: Evidence) -> str | None:
    """A and B are functions whose matrices are small enough to be compared under each rearrangement of a kernel."""
    x_shape, y_shape = evidence.x.shape[1:], evidence.y.shape[1:]
    if np.prod(x_shape) * np.prod(y_shape) > LARGEST_MATRIX or len(x_shape) < 2:
        return None
    a = _matrix(evidence.pair.forward, x_shape).reshape(*x_shape, *y_shape)
    b = _matrix(evidence.pair.backward, y_shape).reshape(*y_shape, *x_shape)
    wanted = np.moveaxis(a, range(len(x_shape), a.ndim), range(len(y_shape)))
    rank = len(x_shape)
    for names in COMBINATIONS:
        candidate: Array | None = b
        for name in names:
            candidate = None if candidate is None else _CONJUGATIONS[name](candidate, rank)
        if candidate is None or candidate.shape != wanted.shape:
            continue
        if np.abs(candidate - wanted).max() <= 1e3 * evidence.tolerance * np.abs(wanted).max():
            return f"{' and '.join(names)}: B's kernel is arranged for another operator"
    return None


# What a rearranged kernel does to the entries [y sizes, y channels, x sizes, x channels] of a matrix.
_CONJUGATIONS: dict[str, Callable[[Array, int], Array | None]] = {
    "H and W swapped": lambda m, rank: np.swapaxes(np.swapaxes(m, 0, 1), rank, rank + 1) if rank == 3 else None,
    "kernel flipped": lambda m, rank: np.flip(m, (*range(rank - 1), *range(rank, 2 * rank - 1))),
    "channels swapped": lambda m, rank: np.swapaxes(m, rank - 1, 2 * rank - 1),
}


def _matrix(operator: Operator, shape: Shape) -> Array:
    """Values of an operator on the identity basis, one row per basis element."""
    size = int(np.prod(shape))
    return operator(np.eye(size).reshape(size, *shape))


MISTAKES = (quantised, not_linear, scaled, kernel_rearranged, kernel_stale, matrix_rearranged, shifted)
