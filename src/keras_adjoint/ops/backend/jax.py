"""JAX."""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.sparse import JAXSparse
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from keras_adjoint.ops import Size, Tensor
from keras_adjoint.ops.backend import BFLOAT16, TF32, fold_missing, map_unrolled
from keras_adjoint.ops.backend.jax_primitive import bilinear_form
from keras_adjoint.ops.backend.jax_primitive import linear_on_host as linear_on_host_primitive
from keras_adjoint.ops.backend.protocol import Adjoint, Form, HostProduct, Pads
from keras_adjoint.ops.geometry import Convolution

NAME = "jax"
_CANDIDATES = {
    "sequence": ("subpixel", "phases", "columns", "shifts"),
    "image": ("subpixel", "phases", "columns", "shifts"),
    "dilated": ("subpixel", "shifts"),
    "dilated sequence": ("subpixel", "shifts"),
    "volume": ("subpixel", "phases", "columns", "shifts"),
    "grouped": ("subpixel", "shifts"),
    "depthwise": ("shifts", "subpixel"),
    "strided depthwise": ("shifts", "subpixel"),
}
CANDIDATES = {"full": _CANDIDATES, "half": _CANDIDATES}
FOLDED_RANKS: tuple[int, ...] = ()
WRITES_COLUMNS: tuple[str, ...] = ()
UNFOLDS_GROUPS = True
CHANNELS_AT_ONCE = 1
NATIVE_MARGIN = 1.0
LONGEST_SUM_IN_HALF = math.inf  # its transposed convolutions are not oneDNN's
map_sequential = map_unrolled
fold = fold_missing
SHIFTS_CONV_TRANSPOSE = False
JIT_CALLS_HOST = True
DIVIDES_VARIABLES = True
RECORDS_LOOPS = True
PROCESS_GROUPS: Mapping[Any, Any] = {}


def coarse_epsilon() -> float:
    if jax.default_backend() == "cpu" or jax.config.jax_default_matmul_precision in ("highest", "float32"):
        return 0.0
    return BFLOAT16 if jax.default_backend() == "tpu" else TF32


def average_pooling_edges(pad_before: Sequence[Size], pad_after: Sequence[Size]) -> Literal["inside", "replicated"]:
    return "inside"


def held_dtype(dtype: str) -> str:
    return str(jax.dtypes.canonicalize_dtype(dtype))


def device_of(tensor: Tensor) -> Literal["cpu", "gpu"]:
    return "cpu" if jax.default_backend() == "cpu" else "gpu"


def signature(tensor: Tensor) -> Hashable:
    for size in tensor.shape:
        if type(size) is not int:
            return None
    return tensor.shape, tensor.dtype


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(function)


