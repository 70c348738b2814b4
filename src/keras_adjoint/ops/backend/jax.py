"""JAX."""

import math

import jax
import jax.numpy as jnp
from jax import lax

from keras_adjoint.ops.backend import BFLOAT16, TF32, map_unrolled
from keras_adjoint.ops.backend.jax_primitive import gradient_of_form

NAME = "jax"
_OFFERED = {
    "sequence": ("subpixel", "phases", "columns", "shifts"),
    "image": ("subpixel", "phases", "columns", "shifts"),
    "dilated": ("subpixel", "shifts"),
    "dilated sequence": ("subpixel", "shifts"),
    "volume": ("subpixel", "phases", "columns", "shifts"),
    "grouped": ("subpixel", "shifts"),
    "depthwise": ("shifts", "subpixel"),
    "strided depthwise": ("shifts", "subpixel"),
}
CANDIDATES = {"full": _OFFERED, "half": _OFFERED}
FOLDED_RANKS = ()
WRITES_COLUMNS = ()
UNFOLDS_GROUPS = True
CHANNELS_AT_ONCE = 1
NATIVE_MARGIN = 1.0
map_sequential = map_unrolled
LONGEST_SUM_IN_HALF = math.inf  # its transposed convolutions are not oneDNN's
SHIFTS_CONV_TRANSPOSE = False


def coarse_epsilon():
    if jax.default_backend() == "cpu" or jax.config.jax_default_matmul_precision in ("highest", "float32"):
        return 0.0
    return BFLOAT16 if jax.default_backend() == "tpu" else TF32


def average_pooling_edges(before, after):
    return "inside"


def device_of(tensor):
    return "cpu" if jax.default_backend() == "cpu" else "gpu"


def compiled(function):
    return jax.jit(function)


def wait(tensor):
    jax.block_until_ready(tensor)


def known_size(size):
    return size


def convolve(x, kernel, pads, strides, dilation):
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        pads,
        rhs_dilation=dilation,
        dimension_numbers=_layout(kernel),
        feature_group_count=x.shape[-1] // kernel.shape[-2],
    )


def transposed_convolve(y, kernel, convolution):
    channels = kernel.shape[-2] * convolution.groups
    x = jax.ShapeDtypeStruct((y.shape[0], *convolution.each("size"), channels), y.dtype)
    pads = convolution.pads
    strides, dilation = convolution.each("stride"), convolution.each("dilation")
    (x,) = jax.linear_transpose(lambda x: convolve(x, kernel, pads, strides, dilation), x)(y)
    return x


def can_transpose(convolution, kind):
    return True


def sum_sequential(term, operand, rows):
    # Written out, XLA would cut out what every term reads before it adds the first two.
    table = jnp.asarray(rows)
    return lax.fori_loop(1, len(rows), lambda i, total: total + term(operand, *table[i]), term(operand, *rows[0]))


def with_derivatives(form, kernel, y):
    return gradient_of_form("x", form, kernel=kernel, y=y) if form.convolution.is_known else form.x(kernel, y)


def _layout(kernel):
    axes = "DHW"[-(kernel.ndim - 2) :]
    return f"N{axes}C", f"{axes}IO", f"N{axes}C"
