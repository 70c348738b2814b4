"""The three backends' automatic differentiation, maps and compilers, behind the same functions."""

from contextlib import nullcontext
from types import SimpleNamespace

import keras
import numpy as np


def _jax():
    import jax

    def gradients_of(function):
        differentiated = jax.jit(jax.grad(lambda tensors: function(*tensors)))
        return lambda tensors: differentiated(tuple(tensors))

    def kernel_gradients(function, variables):
        def of_values(values):
            with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
                return function()

        return jax.jit(jax.grad(of_values))([variable.value for variable in variables])

    def all_gradients(function):
        return jax.grad(function, argnums=(0, 1))

    def hessian_product(function, primals, tangents):
        along = jax.jit(lambda *both: jax.jvp(all_gradients(function), *both)[1])
        return along(tuple(primals), tuple(tangents))

    def forward_derivative(function, primals, tangents):
        return jax.jit(lambda *both: jax.jvp(function, *both))(tuple(primals), tuple(tangents))

    def mapped_gradients(function, axes):
        return jax.jit(jax.vmap(all_gradients(function), axes))

    return SimpleNamespace(
        gradients_of=gradients_of,
        kernel_gradients=kernel_gradients,
        compiled=jax.jit,
        compiled_gradients=lambda function: jax.jit(all_gradients(function)),
        forward_derivative=forward_derivative,
        hessian_product=hessian_product,
        mapped=lambda function, axes: jax.jit(jax.vmap(function, axes)),
        mapped_gradients=mapped_gradients,
    )


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

    def forward_derivative(function, primals, tangents):
        with tf.autodiff.ForwardAccumulator(list(primals), list(tangents)) as accumulator:
            result = function(*primals)
        return result, accumulator.jvp(result)

    def hessian_product(function, primals, tangents):
        with tf.autodiff.ForwardAccumulator(list(primals), list(tangents)) as accumulator:
            found = gradients(function, list(primals))
        return [accumulator.jvp(gradient) for gradient in found]

    def mapped(function, axes):
        def run(*tensors):
            stacked = [tensor for tensor, axis in zip(tensors, axes, strict=True) if axis == 0]

            def one(values):
                values = iter(values)
                return function(*(next(values) if axis == 0 else t for t, axis in zip(tensors, axes, strict=True)))

            return tf.vectorized_map(one, stacked)

        return run

    def compiled(function):
        return tf.function(function, jit_compile=True)

    return SimpleNamespace(
        gradients_of=lambda function: lambda tensors: gradients(function, tensors),
        kernel_gradients=kernel_gradients,
        compiled=compiled,
        compiled_gradients=lambda function: compiled(lambda *tensors: gradients(function, tensors)),
        forward_derivative=forward_derivative,
        hessian_product=hessian_product,
        mapped=mapped,
        mapped_gradients=None,
    )


def _torch():
    import torch

    def gradients(function, tensors):
        tensors = [tensor.detach().requires_grad_() for tensor in tensors]
        return torch.autograd.grad(function(*tensors), tensors)

    def kernel_gradients(function, variables):
        return torch.autograd.grad(function(), [variable.value for variable in variables])

    def all_gradients(function):
        return torch.func.grad(function, argnums=(0, 1))

    def hessian_product(function, primals, tangents):
        return torch.func.jvp(all_gradients(function), tuple(primals), tuple(tangents))[1]

    def compiled(function):
        return torch.compile(function, backend="eager", dynamic=False, fullgraph=True)

    return SimpleNamespace(
        gradients_of=lambda function: lambda tensors: gradients(function, tensors),
        kernel_gradients=kernel_gradients,
        compiled=compiled,
        compiled_gradients=lambda function: lambda *tensors: gradients(compiled(function), tensors),
        forward_derivative=lambda function, primals, tangents: torch.func.jvp(
            function, tuple(primals), tuple(tangents)
        ),
        hessian_product=hessian_product,
        mapped=lambda function, axes: torch.func.vmap(function, axes),
        mapped_gradients=lambda function, axes: torch.func.vmap(all_gradients(function), axes),
    )


_BACKEND = {"jax": _jax, "tensorflow": _tensorflow, "torch": _torch}[keras.backend.backend()]()


def _as_numpy(tensors):
    return [np.asarray(keras.ops.convert_to_numpy(tensor)) for tensor in tensors]


def gradients_of(function, traced=False):
    """Tensors ↦ the gradients of a scalar function with respect to them, as arrays, or, within what is traced, as tensors."""
    differentiated = _BACKEND.gradients_of(function)
    return differentiated if traced else lambda tensors: _as_numpy(differentiated(list(tensors)))


def one_by_one():
    """Context manager within which JAX runs operation by operation, as the other backends do.

    A compiled program may compute a maximum twice and round it differently, and then finds it nowhere in its window.
    """
    if keras.backend.backend() != "jax":
        return nullcontext()
    import jax

    return jax.disable_jit()


def gradients(function, tensors):
    """Gradients of a scalar function with respect to tensors."""
    return gradients_of(function)(tensors)


def kernel_gradients(function, variables):
    """Gradients of a scalar function without arguments with respect to variables that it reads."""
    return _as_numpy(_BACKEND.kernel_gradients(function, variables))


def compiled(function):
    """The function, compiled as its backend compiles, in one piece: `jit`, XLA, or `torch.compile`."""
    return _BACKEND.compiled(function)


def compiled_gradients(function):
    """The gradients of a scalar function of two tensors, compiled."""
    return lambda *tensors: _as_numpy(_BACKEND.compiled_gradients(function)(*tensors))


def forward_derivative(function, primals, tangents):
    """(value, derivative along the tangents) in forward mode."""
    return _as_numpy(_BACKEND.forward_derivative(function, primals, tangents))


def hessian_product(function, primals, tangents):
    """The Hessian of a scalar function of two tensors times tangents: forward mode over reverse mode."""
    return _as_numpy(_BACKEND.hessian_product(function, primals, tangents))


def mapped(function, axes):
    """The function mapped over a first axis of those tensors whose axis is 0 and not `None`."""
    return lambda *tensors: _as_numpy(_BACKEND.mapped(function, axes)(*tensors))


def _mapped_gradients(function, axes):
    return lambda *tensors: _as_numpy(_BACKEND.mapped_gradients(function, axes)(*tensors))


# The gradients of a scalar function for every element of a map; `None` where a map does not nest with gradients.
mapped_gradients = _mapped_gradients if _BACKEND.mapped_gradients is not None else None


def derivatives_along(function, at):
    """(f, f′, f″) of a function of one number, by reverse differentiation of reverse differentiation, in float64."""
    return [float(keras.ops.convert_to_numpy(each)) for each in _DERIVATIVES[keras.backend.backend()](function, at)]


def _along_jax(function, at):
    import jax

    first = jax.grad(function)
    t = jax.numpy.asarray(at, "float64")
    return function(t), first(t), jax.grad(first)(t)


def _along_tensorflow(function, at):
    import tensorflow as tf

    t = tf.constant(at, "float64")
    with tf.GradientTape() as outer:
        outer.watch(t)
        with tf.GradientTape() as inner:
            inner.watch(t)
            value = function(t)
        first = inner.gradient(value, t)
    return value, first, outer.gradient(first, t)


def _along_torch(function, at):
    import torch

    t = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    value = function(t)
    (first,) = torch.autograd.grad(value, t, create_graph=True)
    return value, first, torch.autograd.grad(first, t)[0]


_DERIVATIVES = {"jax": _along_jax, "tensorflow": _along_tensorflow, "torch": _along_torch}