def in_one(function: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(function)


def untraced(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def check_trained(variable: Any, layers: Sequence[Any]) -> None:
    pass


def wait(tensor: Tensor) -> None:
    jax.block_until_ready(tensor)


def eagerly() -> AbstractContextManager[Any]:
    # Within it JAX fails to compile some loops, so it is entered only where operations are traced.
    traced = isinstance(jax.numpy.zeros(()), jax.core.Tracer)
    return jax.ensure_compile_time_eval() if traced else nullcontext()


def is_concrete(tensors: Sequence[Tensor]) -> bool:
    return not any(isinstance(tensor, jax.core.Tracer) for tensor in tensors)


def is_dense(tensor: Any) -> bool:
    return not isinstance(tensor, JAXSparse)


def variables_read(function: Callable[[], Sequence[Tensor]]) -> list[Any]:
    function()
    return []  # an array of JAX never changes


def convolving(operation: Any, xs: Sequence[Any]) -> AbstractContextManager[Any]:
    return nullcontext()


def fixed_shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(map(int, tensor.shape))


def known_size(size: Size) -> Size:
    return size


@jax.tree_util.register_static
class StaticSizes(tuple[int | None, ...]):
    """Sizes that JAX takes for a part of the program, not for arrays that it is called with."""


def static(sizes: Any) -> Any:
    if not isinstance(sizes, (tuple, list)):
        return sizes
    if all(size is None or type(size) is int for size in sizes):
        return StaticSizes(sizes)
    return [static(size) for size in sizes]


def convolve(x: Tensor, kernel: Tensor, pads: Pads, strides: Sequence[int], dilation: Sequence[int]) -> Tensor:
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        pads,
        rhs_dilation=dilation,
        dimension_numbers=_layout(kernel),
        feature_group_count=x.shape[-1] // kernel.shape[-2],
    )


def transposed_convolution(convolution: Convolution) -> Adjoint:
    sizes, pads = convolution.each("size"), convolution.pads
    strides, dilation = convolution.each("stride"), convolution.each("dilation")

    def transposed(y: Tensor, kernel: Tensor) -> Tensor:
        channels = kernel.shape[-2] * convolution.groups
        x = jax.ShapeDtypeStruct((y.shape[0], *sizes, channels), y.dtype)
        if AxisType.Manual in _mesh_axis_types(y) + _mesh_axis_types(kernel):
            # Within `jax.shard_map`, x and y must vary over the same axes of the mesh as the result of the convolution.
            y = _varying_with([kernel], y)
            x = jax.eval_shape(lambda y: _varying_with([y], jnp.zeros(x.shape, x.dtype)), y)
        (x,) = jax.linear_transpose(lambda x: convolve(x, kernel, pads, strides, dilation), x)(y)
        return x

    return transposed


def can_transpose(convolution: Convolution, kind: str) -> bool:
    return True


def sum_sequential(term: Callable[..., Tensor], operand: Tensor, rows: Sequence[tuple[Any, ...]]) -> Tensor:
    # Of an unrolled sum, XLA would cut out what every term reads before it adds the first two.
    table = jnp.asarray(rows)
    return lax.fori_loop(1, len(rows), lambda i, total: total + term(operand, *table[i]), term(operand, *rows[0]))


def differentiable(form: Form) -> Adjoint:
    if not form.convolution.is_known:
        return form.prepare()

    def adjoint(y: Tensor, kernel: Tensor) -> Tensor:
        if jax.typeof(y).sharding.mesh.empty and jax.typeof(kernel).sharding.mesh.empty:
            return bilinear_form.bind(y, kernel, wanted="x", form=form)
        axis_types = _mesh_axis_types(y) + _mesh_axis_types(kernel)
        if not axis_types:
            return bilinear_form.bind(y, kernel, wanted="x", form=form)
        # The primitive has no rules for types that name axes of a mesh. Under explicit sharding few operations have.
        explicit = AxisType.Explicit in axis_types
        return (transposed_convolution(form.convolution) if explicit else form.prepare())(y, kernel)

    return adjoint


def _mesh_axis_types(tensor: Tensor) -> tuple[AxisType, ...]:
    """Those of the axes of a mesh that are a part of a tensor's type, as in `jax.shard_map` and under explicit sharding."""
    mesh = jax.typeof(tensor).sharding.mesh
    return tuple(kind for kind in mesh.axis_types if kind is not AxisType.Auto)


def vjp(function: Callable[[Any], Any], x: Any, y: Any) -> Any:
    leaves = jax.tree.leaves
    if any(AxisType.Manual in _mesh_axis_types(each) for each in leaves((x, y))):
        # To an x that is the same on all devices of `jax.shard_map`, JAX would give the sum of what comes from all of them.
        x = _varying_with(leaves((y, function(x))), x)
    result, transposed = jax.vjp(function, x)
    (found,) = transposed(jax.tree.map(_with_type_of, result, y))
    return found


def linear_vjp(function: Callable[[list[Tensor]], list[Tensor]], zeros: list[Tensor], y: list[Tensor]) -> list[Tensor]:
    if AxisType.Explicit in _mesh_axis_types(y[0]):
        mesh, (batch, *_) = jax.typeof(y[0]).sharding.mesh, jax.typeof(y[0]).sharding.spec
        zeros = [jax.sharding.reshard(x, NamedSharding(mesh, PartitionSpec(batch))) for x in zeros]
    found: list[Tensor] = vjp(function, zeros, y)
    return found


def _varying_with(tensors: Sequence[Tensor], x: Any) -> Any:
    """x, which within `jax.shard_map` varies over every axis of the mesh that one of the tensors varies over, too."""
    if not any(AxisType.Manual in _mesh_axis_types(tensor) for tensor in tensors):
        return x
    zero = lax.stop_gradient(sum(tensor.reshape(-1)[:0].sum() for tensor in tensors))
    return jax.tree.map(lambda each: each + zero.astype(each.dtype), x)


def _with_type_of(tensor: Tensor, x: Tensor) -> Tensor:
    """x, divided among the devices of a mesh as a tensor is."""
    x = _varying_with([tensor], x)
    return jax.sharding.reshard(x, jax.typeof(tensor).sharding) if AxisType.Explicit in _mesh_axis_types(tensor) else x


def custom_gradient(
    function: Callable[[Sequence[Tensor]], Tensor],
    gradient: Callable[[Sequence[Tensor], Tensor], list[Tensor]],
    operands: Sequence[Tensor],
) -> Tensor:
    @jax.custom_vjp
    def call(*operands: Tensor) -> Tensor:
        return function(operands)

    call.defvjp(
        lambda *operands: (call(*operands), operands),  # which may be differentiated as well
        lambda operands, cotangent: tuple(map(_with_type_of, operands, gradient(operands, cotangent))),
    )
    return call(*_varying_with(operands, operands))


def linear_on_host(product: HostProduct, transposed: HostProduct, rows: Tensor) -> Tensor:
    return linear_on_host_primitive.bind(rows, product=product, transposed=transposed)


def _layout(kernel: Tensor) -> tuple[str, str, str]:
    axes = "DHW"[-(kernel.ndim - 2) :]
    return f"N{axes}C", f"{axes}IO", f"N{axes}C"
