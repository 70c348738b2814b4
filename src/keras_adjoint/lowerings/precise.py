"""Sums of parts, in float32 where the parts are in half precision."""

from functools import wraps

from keras import ops

HALF = {"float16", "bfloat16"}


def summed_in_float32(apply):
    """Make a lowering that adds parts up do so in float32, like the one product of a convolution does.

    Of ones in bfloat16, the 257th would change nothing.
    """

    @wraps(apply)
    def precise(y, kernel, convolution):
        dtype = ops.dtype(y)
        if dtype not in HALF:
            return apply(y, kernel, convolution)
        return ops.cast(apply(ops.cast(y, "float32"), ops.cast(kernel, "float32"), convolution), dtype)

    return precise
