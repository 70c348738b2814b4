"""A trilinear form as a JAX primitive, whose derivatives are its own other gradients.

A primitive with bilinear rules keeps forward mode, reverse mode and everything that JAX makes of the two, which
`jax.custom_vjp` would not.
"""

from functools import partial

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

ARGUMENTS = ("x", "kernel", "y")

form_gradient = Primitive("keras_adjoint_form_gradient")


def gradient_of_form(wanted, form, **others):
    """The gradient of a form by the argument `wanted`, for given other two.

    Args:
        wanted: "x", "kernel" or "y".
        form: Hashable, with methods `x`, `y` and `kernel_shape`.
        **others: The two other arguments.
    """
    return form_gradient.bind(*(others[name] for name in _others(wanted)), wanted=wanted, form=form)


def _others(wanted):
    return [name for name in ARGUMENTS if name != wanted]


def _compute(*operands, wanted, form):
    if wanted == "kernel":
        return _kernel_gradient(form, *operands)
    return getattr(form, wanted)(*operands)


def _kernel_gradient(form, x, y):
    kernel = jax.ShapeDtypeStruct(form.kernel_shape(x, y), x.dtype)
    (gradient,) = jax.linear_transpose(lambda kernel: form.y(x, kernel), kernel)(y)
    return gradient


def _transpose(position, cotangent, *operands, wanted, form):
    """The derivative by the operand at `position`: contract what was wanted with the cotangent, and want the operand."""
    names = _others(wanted)
    name, other = names[position], names[1 - position]
    return gradient_of_form(name, form, **{wanted: cotangent, other: operands[1 - position]})


def _batch(operands, axes, *, wanted, form):
    """One more axis. In front of the batch it joins the batch, unless the kernel has it too or is what is wanted."""
    names = _others(wanted)
    if wanted != "kernel" and axes[names.index("kernel")] is None:
        position = 1 - names.index("kernel")
        tensor = jax.numpy.moveaxis(operands[position], axes[position], 0)
        folded = tensor.reshape(-1, *tensor.shape[2:])
        others = {names[position]: folded, "kernel": operands[1 - position]}
        result = gradient_of_form(wanted, form, **others)
        return result.reshape(*tensor.shape[:2], *result.shape[1:]), 0
    return jax.vmap(partial(_compute, wanted=wanted, form=form), axes)(*operands), 0


form_gradient.def_impl(jax.jit(_compute, static_argnames=("wanted", "form")))
form_gradient.def_abstract_eval(
    lambda *operands, **parameters: jax.core.ShapedArray(
        (result := jax.eval_shape(partial(_compute, **parameters), *operands)).shape, result.dtype
    )
)
mlir.register_lowering(form_gradient, mlir.lower_fun(_compute, multiple_results=False))
ad.defbilinear(form_gradient, partial(_transpose, 0), partial(_transpose, 1))
batching.primitive_batchers[form_gradient] = _batch
