"""What is probably wrong with an operator that fails the adjoint test: each known mistake is corrected and tested again."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, product

import keras
import numpy as np

from keras_adjoint.keras_internals import stored_kernel
from keras_adjoint.layers.kernel import read_kernel
from keras_adjoint.layers.tied import Tied
from keras_adjoint.ops import Shape
from keras_adjoint.ops.dot_test import CLEARLY, evaluate, factor_of, residual_of
from keras_adjoint.testing.pairs import Array, Operator, Pair
from keras_adjoint.testing.probes import Probe

FARTHEST_SHIFT = 3
LARGEST_MATRIX = 4_000_000  # entries
NEARLY = (
    0.03  # relative to its size, how far from the adjoint an operator is that was merely rounded; bfloat16 has 0.004
)


@dataclass(frozen=True)
class Evidence:
    """A failed test: random x and y, A x and B y, what made x and y, and the residual that would pass."""

    pair: Pair
    of_x: Probe
    of_y: Probe
    x: Array
    y: Array
    forward_x: Array
    backward_y: Array
    dtype: str
    tolerance: float

    def passes(self, backward_y: Array | None, x: Array | None = None, forward_x: Array | None = None) -> bool:
        """Whether a corrected B y would pass, and is clearly nearer to the adjoint than B y."""
        if backward_y is None or backward_y.shape != self.x.shape:
            return False
        if x is None or forward_x is None:
            x, forward_x = self.x, self.forward_x
        residual = residual_of(forward_x, self.y, x, backward_y)
        if residual > self.tolerance:  # as of nearly all that are tried
            return False
        return residual <= CLEARLY * residual_of(forward_x, self.y, x, self.backward_y)

    def more(self, count: int) -> list[tuple[Array, Array, Array, Array]]:
        """So many other random pairs: x, y, A x and B y of each."""
        generator = np.random.default_rng(1)
        pairs = [(self.of_x.random(generator), self.of_y.random(generator)) for _ in range(count)]
        return [(x, y, self.pair.forward(x), self.pair.backward(y)) for x, y in pairs]

    @property
    def relative_tolerance(self) -> float:
        """The tolerance of single numbers of A x and B y, relative to the largest; that of a residual averages over them."""
        return self.tolerance * math.sqrt(self.y.size)

    @property
    def spatial_axes(self) -> tuple[int, ...]:
        """Axes of x and y that a kernel moves along: the last axis holds channels, unless a layer says otherwise."""
        layer = self.pair.forward_layer or self.pair.backward_layer
        first = 2 if getattr(layer, "data_format", None) == "channels_first" else 1
        return tuple(range(first, first + self.x.ndim - 2))


def diagnose(pair: Pair, of_x: Probe, of_y: Probe, dtype: str, tolerance: float, generator: np.random.Generator) -> str:
    """One line that names the likely mistake."""
    x, y = of_x.random(generator), of_y.random(generator)
    backward_y = pair.backward(y)
    if backward_y.shape != x.shape:
        return f"wrong size: B returns {backward_y.shape} where x has {x.shape}"
    tries = [(x, y, pair.forward(x), backward_y)]
    tries += [(x, y, pair.forward(x), pair.backward(y)) for x, y in _random_pairs(of_x, of_y, generator)]
    x, y, forward_x, backward_y = max(tries, key=lambda each: residual_of(each[2], each[1], each[0], each[3]))
    evidence = Evidence(pair, of_x, of_y, x, y, forward_x, backward_y, dtype, tolerance)
    for mistake in MISTAKES:
        try:
            found = mistake(evidence)
        except Exception:  # an operator need not take other numbers of samples, nor a kernel that is arranged otherwise
            continue
        if found:
            return found
    if any(layer is None or kernel_of(layer) is None for layer in (pair.forward_layer, pair.backward_layer)):
        return "no known mistake explains it: B is another operator"
    return "no known mistake explains it: B uses another kernel (a stale copy?) or is another operator"


def _random_pairs(of_x: Probe, of_y: Probe, generator: np.random.Generator) -> list[tuple[Array, Array]]:
    """Further x and y: a wrong operator may by chance be near on one of them."""
    return [(of_x.random(generator), of_y.random(generator)) for _ in range(3)]


def not_finite(evidence: Evidence) -> str | None:
    """Of random numbers around 1 an operator gives some that are NaN or infinite."""
    for name, numbers in (("A", evidence.forward_x), ("B", evidence.backward_y)):
        if not np.isfinite(numbers).all():
            return (
                f"not finite: {name} gives numbers that are not finite. Its weights hold NaN or infinity, or a result is NaN "
                f"or exceeds what {evidence.dtype} holds"
            )
    return None


def unsteady(evidence: Evidence) -> str | None:
    """Of the same numbers an operator gives others than before: it draws random ones, or its weights change meanwhile."""
    for name, operator, x, before in (
        ("A", evidence.pair.forward, evidence.x, evidence.forward_x),
        ("B", evidence.pair.backward, evidence.y, evidence.backward_y),
    ):
        if np.abs(operator(x) - before).max() > evidence.relative_tolerance * np.abs(before).max():
            return (
                f"two results: of the same numbers {name} gives others when it is called again. Is a model trained in another "
                f"thread, or does it draw random numbers?"
            )
    return None


def quantised(evidence: Evidence) -> str | None:
    """An int8 layer rounds its inputs, and its adjoint, which reads the dequantised kernel, does not."""
    for layer in (evidence.pair.forward_layer, evidence.pair.backward_layer):
        owner = layer.source if isinstance(layer, Tied) else layer
        mode = getattr(owner, "quantization_mode", None)
        if owner is not None and mode is not None:
            return f"quantised: `{owner.name}` rounds to {mode}, so it is linear only up to that"
    return None


def not_linear(evidence: Evidence) -> str | None:
    """An activation and a rounding break additivity, a bias moves zero."""
    for name, operator, x, probe in (
        ("A", evidence.pair.forward, evidence.x, evidence.of_x),
        ("B", evidence.pair.backward, evidence.y, evidence.of_y),
    ):
        zero, once = operator(np.zeros_like(x)), operator(x)
        scale = np.abs(once).max() or 1.0
        additions = [-x] if probe.may_be_negative else []
        if probe.may_be_added:  # a rounding and a hyperbolic tangent are odd
            additions += [probe.random(np.random.default_rng(2)), x]
        for other in additions:
            of_sum, sum_of = operator(x + other) + zero, once + operator(other)
            if np.abs(of_sum - sum_of).max() > 1e3 * evidence.tolerance * max(scale, np.abs(sum_of).max()):
                if _is_whole(once) and not _is_whole(x):
                    return (
                        f"rounded to integers: {name} gives whole numbers for others, as a cast to an integer does, so it is "
                        f"not linear"
                    )
                return f"activation left in, or another function that is not linear: {name} of a sum is not the sum of both"
        if np.abs(zero).max() > 1e3 * evidence.tolerance * scale:
            return f"bias left in: {name} does not map zero to zero"
    return None


def _is_whole(numbers: Array) -> bool:
    return bool(np.all(numbers == np.rint(numbers)))


def scaled(evidence: Evidence) -> str | None:
    """B = c Aᵀ, with c from the one of some random pairs that tells it most exactly."""
    if not evidence.backward_y.any():
        return "scaled by a constant: B returns zero"
    if not evidence.forward_x.any():
        return "A returns zero, and B does not"
    factor = factor_of(evidence.more(5), evidence.tolerance)
    return None if factor is None else f"scaled by a constant: B is {factor:.4g} times the adjoint"


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
MENDS = {
    "H and W swapped": "swap H and W",
    "kernel flipped": "flip the spatial axes",
    "channels swapped": "swap the channels",
}
COMBINATIONS = list(chain.from_iterable(combinations(REARRANGEMENTS, n) for n in (1, 2, 3)))


def rearranged(kernel: Array, names: Sequence[str]) -> Array | None:
    """A kernel after rearrangements, or `None` where its shape does not allow one of them."""
    result: Array | None = kernel
    for name in names:
        result = None if result is None else REARRANGEMENTS[name](result)
    return result


def arranged_otherwise(names: Sequence[str], *, is_matrix: bool) -> str:
    """The mistake that some rearrangements of B's kernel correct, and what to do."""
    if is_matrix and list(names) == ["channels swapped"]:
        return "not transposed: B uses the matrix of A as it is. Transpose it"
    mend = " and ".join(MENDS[name] for name in names)
    return f"{' and '.join(names)}: B's kernel is arranged for another operator. In B's kernel {mend}"


