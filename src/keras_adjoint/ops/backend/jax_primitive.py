"""JAX primitives: a trilinear form, whose derivatives are its own other gradients, and linear functions on the host.

A primitive with bilinear rules keeps forward mode, reverse mode and everything that JAX makes of the two, which
`jax.custom_vjp` would not.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from keras_adjoint.ops import Tensor
from keras_adjoint.ops.backend.jax_partition import compute, operands_of, partitioned
from keras_adjoint.ops.backend.protocol import Form, HostProduct

try:  # without it, JAX does not say what it lowers for, and XLA divides the operations of an algorithm one by one
    from jax._src.dispatch import prim_requires_devices_during_lowering
except ImportError:
    prim_requires_devices_during_lowering = set()


def _compiled(primitive: Primitive, *names: str) -> Callable[..., Any]:
    """How a primitive is computed eagerly: as a program, which is made even where `jax.disable_jit` runs all others.

    There `jax.jit` would call the primitive, and that call this.
    """
    program = jax.jit(primitive.bind, static_argnames=names)

    def impl(*operands: Tensor, **parameters: Any) -> Any:
        with jax.disable_jit(False):
            return program(*operands, **parameters)

    return impl


# `bilinear_form.bind(*operands, wanted=…, form=…)` is the gradient of a hashable `Form` by the argument `wanted`, for the other
# two in the order of `ARGUMENTS`.
bilinear_form = Primitive("keras_adjoint_bilinear_form")


def _gradient(wanted: str, form: Form, others: dict[str, Tensor]) -> Tensor:
    return bilinear_form.bind(*(others[name] for name in operands_of(wanted)), wanted=wanted, form=form)


def _transpose(position: int, cotangent: Tensor, *operands: Tensor, wanted: str, form: Form) -> Tensor:
    """The derivative by the operand at `position`: contract what was wanted with the cotangent, and want the operand."""
    names = operands_of(wanted)
    name, other = names[position], names[1 - position]
    return _gradient(name, form, {wanted: cotangent, other: operands[1 - position]})


def _batch(operands: tuple[Tensor, ...], axes: tuple[Any, ...], *, wanted: str, form: Form) -> tuple[Tensor, int]:
    """One more axis. In front of the batch it joins the batch, unless the kernel has it too or is what is wanted."""
    names = operands_of(wanted)
    if wanted != "kernel" and axes[names.index("kernel")] is None:
        position = 1 - names.index("kernel")
        tensor = jax.numpy.moveaxis(operands[position], axes[position], 0)
        folded = tensor.reshape(-1, *tensor.shape[2:])
        result = _gradient(wanted, form, {names[position]: folded, "kernel": operands[1 - position]})
        return result.reshape(*tensor.shape[:2], *result.shape[1:]), 0
    return jax.vmap(partial(compute, wanted=wanted, form=form), axes)(*operands), 0


def _lower(context: Any, *operands: Any, wanted: str, form: Form) -> Any:
    """The computation; where it is divided among devices, with a rule of how."""
    function = (
        partitioned(wanted, form) if _is_divided(context.module_context) else partial(compute, wanted=wanted, form=form)
    )
    return mlir.lower_fun(function, multiple_results=False)(context, *operands)


def _is_divided(context: Any) -> bool:
    """Whether a program is for several devices that Shardy divides tensors among. The rule cannot be written to a file."""
    devices = getattr(context.axis_context, "device_assignment", None) or ()
    has_mesh = getattr(context.axis_context, "abstract_mesh", None) is not None
    exports = getattr(context.lowering_parameters, "for_export", False)
    return len(devices) > 1 and has_mesh and not exports and bool(jax.config.jax_use_shardy_partitioner)


bilinear_form.def_impl(_compiled(bilinear_form, "wanted", "form"))
bilinear_form.def_abstract_eval(
    lambda *operands, **parameters: jax.core.ShapedArray(
        (result := jax.eval_shape(partial(compute, **parameters), *operands)).shape, result.dtype
    )
)
mlir.register_lowering(bilinear_form, _lower)
prim_requires_devices_during_lowering.add(bilinear_form)
ad.defbilinear(bilinear_form, partial(_transpose, 0), partial(_transpose, 1))
batching.primitive_batchers[bilinear_form] = _batch


# --- linear functions on the host

linear_on_host = Primitive("keras_adjoint_linear_on_host")  # of rows, with the parameters `product` and `transposed`


def _lower_host_call(context: Any, rows: Any, *, product: HostProduct, transposed: HostProduct) -> Any:
    # `jax.pure_callback` would put the rows on the device again, and wait for them forever where that has a single thread.
    result, _, _ = mlir.emit_python_callback(
        context,
        lambda rows: (product(rows),),
        None,
        [rows],
        context.avals_in,
        context.avals_out,
        has_side_effect=False,
        returns_token=False,
    )
    return result


def _transpose_on_host(
    cotangent: Tensor, rows: Tensor, *, product: HostProduct, transposed: HostProduct
) -> tuple[Tensor]:
    return (linear_on_host.bind(cotangent, product=transposed, transposed=product),)


def _batch_on_host(operands: tuple[Tensor], axes: tuple[int], **products: HostProduct) -> tuple[Tensor, int]:
    """One more axis, which joins the batch."""
    rows = jax.numpy.moveaxis(operands[0], axes[0], 0)
    found = linear_on_host.bind(rows.reshape(-1, rows.shape[-1]), **products)
    return found.reshape(*rows.shape[:-1], found.shape[-1]), 0


linear_on_host.def_impl(_compiled(linear_on_host, "product", "transposed"))
linear_on_host.def_abstract_eval(
    lambda rows, *, product, transposed: jax.core.ShapedArray((rows.shape[0], product.outputs), rows.dtype)
)
mlir.register_lowering(linear_on_host, _lower_host_call)
ad.deflinear2(linear_on_host, _transpose_on_host)
batching.primitive_batchers[linear_on_host] = _batch_on_host
