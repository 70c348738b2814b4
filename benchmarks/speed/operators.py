"""The functions that are timed: forward, adjoint and the backend's own, and the gradients of the first two, all compiled."""

from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from keras_adjoint.ops.algorithms.choose import adjoint_convolution


@dataclass(frozen=True)
class Operators:
    """Functions without arguments that run one computation and wait for its end.

    Attributes:
        forward: A x.
        adjoint: Aᵀ y.
        native: Aᵀ y by what the backend has for it.
        forward_gradients: Those of ⟨A x, y⟩ with respect to x and the kernel, for given y.
        adjoint_gradients: Those of ⟨x, Aᵀ y⟩ with respect to y and the kernel, for given x.
    """

    forward: object
    adjoint: object
    native: object
    forward_gradients: object
    adjoint_gradients: object


def operators(geometry, dtype="float32"):
    """The `Operators` of a geometry on random numbers, after one run of each."""
    convolution = geometry.convolution
    generator = np.random.default_rng(0)

    def random(shape):
        return ops.convert_to_tensor(generator.standard_normal(shape).astype("float32"), dtype=dtype)

    x, y, kernel = random(geometry.x_shape), random(geometry.y_shape), random(geometry.kernel_shape)

    def forward(x, kernel):
        if geometry.padding == "causal":
            x = ops.pad(x, [(0, 0), (convolution.axes[0].pad_before, 0), (0, 0)])
        padding = "valid" if geometry.padding == "causal" else geometry.padding
        if geometry.groups == geometry.channels and geometry.groups > 1 and len(geometry.sizes) < 3:
            depthwise = ops.reshape(kernel, (*geometry.kernel_size, geometry.channels, -1))
            return ops.depthwise_conv(x, depthwise, geometry.strides, padding, "channels_last", geometry.dilation)
        return ops.conv(x, kernel, geometry.strides, padding, "channels_last", geometry.dilation)

    def adjoint(y, kernel):
        return adjoint_convolution(y, kernel, convolution)

    backend = backend_tools()
    functions = Operators(
        forward=backend.timed(forward, x, kernel),
        adjoint=backend.timed(adjoint, y, kernel),
        native=backend.timed(backend.native(forward, x, convolution, kernel), y, kernel),
        forward_gradients=backend.timed(backend.gradients(forward, y), x, kernel),
        adjoint_gradients=backend.timed(backend.gradients(adjoint, x), y, kernel),
    )
    for function in vars(functions).values():
        function()
    return functions


def backend_tools():
    """How the backend compiles, differentiates and waits."""
    return _BACKENDS[keras.backend.backend()]()


class _Jax:
    def timed(self, function, *arguments):
        import jax

        compiled = jax.jit(function)
        return lambda: jax.block_until_ready(compiled(*arguments))

    def gradients(self, function, cotangent):
        import jax

        return lambda a, kernel: jax.vjp(function, a, kernel)[1](cotangent)

    def native(self, forward, x, convolution, kernel):
        import jax

        def native(y, kernel):
            (back,) = jax.linear_transpose(lambda x: forward(x, kernel), x)(y)
            return back

        return native


class _TensorFlow:
    def timed(self, function, *arguments):
        import tensorflow as tf

        compiled = tf.function(function)
        return lambda: compiled(*arguments)  # on the CPU a call returns when it is done

    def gradients(self, function, cotangent):
        import tensorflow as tf

        def gradients(a, kernel):
            with tf.GradientTape() as tape:
                tape.watch((a, kernel))
                result = function(a, kernel)
            return tape.gradient(result, (a, kernel), output_gradients=cotangent)

        return gradients

    def native(self, forward, x, convolution, kernel):
        import tensorflow as tf

        def native(y, kernel):
            with tf.GradientTape() as tape:
                tape.watch(x)
                result = forward(x, kernel)
            return tape.gradient(result, x, output_gradients=y)

        return native


class _Torch:
    def timed(self, function, *arguments):
        import torch

        watched = [argument.detach() for argument in arguments]

        def run():
            with torch.no_grad():
                return function(*watched)

        return run

    def gradients(self, function, cotangent):
        import torch

        def gradients(a, kernel):
            with torch.enable_grad():
                a, kernel = a.detach().requires_grad_(), kernel.detach().requires_grad_()
                return torch.autograd.grad(function(a, kernel), (a, kernel), cotangent)

        return gradients

    def native(self, forward, x, convolution, kernel):
        import torch

        axes = convolution.axes
        transposed = getattr(torch.nn.functional, f"conv_transpose{len(axes)}d")

        def native(y, kernel):
            y = torch.movedim(y, -1, 1)
            weight = kernel.permute(len(axes) + 1, len(axes), *range(len(axes)))
            x = transposed(
                y,
                weight,
                stride=[axis.stride for axis in axes],
                dilation=[axis.dilation for axis in axes],
                groups=convolution.groups,
            )
            cut = tuple(slice(axis.pad_before, axis.pad_before + axis.size) for axis in axes)
            return torch.movedim(x[(slice(None), slice(None), *cut)], 1, -1)

        return native


_BACKENDS = {"jax": _Jax, "tensorflow": _TensorFlow, "torch": _Torch}