def kernel_rearranged(evidence: Evidence) -> str | None:
    """B is a layer whose kernel, rearranged, gives Aᵀ."""
    variable = kernel_of(evidence.pair.backward_layer) if evidence.pair.backward_layer is not None else None
    if variable is None:
        return None
    kernel = keras.ops.convert_to_numpy(variable)
    for names in COMBINATIONS:
        candidate = rearranged(kernel, names)
        if candidate is not None and evidence.passes(_with_kernel(evidence, variable, candidate)):
            return arranged_otherwise(names, is_matrix=kernel.ndim == 2)
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
            difference = np.abs(candidate - keras.ops.convert_to_numpy(variable)).max() / np.abs(candidate).max()
            if difference < NEARLY:
                return (
                    f"stale or rounded kernel: B holds a copy of A's kernel that is off by {difference:.1e} of its size"
                )
            return "stale kernel: B holds a copy of an earlier kernel of A"
    return None


def matrix_rearranged(evidence: Evidence) -> str | None:
    """A and B are functions whose matrices are small enough to be compared under each rearrangement of a kernel."""
    x_shape, y_shape = evidence.x.shape[1:], evidence.y.shape[1:]
    rank = len(x_shape)
    if math.prod(x_shape) * math.prod(y_shape) > LARGEST_MATRIX or rank < 1 or len(y_shape) != rank:
        return None
    a, b = _matrix(evidence.pair.forward, x_shape, y_shape), _matrix(evidence.pair.backward, y_shape, x_shape)
    if a is None or b is None:
        return None
    wanted = np.moveaxis(a, range(rank, 2 * rank), range(rank))
    largest = min(evidence.relative_tolerance * np.abs(wanted).max(), CLEARLY * np.abs(b - wanted).max())
    if not largest:
        return None  # on single ones they agree as they are
    for names in COMBINATIONS:
        candidate: Array | None = b
        for name in names:
            candidate = None if candidate is None else _CONJUGATIONS[name](candidate, rank)
        if candidate is None or candidate.shape != wanted.shape:
            continue
        if np.abs(candidate - wanted).max() <= largest:
            return arranged_otherwise(names, is_matrix=rank == 1)
    return None


