"""The adjoint as a PyTorch function whose gradients are the forward and the gradient of its kernel.

Without it, PyTorch would differentiate every operation of a lowering, and keep what each of them has read.
"""

import torch

from keras_adjoint.backends.torch_convolution import kernel_gradient


def adjoint_of_form(form, kernel, y):
    """Aᵀ y.

    Args:
        form: With methods `x` and `y`, and the `convolution`.
        kernel: The forward's kernel.
        y: What the adjoint is applied to.
    """
    function = _Adjoint if torch.compiler.is_compiling() else _AdjointWithForwardMode
    return function.apply(form, kernel, y)


class _Adjoint(torch.autograd.Function):
    generate_vmap_rule = True  # a map over the function is a map over the operations of which it consists

    @staticmethod
    def forward(form, kernel, y):
        return form.x(kernel, y)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.form, *operands = inputs
        ctx.save_for_backward(*operands)
        ctx.save_for_forward(*operands)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, cotangent):
        if cotangent is None:
            return None, None, None
        kernel, y = ctx.saved_tensors
        _, by_kernel, by_y = ctx.needs_input_grad
        of_kernel = _kernel_gradient(ctx.form.convolution, cotangent, kernel, y) if by_kernel else None
        return None, of_kernel, ctx.form.y(cotangent, kernel) if by_y else None


class _AdjointWithForwardMode(_Adjoint):
    """`torch.compile` takes no function that defines this."""

    @staticmethod
    def jvp(ctx, _, of_kernel, of_y):
        kernel, y = ctx.saved_tensors
        parts = []
        if of_kernel is not None:
            parts.append(adjoint_of_form(ctx.form, of_kernel, y))
        if of_y is not None:
            parts.append(adjoint_of_form(ctx.form, kernel, of_y))
        return sum(parts[1:], parts[0])


def _kernel_gradient(convolution, x, kernel, y):
    strides, dilation = convolution.each("stride"), convolution.each("dilation")
    return kernel_gradient(x, kernel, y, convolution.padding, strides, dilation)
