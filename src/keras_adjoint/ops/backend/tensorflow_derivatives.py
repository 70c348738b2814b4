"""Derivatives that can be differentiated: of some of its gradients TensorFlow does not know the gradient."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import tensorflow as tf

from keras_adjoint.ops import Tensor

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


# By the names of operations that are gradients themselves.
GRADIENTS: dict[str, Gradient] = {
    "SoftsignGrad": _of_softsign,
    "ResizeBicubicGrad": _of_bicubic_resizing,
    "ScaleAndTranslateGrad": _of_scaling,
}


def register_gradients() -> None:
    """Teach TensorFlow the gradients that it lacks."""
    for name, gradient in GRADIENTS.items():
        with suppress(KeyError):  # it knows this one
            tf.RegisterGradient(name)(gradient)
