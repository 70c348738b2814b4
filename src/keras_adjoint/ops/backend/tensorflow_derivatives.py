"""Derivatives that can be differentiated: of some of its gradients TensorFlow does not know the gradient, or a wrong one."""

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_adjoint.keras_internals import computed_by
from keras_adjoint.ops import Tensor
from keras_adjoint.ops.maxima import adaptive_max_pool, max_pool

Gradient = Callable[[Any, Tensor], tuple[Tensor | None, ...]]


def _of_softsign(op: Any, y: Tensor) -> tuple[Tensor, Tensor]:
    """Of g / (1 + |x|)², by g and by x."""
    g, x = op.inputs
    slope = 1 / tf.square(1 + tf.abs(x))
    return y * slope, -2 * y * g * tf.sign(x) * slope / (1 + tf.abs(x))


# Resizing is linear, so the gradient of its gradient is the resizing.


def _of_bicubic_resizing(op: Any, y: Tensor) -> tuple[Tensor, None]:
    options = {name: op.get_attr(name) for name in ("align_corners", "half_pixel_centers")}
    return tf.raw_ops.ResizeBicubic(images=y, size=tf.shape(op.inputs[0])[1:3], **options), None


def _of_scaling(op: Any, y: Tensor) -> tuple[Tensor, None, None, None]:
    options = {name: op.get_attr(name) for name in ("kernel_type", "antialias")}
    g, _, scale, translation = op.inputs
    resized = tf.raw_ops.ScaleAndTranslate(
        images=y, size=tf.shape(g)[1:3], scale=scale, translation=translation, **options
    )
    return resized, None, None, None


def _of_slice_update(op: Any, y: Tensor) -> tuple[Tensor, Tensor, None]:
    """Of what XLA computes for the gradient of a slice, and so for that of padding: zeros of which a part is set anew."""
    x, update, start = op.inputs
    sizes = tf.shape(update, out_type=start.dtype)
    pads = tf.stack([start, tf.shape(x, out_type=start.dtype) - start - sizes], axis=1)
    is_set = tf.pad(tf.ones(sizes, tf.bool), pads)
    return tf.where(is_set, tf.zeros_like(y), y), tf.slice(y, start, sizes), None


# By the names of operations that are gradients themselves.
GRADIENTS: dict[str, Gradient] = {
    "SoftsignGrad": _of_softsign,
    "ResizeBicubicGrad": _of_bicubic_resizing,
    "ScaleAndTranslateGrad": _of_scaling,
    "XlaDynamicUpdateSlice": _of_slice_update,
}


def register_gradients() -> None:
    """Teach TensorFlow the gradients that it lacks."""
    for name, gradient in GRADIENTS.items():
        with suppress(KeyError):  # it knows this one
            tf.RegisterGradient(name)(gradient)


def _moments(
    original: Callable[..., Any], x: Tensor, axes: Any, keepdims: bool = False, synchronized: bool = False
) -> tuple[Tensor, Tensor]:
    """TensorFlow's variance takes the mean as a constant: its derivative is right, and the derivative of that is wrong."""
    if synchronized:
        return original(x, axes, keepdims, synchronized)
    wide = ops.cast(x, keras.backend.result_type(x.dtype, "float32"))
    mean, variance = (function(wide, axis=axes, keepdims=keepdims) for function in (ops.mean, ops.var))
    return ops.cast(mean, x.dtype), ops.cast(variance, x.dtype)


def _max_pool(original: Callable[..., Any], *args: Any, **options: Any) -> Tensor:
    """TensorFlow's gradient of three axes gives all of it to each of several equal maxima, on the CPU without oneDNN.

    XLA's gradient of the gradient looks for the maxima in bfloat16, whatever the number of axes.
    """
    return max_pool(*args, **options)


def _adaptive_max_pool(original: Callable[..., Any], *args: Any, **options: Any) -> Tensor:
    """Keras also pools with a window that is larger by one, of which an axis of size 1, or for one output, has none.

    TensorFlow's gradient of a pool without outputs reads memory that was never written, or ends the process.
    """
    return adaptive_max_pool(*args, **options)


# Functions of Keras' backend whose derivatives are wrong, the first or that of the derivative, and what has right ones.
DIFFERENTIABLE: dict[str, Callable[..., Any]] = {
    "moments": _moments,
    "max_pool": _max_pool,
    **({"adaptive_max_pool": _adaptive_max_pool} if hasattr(ops, "adaptive_max_pool") else {}),
}


def twice_differentiable() -> AbstractContextManager[Any]:
    """Context for a function that is differentiated, as is its derivative."""
    return computed_by(DIFFERENTIABLE)
