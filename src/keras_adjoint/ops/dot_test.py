"""How far one operator is from being the adjoint of another, and how far rounding alone may bring it.

The adjoint Aᵀ is the one operator with ⟨A x, y⟩ = ⟨x, Aᵀ y⟩ for all x and y (Claerbout 1992, chapter 5, "the dot-product
test"). The residual of B is |⟨A x, y⟩ − ⟨x, B y⟩| / (‖A x‖ ‖y‖) for random x and y.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_adjoint.ops import Tensor
from keras_adjoint.ops.precision import epsilon, product_epsilon

SAFETY = 10.0
CLEARLY = 0.1  # an operator that a mistake explains is nearer to the adjoint than B by this factor, or more


def random_probe(shape: tuple[int, ...], dtype: str, generator: np.random.Generator) -> np.ndarray:
    """Standard normal numbers that `dtype` holds exactly, as float64."""
    return rounded_to(dtype, generator.standard_normal(shape))


def rounded_to(dtype: str, numbers: np.ndarray) -> np.ndarray:
    """Numbers that `dtype` and single precision hold, near the given ones, as float64."""
    rounded = ops.convert_to_numpy(ops.cast(ops.convert_to_tensor(numbers.astype("float32")), dtype))
    return rounded.astype("float64")


def evaluate(operator: keras.layers.Layer | Callable[[Tensor], Tensor], x: np.ndarray, dtype: str) -> np.ndarray:
    """`operator` on an array of `dtype`, as float64."""
    result = operator(ops.convert_to_tensor(np.asarray(x), dtype=dtype))
    if not hasattr(result, "shape"):
        raise ValueError(f"An operator must return one tensor. Received: {type(result).__name__} from {operator!r}")
    if isinstance(result, (np.ndarray, np.generic)):  # of a function of arrays, which has no gradient to stop
        return np.asarray(result, dtype="float64")
    return ops.convert_to_numpy(ops.stop_gradient(result)).astype("float64")


def residual_of(forward_x: np.ndarray, y: np.ndarray, x: np.ndarray, backward_y: np.ndarray) -> float:
    """|⟨A x, y⟩ − ⟨x, B y⟩| / (‖A x‖ ‖y‖), summed in float64; where A x is zero, |⟨x, B y⟩| / (‖x‖ ‖B y‖).

    It is infinite if a number is not finite. No product over- or underflows, whatever the sizes.
    """
    if not all(np.isfinite(array).all() for array in (forward_x, y, x, backward_y)):
        return math.inf
    (forward_x, y, x, backward_y), exponents = zip(*map(_of_size_one, (forward_x, y, x, backward_y)), strict=True)
    of_forward, of_backward = np.vdot(forward_x, y), np.vdot(x, backward_y)
    scale = np.linalg.norm(forward_x) * np.linalg.norm(y)
    if not scale:
        scale = np.linalg.norm(x) * np.linalg.norm(backward_y)
        return float(abs(of_backward) / scale) if scale else 0.0
    with np.errstate(over="ignore"):
        ratio = np.ldexp(1.0, exponents[2] + exponents[3] - exponents[0] - exponents[1])
        return float(abs(of_forward - ratio * of_backward) / scale)


def factor_of(pairs: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]], tolerance: float) -> float | None:
    """c in B = c Aᵀ, from some x, y, A x and B y; `None` if B is no such operator.

    It is that of the pair that tells it most exactly, and has to explain the others.
    """
    products = [(np.vdot(forward_x, y), np.vdot(x, backward_y)) for x, y, forward_x, backward_y in pairs]
    wanted, found = max(products, key=lambda both: abs(both[0]))
    factor = float(found / wanted) if wanted else 0.0
    if not factor or not math.isfinite(factor):
        return None
    corrected = max(residual_of(forward_x, y, x, backward_y / factor) for x, y, forward_x, backward_y in pairs)
    as_it_is = max(residual_of(forward_x, y, x, backward_y) for x, y, forward_x, backward_y in pairs)
    return factor if corrected <= min(tolerance * (1 + 1 / abs(factor)), CLEARLY * as_it_is) else None


def _of_size_one(array: np.ndarray) -> tuple[np.ndarray, int]:
    """An array divided by a power of two such that its largest number is near one, and the exponent."""
    exponent = math.frexp(np.abs(array).max(initial=0.0))[1]
    return np.ldexp(array, -exponent), exponent


def derived_tolerance(dtype: str, inputs: int, outputs: int) -> float:
    """The residual that rounding alone may leave, with a margin of ten.

    Every element of A x is rounded once to `dtype`, and sums up at most n = `inputs` products in the precision that the
    backend accumulates in, with independent errors: relative to its size it is off by about ε + ε' √n. The inner
    product with y averages the errors of m = `outputs` such elements, so that the residual is about
    (ε + ε' √n) / √m. The error of B y makes the same contribution. A wrong operator scores about 1 / √m.

    Args:
        dtype: Name of the dtype that the operators compute in.
        inputs: Number of elements of x.
        outputs: Number of elements of A x.

    Returns:
        A float.
    """
    accumulated = min(product_epsilon(dtype), epsilon("float32"))
    return SAFETY * (product_epsilon(dtype) + accumulated * math.sqrt(inputs)) / math.sqrt(max(outputs, 1))


def operator_dtype(*operators: Any) -> str:
    """The dtype that operators compute in: that of the first layer among them, else Keras' default."""
    for operator in operators:
        if isinstance(operator, keras.layers.Layer):
            return operator.compute_dtype
    return keras.config.floatx()
