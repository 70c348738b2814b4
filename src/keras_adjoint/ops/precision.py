"""How coarsely numbers are rounded: machine epsilons, those of products, and sums of numbers in half precision."""

from collections.abc import Callable
from functools import wraps

import ml_dtypes
from keras import ops

from keras_adjoint.ops import Tensor
from keras_adjoint.ops.backend import current
from keras_adjoint.ops.geometry import Convolution

HALF = {"float16", "bfloat16"}


def epsilon(dtype: str) -> float:
    """Spacing of the numbers of `dtype` above 1."""
    return float(ml_dtypes.finfo(dtype).eps)


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