# What a rearranged kernel does to the entries [y sizes, y channels, x sizes, x channels] of a matrix.
_CONJUGATIONS: dict[str, Callable[[Array, int], Array | None]] = {
    "H and W swapped": lambda m, rank: np.swapaxes(np.swapaxes(m, 0, 1), rank, rank + 1) if rank == 3 else None,
    "kernel flipped": lambda m, rank: np.flip(m, (*range(rank - 1), *range(rank, 2 * rank - 1))),
    "channels swapped": lambda m, rank: np.swapaxes(m, rank - 1, 2 * rank - 1),
}


def _matrix(operator: Operator, shape: Shape, output_shape: Shape) -> Array | None:
    """Values of an operator on the identity basis, one row per basis element; `None` if it gives no row for each."""
    size = math.prod(shape)
    found = operator(np.eye(size).reshape(size, *shape))
    return found.reshape(*shape, *output_shape) if found.shape == (size, *output_shape) else None


def nearly(evidence: Evidence) -> str | None:
    """B differs from the adjoint by little; the residual of random x and y averages over the numbers of A x."""
    found = [residual_of(forward_x, y, x, backward_y) for x, y, forward_x, backward_y in evidence.more(5)]
    difference = float(np.sqrt(np.mean(np.square(found)) * evidence.y.size))
    if difference < NEARLY:
        return f"nearly the adjoint: B is off by about {difference:.0e} of its size. Is something rounded, or a kernel stale?"
    return None


MISTAKES = (
    not_finite,
    unsteady,
    quantised,
    not_linear,
    scaled,
    kernel_rearranged,
    kernel_stale,
    matrix_rearranged,
    shifted,
    nearly,
)
