"""The three backends' automatic differentiation and compilers, behind the same three functions."""

import keras
import numpy as np


def _jax():
    import jax

    def gradients(function, tensors):
        return jax.jit(jax.grad(lambda *t: function(*t), argnums=tuple(range(len(tensors)))))(*tensors)

    def kernel_gradients(function, variables):
        def of_values(values):
            with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
                return function()

        return jax.jit(jax.grad(of_values))([variable.value for variable in variables])

    return gradients, kernel_gradients, jax.jit


def _tensorflow():
    import tensorflow as tf

    def gradients(function, tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            result = function(*tensors)
        return tape.gradient(result, tensors)

    def kernel_gradients(function, variables):
        with tf.GradientTape() as tape:
            result = function()
        return tape.gradient(result, [variable.value for variable in variables])

    return gradients, kernel_gradients, lambda function: tf.function(function, jit_compile=True)


def _torch():
    import torch

    def gradients(function, tensors):
        tensors = [tensor.detach().requires_grad_() for tensor in tensors]
        return torch.autograd.grad(function(*tensors), tensors)

    def kernel_gradients(function, variables):
        return torch.autograd.grad(function(), [variable.value for variable in variables])

    return gradients, kernel_gradients, lambda function: torch.compile(function, backend="eager", dynamic=False)


_BACKEND = {"jax": _jax, "tensorflow": _tensorflow, "torch": _torch}[keras.backend.backend()]()


def _as_numpy(tensors):
    return [np.asarray(keras.ops.convert_to_numpy(tensor)) for tensor in tensors]


def gradients(function, tensors):
    """Gradients of a scalar function with respect to tensors."""
    return _as_numpy(_BACKEND[0](function, tensors))


def kernel_gradients(function, variables):
    """Gradients of a scalar function without arguments with respect to variables that it reads."""
    return _as_numpy(_BACKEND[1](function, variables))


def compiled(function):
    """The function, compiled as its backend compiles: `jit`, XLA, or `torch.compile`."""
    return _BACKEND[2](function)
