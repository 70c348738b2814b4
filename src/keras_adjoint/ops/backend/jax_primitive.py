"""JAX primitives: a trilinear form, whose derivatives are its own other gradients, and linear functions on the host.

A primitive with bilinear rules keeps forward mode, reverse mode and everything that JAX makes of the two, which
`jax.custom_vjp` would not.
"""

from functools import partial
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from keras_adjoint.ops import Tensor
from keras_adjoint.ops.backend.protocol import Form, HostProduct

ARGUMENTS = ("x", "y", "kernel")

# `bilinear_form.bind(*operands, wanted=…, form=…)` is the gradient of a hashable `Form` by the argument `wanted`, for the other
# two in the order of `ARGUMENTS`.
bilinear_form = Primitive("keras_adjoint_bilinear_form")


def _others(wanted: str) -> list[str]:
    return [name for name in ARGUMENTS if name != wanted]


def _compute(*operands: Tensor, wanted: str, form: Form) -> Tensor:
    if wanted == "kernel":
        return _kernel_gradient(form, *operands)
    return getattr(form, wanted)(*operands)


def _kernel_gradient(form: Form, x: Tensor, y: Tensor) -> Tensor:
    kernel = jax.ShapeDtypeStruct(form.kernel_shape(x, y), x.dtype)
    (gradient,) = jax.linear_transpose(lambda kernel: form.y(x, kernel), kernel)(y)
    return gradient


def _gradient(wanted: str, form: Form, others: dict[str, Tensor]) -> Tensor:
    return bilinear_form.bind(*(others[name] for name in _others(wanted)), wanted=wanted, form=form)


def _transpose(position: int, cotangent: Tensor, *operands: Tensor, wanted: str, form: Form) -> Tensor:
    """The derivative by the operand at `position`: contract what was wanted with the cotangent, and want the operand."""
    names = _others(wanted)
    name, other = names[position], names[1 - position]
    return _gradient(name, form, {wanted: cotangent, other: operands[1 - position]})


def _batch(operands: tuple[Tensor, ...], axes: tuple[Any, ...], *, wanted: str, form: Form) -> tuple[Tensor, int]:
    """One more axis. In front of the batch it joins the batch, unless the kernel has it too or is what is wanted."""
    names = _others(wanted)
    if wanted != "kernel" and axes[names.index("kernel")] is None:
        position = 1 - names.index("kernel")
        tensor = jax.numpy.moveaxis(operands[position], axes[position], 0)
        folded = tensor.reshape(-1, *tensor.shape[2:])
        result = _gradient(wanted, form, {names[position]: folded, "kernel": operands[1 - position]})
        return result.reshape(*tensor.shape[:2], *result.shape[1:]), 0
    return jax.vmap(partial(_compute, wanted=wanted, form=form), axes)(*operands), 0


bilinear_form.def_impl(jax.jit(_compute, static_argnames=("wanted", "form")))
bilinear_form.def_abstract_eval(
    lambda *operands, **parameters: jax.core.ShapedArray(
        (result := jax.eval_shape(partial(_compute, **parameters), *operands)).shape, result.dtype
    )
)
mlir.register_lowering(bilinear_form, mlir.lower_fun(_compute, multiple_results=False))
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


linear_on_host.def_impl(jax.jit(linear_on_host.bind, static_argnames=("product", "transposed")))
linear_on_host.def_abstract_eval(
    lambda rows, *, product, transposed: jax.core.ShapedArray((rows.shape[0], product.outputs), rows.dtype)
)
mlir.register_lowering(linear_on_host, _lower_host_call)
ad.deflinear2(linear_on_host, _transpose_on_host)
batching.primitive_batchers[linear_on_host] = _batch_on_host
