"""One small set of array functions for NumPy and for every framework's tensors.

Kernels come from anywhere: a NumPy file, a Keras variable, a PyTorch state dict while Keras runs on JAX.
`open_array` looks at what came and returns the functions that keep its kind, its dtype, its device and its gradient.
Only frameworks that are imported already are looked at, and Keras is one of them.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class ArrayFunctions:
    """The functions that rearranging a kernel needs."""

    transpose: Callable[..., Any]  # (array, axes)
    flip: Callable[..., Any]  # (array, axes)
    reshape: Callable[..., Any]  # (array, shape)
    take: Callable[..., Any]  # (array, index, axis)
    sum: Callable[..., Any]  # (array, axis)
    constant: Callable[..., Any]  # (value, like): a NumPy value with the dtype and the device of `like`


def open_array(array: Any) -> tuple[ArrayFunctions, Any]:
    """Returns the functions that fit `array`, and the array itself, read out of its variable if it is one."""
    keras = sys.modules.get("keras")
    if keras is not None and isinstance(array, keras.Variable):
        array = array.value
    if keras is not None and isinstance(array, keras.KerasTensor):
        return keras_functions(keras), array
    for framework, (kinds, functions) in FRAMEWORKS.items():
        module = sys.modules.get(framework)
        if module is not None and isinstance(array, kinds(module)):
            return functions(module), array
    return numpy_functions(), np.asarray(array)


def numpy_functions() -> ArrayFunctions:
    # Copies in C order rather than views: an edit of the result must not reach the source's kernel, and
    # `torch.from_numpy` refuses the negative strides of a flipped view.
    return ArrayFunctions(
        transpose=lambda array, axes: np.ascontiguousarray(np.transpose(array, axes)),
        flip=lambda array, axes: np.ascontiguousarray(np.flip(array, axes)),
        reshape=np.reshape,
        take=np.take,
        # NumPy adds half precision numbers in half precision, the frameworks add them in single.
        sum=lambda array, axis: np.sum(array, axis, dtype=np.promote_types(array.dtype, "float32")).astype(array.dtype),
        constant=lambda value, like: value.astype(like.dtype),
    )


def jax_functions(jax: Any) -> ArrayFunctions:
    return ArrayFunctions(
        transpose=jax.numpy.transpose,
        flip=jax.numpy.flip,
        reshape=jax.numpy.reshape,
        take=jax.numpy.take,
        sum=jax.numpy.sum,
        constant=lambda value, like: jax.numpy.asarray(value, dtype=like.dtype),
    )


def tensorflow_functions(tf: Any) -> ArrayFunctions:
    return ArrayFunctions(
        transpose=tf.transpose,
        flip=tf.reverse,
        reshape=tf.reshape,
        # Along its first axis the gradient of `gather` would be sparse `IndexedSlices`.
        take=lambda array, index, axis: tf.gather(array[None], index, axis=axis + 1)[0],
        sum=tf.reduce_sum,
        constant=lambda value, like: tf.cast(tf.constant(value), like.dtype),
    )


def torch_functions(torch: Any) -> ArrayFunctions:
    return ArrayFunctions(
        transpose=torch.permute,
        flip=torch.flip,
        reshape=torch.reshape,
        take=lambda array, index, axis: torch.index_select(array, axis, torch.as_tensor(index, device=array.device)),
        sum=torch.sum,
        constant=lambda value, like: torch.as_tensor(value, dtype=like.dtype, device=like.device),
    )


def keras_functions(keras: Any) -> ArrayFunctions:
    ops = keras.ops
    return ArrayFunctions(
        transpose=ops.transpose,
        flip=ops.flip,
        reshape=ops.reshape,
        take=ops.take,
        sum=ops.sum,
        constant=lambda value, like: ops.convert_to_tensor(value, dtype=like.dtype),
    )


# Kept in functions of the module, so that naming a framework here does not import it.
FRAMEWORKS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], ArrayFunctions]]] = {
    "jax": (lambda jax: jax.Array, jax_functions),
    "tensorflow": (lambda tf: (tf.Tensor, tf.Variable), tensorflow_functions),
    "torch": (lambda torch: torch.Tensor, torch_functions),
}
