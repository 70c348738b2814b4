"""Sums of parts, in float32 where the parts are in half precision."""

from functools import wraps

from keras import ops

HALF = {"float16", "bfloat16"}


def accumulate_in_float32(apply):
    """Make an algorithm that adds parts up do so in float32, like the one product of a convolution does.

    Of ones in bfloat16, the 257th would change nothing. Where no two outputs meet, there is nothing to add up.
    """

    @wraps(apply)
    def precise(y, kernel, convolution):
        dtype = ops.dtype(y)
        if dtype not in HALF or not outputs_meet(convolution):
            return apply(y, kernel, convolution)
        return ops.cast(apply(ops.cast(y, "float32"), ops.cast(kernel, "float32"), convolution), dtype)

    return precise


def outputs_meet(convolution):
    """Whether several outputs may read one input position; they do not where every kernel fits into its stride."""
    return any(axis.taps > axis.stride or axis.dilation > 1 for axis in convolution.axes)
