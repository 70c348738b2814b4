"""Dtypes and how coarsely they round: names, machine epsilons, those of products, and sums of numbers in half precision."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import keras
import ml_dtypes
from keras import ops

from keras_adjoint.errors import quoted, unknown_name
from keras_adjoint.ops import Tensor
from keras_adjoint.ops.backend import current
from keras_adjoint.ops.geometry import Convolution

HALF = {"float16", "bfloat16"}
FLOATS = ("float16", "bfloat16", "float32", "float64")
MIXED = ("mixed_float16", "mixed_bfloat16")


def float_dtype(dtype: Any) -> str:
    """The name of a dtype of real numbers in floating point.

    Raises:
        ValueError: If it is none.
    """
    try:
        name = keras.backend.standardize_dtype(dtype)
    except (ValueError, TypeError):
        name = dtype
    if name not in FLOATS:
        raise unknown_name("dtype", dtype, f"must be one of {quoted(FLOATS)}", FLOATS)
    return str(name)


def check_policy(dtype: Any) -> None:
    """Raise a ValueError if the name of a dtype policy is not one of Keras'."""
    try:
        keras.dtype_policies.get(dtype)
    except (ValueError, TypeError):
        names = (*FLOATS, *MIXED)
        raise unknown_name("dtype", dtype, f"must be a dtype policy, such as {quoted(names)}", names) from None


def epsilon(dtype: str) -> float:
    """Spacing of the numbers of `dtype` above 1."""
    return float(ml_dtypes.finfo(dtype).eps)


def smallest_normal(dtype: str) -> float:
    """The smallest positive number that `dtype` holds to all of its digits."""
    return float(ml_dtypes.finfo(dtype).smallest_normal)


def product_epsilon(dtype: str) -> float:
    """The same for products of `dtype`, which a backend may be set to compute more coarsely in float32."""
    return max(epsilon(dtype), current().coarse_epsilon()) if dtype == "float32" else epsilon(dtype)


def accumulate_in_float32(
    apply: Callable[[Tensor, Tensor, Convolution], Tensor],
) -> Callable[[Tensor, Tensor, Convolution], Tensor]:
    """Make an algorithm that adds parts up do so in float32, like the one product of a convolution does.

    Of ones in bfloat16, the 257th would change nothing. Where no two outputs meet, there is nothing to add up.
    """

    @wraps(apply)
    def in_float32(y: Tensor, kernel: Tensor, convolution: Convolution) -> Tensor:
        dtype = ops.dtype(y)
        if dtype not in HALF or not outputs_meet(convolution):
            return apply(y, kernel, convolution)
        return ops.cast(apply(ops.cast(y, "float32"), ops.cast(kernel, "float32"), convolution), dtype)

    return in_float32


def outputs_meet(convolution: Convolution) -> bool:
    """Whether several outputs may read one input position; they do not where every kernel fits into its stride."""
    return any(axis.taps > axis.stride or axis.dilation > 1 for axis in convolution.axes)
